//! Keeps the memory and the environment of the server, and with them its token, from other programs of its user.

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// Functions run as the user of the server: without this they could read `/proc/PID/environ` and `/proc/PID/mem` of it, or
/// attach to it (prctl(2), `PR_SET_DUMPABLE`). The price is that it leaves no core dump. Root can do all of it as before.
///
/// Not under a tracer: that reads everything anyway, and afterwards it would see addresses where it saw texts.
pub(crate) fn hide() {
    if is_traced() {
        return;
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "functions may be able to read the environment of the server");
    }
}

fn is_traced() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|pid| pid.trim() != "0")
}
