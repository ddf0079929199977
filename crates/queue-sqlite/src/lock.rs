//! The lock: one server on one data directory.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::error::OpenError;

/// The file in the data directory that is locked, and holds the process id of the server.
pub const LOCK_FILE: &str = "queue.lock";

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
        let failed = |source| OpenError::Directory { path: path.clone(), source };
        // Not truncated: until the lock is ours, the file says who has it.
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
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
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing would not do: a process that was forked at this moment still has the same open file. If it fails, the
        // file is closed all the same.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}
