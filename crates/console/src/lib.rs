//! The dashboard page and its live events.
