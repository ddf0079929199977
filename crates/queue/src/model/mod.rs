//! Random operations on an adapter and the specification side by side.
