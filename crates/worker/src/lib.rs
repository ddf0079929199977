//! Leases jobs, runs them on a runtime, settles them.
