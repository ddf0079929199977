//! Functions yield to the server: one that computes for hours does not slow the acceptance of others' requests.
//!
//! Where the kernel shares the processors between sessions first (`autogroup`, sched(7)), the niceness of a process counts
//! only within its session, so the session has one too. What cannot be set stays as it is.

use std::fs;
use std::io::ErrorKind;

use rustix::process::{Pid, getpriority_process, setpriority_process};

/// Added to the server's own niceness.
const NICE: i32 = 5;
const NICE_MAX: i32 = 19;
const AUTOGROUP: &str = "/proc/self/autogroup";

/// The niceness of the jail's session, until it is set.
pub(super) struct Session {
    wanted: Option<i32>,
}

// === impl Session ===

impl Session {
    /// Nicer than the session in which this process is now; ask before it begins its own.
    pub(super) fn nicer_than_ours() -> Self {
        let ours = fs::read_to_string(AUTOGROUP).ok().as_deref().map(told);
        Self { wanted: ours.map(|ours| (ours + NICE).min(NICE_MAX)) }
    }

    /// Sets it. The kernel lets only one process of the machine do so per tenth of a second, unless it is root's: then it
    /// is still to be set.
    pub(super) fn set(&mut self) {
        let Some(wanted) = self.wanted else { return };
        let set = fs::write(AUTOGROUP, wanted.to_string());
        if !set.is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
            self.wanted = None;
        }
    }

    /// Whether it is still to be set.
    pub(super) fn is_to_be_set(&self) -> bool {
        self.wanted.is_some()
    }
}

// === helpers ===

/// `/autogroup-37759 nice 0`; nothing for the session that began with the machine, which stands at 0.
fn told(text: &str) -> i32 {
    text.split_whitespace().next_back().and_then(|nice| nice.parse().ok()).unwrap_or(0)
}

/// Makes this process nicer.
pub(super) fn lower(pid: Pid) {
    _ = getpriority_process(Some(pid)).and_then(|nice| setpriority_process(Some(pid), (nice + NICE).min(NICE_MAX)));
}

#[cfg(test)]
mod tests {
    use super::told;

    #[test]
    fn the_session_of_the_machine_itself_tells_nothing() {
        assert_eq!([told("/autogroup-37759 nice 3\n"), told("/autogroup-1 nice -5\n"), told("")], [3, -5, 0]);
    }
}
