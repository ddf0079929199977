//! The processes under a process: finding, burying and killing them.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

/// A jail gives up on processes that outlive KILL this long: only the kernel can hold one (a dead network disk).
const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// Time between two rounds of killing.
const ROUND: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// What `/proc/PID/stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// The parent.
    pub(crate) parent: i32,
    /// When it started, in clock ticks since boot: tells a process from a later one with the same id.
    pub(crate) start: u64,
    /// Whether it has ended and waits to be buried.
    pub(crate) is_zombie: bool,
}

/// Reaps what has ended among our children; gives the status of `main` if it was among them.
pub(super) fn bury(main: Pid) -> io::Result<Option<WaitStatus>> {
    let mut ended = None;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == main => ended = Some(status),
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) => return Ok(ended),
            Err(rustix::io::Errno::CHILD) if ended.is_some() => return Ok(ended),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Kills and reaps our children, their children, and whoever becomes our child while that happens.
///
/// As the subreaper we inherit every orphan below us, so the round ends only when nobody is left.
pub(super) fn kill_all_children() {
    let until = Instant::now() + KILL_PATIENCE;
    while Instant::now() < until {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) => {
                kill_below(rustix::process::getpid());
                _ = rustix::event::poll(&mut [], Some(&ROUND));
            }
            Err(_) => return, // ECHILD: nobody is left.
        }
    }
}

/// Sends KILL to everything below `root`, once.
pub(crate) fn kill_below(root: Pid) {
    for pid in below(root.as_raw_nonzero().get(), &parents()) {
        if let Some(pid) = Pid::from_raw(pid) {
            _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// What `/proc` says of a process; none if there is no such process.
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

// === helpers ===

fn parents() -> Vec<(i32, i32)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| stat(pid).map(|stat| (pid, stat.parent))).collect()
}

fn below(root: i32, parents: &[(i32, i32)]) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for &(pid, parent) in parents {
        children.entry(parent).or_default().push(pid);
    }
    let mut found = Vec::new();
    let mut next = vec![root];
    while let Some(pid) = next.pop() {
        // Taken out: what `/proc` says is not of one moment, and must not lead us in a circle.
        let below = children.remove(&pid).unwrap_or_default();
        found.extend(&below);
        next.extend(below);
    }
    found
}

fn parse(stat: &str) -> Option<Stat> {
    // The name stands in parentheses and may itself hold any of them, and blanks.
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let is_zombie = matches!(*fields.first()?, "Z" | "X");
    Some(Stat { parent: fields.get(1)?.parse().ok()?, start: fields.get(19)?.parse().ok()?, is_zombie })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let line = "77 (a) b (c) S 12 77 77 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 123456 0 0\n";
        assert_eq!(parse(line), Some(Stat { parent: 12, start: 123_456, is_zombie: false }));
        assert_eq!(parse("77 (a"), None);
    }

    #[test]
    fn everything_below_is_found() {
        let mut found = below(2, &[(1, 0), (2, 1), (3, 2), (4, 3), (5, 1), (6, 2), (2, 4)]);
        found.sort_unstable();
        assert_eq!(found, [2, 3, 4, 6]);
    }

    #[test]
    fn we_are_below_our_parent() {
        let me = rustix::process::getpid().as_raw_nonzero().get();
        let parent = stat(me).expect("we are running").parent;
        assert!(below(parent, &parents()).contains(&me));
    }
}
