//! The kvern binary.
fn main() {}
