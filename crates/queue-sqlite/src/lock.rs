//! The lock: one server on one data directory.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, test_kill_process};

use crate::error::OpenError;

/// The file in the data directory that is locked, and holds the process id of the server.
pub const LOCK_FILE: &str = "queue.lock";

/// How long a lock whose process has died is waited for: a child that it had just forked shares the open file until it
/// runs its own program.
const ORPHAN_WAIT: Duration = Duration::from_secs(2);
const ORPHAN_STEP: Duration = Duration::from_millis(5);

/// The process that works in a data directory now, if there is one.
#[must_use]
pub fn holder(dir: &Path) -> Option<u32> {
    let mut file = File::open(dir.join(LOCK_FILE)).ok()?;
    // A shared lock of ours fails only while a server holds the exclusive one.
    flock(&file, FlockOperation::NonBlockingLockShared).err()?;
    let mut pid = String::new();
    file.read_to_string(&mut pid).ok()?;
    pid.trim().parse().ok()
}

/// Holds the data directory until it is dropped. The kernel lets go of it when the process dies, however it dies.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Takes the directory, or says who has it. Also for a server that keeps no queue in it.
    ///
    /// # Errors
    /// [`OpenError::InUse`], [`OpenError::Directory`].
    pub fn take(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join(LOCK_FILE);
        let began = Instant::now();
        loop {
            match Self::take_file(dir, &path) {
                Err(OpenError::InUse { pid: Some(pid), .. }) if !lives(pid) && began.elapsed() < ORPHAN_WAIT => {
                    sleep(ORPHAN_STEP);
                }
                // Whoever had it may have removed the file between our opening and our locking: then it locks nothing.
                Ok(lock) if !lock.is_named(&path) => {}
                taken => return taken,
            }
        }
    }

    fn take_file(dir: &Path, path: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Directory { path: path.to_owned(), source };
        // Not truncated: until the lock is ours, the file says who has it.
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let mut file = opened.map_err(failed)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            file.read_to_string(&mut pid).map_err(failed)?;
            return Err(OpenError::InUse { dir: dir.to_owned(), pid: pid.trim().parse().ok() });
        }
        let write_pid = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        // A full disk is no reason not to start: the lock holds without the number in it.
        let _ = write_pid(&mut file);
        Ok(Self(file))
    }

    fn is_named(&self, path: &Path) -> bool {
        let place = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let ours = self.0.metadata().map(place);
        let named = std::fs::metadata(path).map(place);
        // One that cannot be looked at is not gone.
        named
            .as_ref()
            .map_or_else(|error| error.kind() != ErrorKind::NotFound, |named| ours.is_ok_and(|ours| ours == *named))
    }
}

/// Whether there is such a process; one that we may not signal lives, too.
fn lives(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_none_or(|pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing would not do: a process that was forked at this moment still has the same open file. If it fails, the
        // file is closed all the same.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A directory that is locked as by the last child of a process that has died.
    fn orphaned() -> (tempfile::TempDir, File) {
        let dir = tempfile::TempDir::new().expect("a directory");
        let mut child = Command::new("true").spawn().expect("it runs");
        child.wait().expect("it ends");
        let path = dir.path().join(LOCK_FILE);
        std::fs::write(&path, format!("{}\n", child.id())).expect("written");
        let file = File::open(path).expect("it is there");
        flock(&file, FlockOperation::NonBlockingLockExclusive).expect("nobody has it");
        (dir, file)
    }

    #[test]
    fn a_lock_that_a_dead_server_left_to_a_child_is_waited_for() {
        let (dir, file) = orphaned();
        let dir_path = dir.path().to_owned();
        let taking = std::thread::spawn(move || Lock::take(&dir_path));
        flock(&file, FlockOperation::Unlock).expect("it is ours");
        taking.join().expect("no panic").expect("it is free");
    }

    #[test]
    fn but_not_for_ever() {
        let (dir, _file) = orphaned();
        let began = Instant::now();
        assert!(matches!(Lock::take(dir.path()), Err(OpenError::InUse { .. })));
        assert!(began.elapsed() >= ORPHAN_WAIT);
    }

    #[test]
    fn the_lock_of_a_living_process_is_refused_at_once() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let _lock = Lock::take(dir.path()).expect("nobody has it");
        let began = Instant::now();
        assert!(matches!(Lock::take(dir.path()), Err(OpenError::InUse { pid: Some(_), .. })));
        assert!(began.elapsed() < ORPHAN_WAIT);
    }
}
