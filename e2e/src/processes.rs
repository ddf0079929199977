//! The processes of a server and of its functions, as the kernel tells of them.

use std::fs;

use crate::server::Server;

/// How much resident memory the server may grow by while a gigabyte goes past it. Measured: under 3 MiB.
const GROWTH_KIB_MAX: u64 = 8 << 10;

/// Carries out `case` and holds the server's resident memory against what it was, by the kernel's high-water mark.
///
/// # Panics
/// If it grew.
#[track_caller]
pub fn stays_small<T>(server: &Server, case: impl FnOnce() -> T) -> T {
    let pid = server.pid();
    // 5 resets the high-water mark (proc_pid_clear_refs(5)).
    fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("the mark is reset");
    let before = status_kib(pid, "VmRSS:");
    let said = case();
    let peak = status_kib(pid, "VmHWM:");
    assert!(peak < before + GROWTH_KIB_MAX, "the server grew from {before} to {peak} KiB");
    said
}

fn status_kib(pid: u32, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the server lives");
    let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("the kernel says it");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// The processes of a function of this server, by what stands in their environment, jails included.
///
/// # Panics
/// Without `/proc`.
#[must_use]
pub fn processes_of(server: &Server, function: &str) -> Vec<u32> {
    let mark = format!("KVERN_FUNCTION={function}");
    let place = format!("TMPDIR={}", server.data.display());
    let pids =
        fs::read_dir("/proc").expect("/proc").flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_ours = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        let has_mark = variables.clone().any(|variable| variable == mark.as_bytes());
        has_mark && variables.any(|variable| variable.starts_with(place.as_bytes()))
    };
    pids.filter(is_ours).collect()
}
