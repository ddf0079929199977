//! The record of a live jail: a file in `run/jails/`, named after the jail's process id.
//!
//! ```text
//! PID START        the jail
//! PID START        the function's process, once it runs
//! ```
//!
//! START is field 22 of `/proc/PID/stat`: a process with the same id and another start is somebody else's. Lines that
//! do not read so are ignored: a record is only a hint of what to wait for and to kill.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal};

use super::{cgroup, tree};

/// The record of this process.
#[derive(Debug)]
pub(super) struct Record {
    path: PathBuf,
    file: File,
}

/// A process that was alive when a record was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recorded {
    pid: i32,
    start: u64,
}

/// Where the records are, in `run/` of the data directory.
pub(crate) fn folder(run: &Path) -> PathBuf {
    run.join("jails")
}

/// Kills what a record names and everything below it, as far as it is still what was recorded. Gives how many it named.
pub(crate) fn kill(record: &Path) -> usize {
    let alive: Vec<Pid> = Recorded::read(record).into_iter().filter_map(Recorded::alive).collect();
    for pid in &alive {
        tree::kill_below(*pid);
        _ = rustix::process::kill_process_group(*pid, Signal::KILL);
        _ = rustix::process::kill_process(*pid, Signal::KILL);
    }
    alive.len()
}

/// Removes a record, and kills and removes the cgroup of its jail: what had left the tree of processes is there.
pub(crate) fn remove(record: &Path) {
    if let Some(jail) = record.file_name().and_then(|name| name.to_str()) {
        cgroup::remove_leftover(jail);
    }
    _ = fs::remove_file(record);
}

// === impl Record ===

impl Record {
    /// Writes the record of this process.
    pub(super) fn write(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let me = rustix::process::getpid();
        let path = folder.join(me.as_raw_nonzero().to_string());
        let mut record = Self { file: File::create(&path)?, path };
        record.add(me)?;
        Ok(record)
    }

    /// Adds a process.
    pub(super) fn add(&mut self, pid: Pid) -> io::Result<()> {
        let pid = pid.as_raw_nonzero().get();
        let start = tree::stat(pid).map_or(0, |stat| stat.start);
        self.file.write_all(format!("{pid} {start}\n").as_bytes())
    }

    pub(super) fn remove(self) {
        _ = fs::remove_file(self.path);
    }
}

// === impl Recorded ===

impl Recorded {
    /// The processes of a record, the jail first.
    pub(crate) fn read(path: &Path) -> Vec<Self> {
        let text = fs::read_to_string(path).unwrap_or_default();
        let parse = |line: &str| {
            let (pid, start) = line.split_once(' ')?;
            Some(Self { pid: pid.parse().ok()?, start: start.parse().ok()? })
        };
        text.lines().filter_map(parse).collect()
    }

    /// The process, if it is still the one that was recorded.
    pub(crate) fn alive(self) -> Option<Pid> {
        let stat = tree::stat(self.pid)?;
        if stat.start == self.start && !stat.is_zombie { Pid::from_raw(self.pid) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_the_same_id_is_somebody_else() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let record = Record::write(folder.path()).expect("the record is written");
        let read = Recorded::read(&record.path);
        assert_eq!(read.len(), 1);
        assert!(read[0].alive().is_some());
        assert_eq!(Recorded { start: read[0].start + 1, ..read[0] }.alive(), None);
    }

    #[test]
    fn other_lines_are_ignored() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("1");
        fs::write(&path, "x\n1 2 3\n7 8\n").expect("a file");
        assert_eq!(Recorded::read(&path), [Recorded { pid: 7, start: 8 }]);
        assert_eq!(Recorded::read(&folder.path().join("2")), []);
    }
}
