//! The lock: one server on one data directory.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
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
        loop {
            let lock = Self::take_file(dir, &path)?;
            // Whoever had it may have removed the file between our opening and our locking: then it locks nothing.
            if lock.is_named(&path) {
                return Ok(lock);
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

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing would not do: a process that was forked at this moment still has the same open file. If it fails, the
        // file is closed all the same.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}
