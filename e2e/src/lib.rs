//! End-to-end tests: the real binary, real clients, real faults.
