//! Functions yield to the server: one that computes for hours does not slow the acceptance of others' requests.
//!
//! Where the kernel shares the processors between sessions first (`autogroup`, sched(7)), the niceness of a process counts
//! only within its session, so the session has one too. What cannot be set stays as it is.

use std::fs;

use rustix::process::{Pid, getpriority_process, setpriority_process};

/// Added to the server's own niceness.
const NICE: i32 = 5;
const NICE_MAX: i32 = 19;
const AUTOGROUP: &str = "/proc/self/autogroup";

/// The niceness of this session; none if sessions have none here.
pub(super) fn of_session() -> Option<i32> {
    // `/autogroup-37759 nice 0`
    fs::read_to_string(AUTOGROUP).ok()?.split_whitespace().next_back()?.parse().ok()
}

/// Makes this session nicer than the one that it came from.
pub(super) fn lower_session(before: i32) {
    _ = fs::write(AUTOGROUP, (before + NICE).min(NICE_MAX).to_string());
}

/// Makes this process nicer.
pub(super) fn lower(pid: Pid) {
    _ = getpriority_process(Some(pid)).and_then(|nice| setpriority_process(Some(pid), (nice + NICE).min(NICE_MAX)));
}
