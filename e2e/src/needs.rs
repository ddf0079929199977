//! What a test needs of the machine: where it is missing, the test is skipped loudly, and fails if `CI=true`.

use std::io::Write;
use std::process::{Command, Stdio};

/// Whether every program is there.
#[must_use]
pub fn programs(names: &[&str]) -> bool {
    names.iter().all(|name| {
        let found = Command::new("sh").args(["-c", "command -v \"$0\"", name]).stdout(Stdio::null()).status();
        is_given(&format!("the program `{name}`"), found.is_ok_and(|status| status.success()))
    })
}

/// Whether we are root.
#[must_use]
pub fn root() -> bool {
    is_given("root", rustix::process::geteuid().is_root())
}

/// Says whether a need is met; if it is not, says so past the test's capture.
///
/// # Panics
/// If it is not and `CI=true`.
#[must_use]
pub fn is_given(need: &str, is_met: bool) -> bool {
    if !is_met {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{need} is missing, and CI=true");
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("a test");
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: it needs {need}");
    }
    is_met
}
