//! Hold: while a backup copies files, none of them is removed.
//!
//! A backup is another process, so the word between the two is a lock on the folder of the files: shared by whoever copies,
//! exclusive for whoever removes. The kernel gives it back when its holder dies, however it dies. Whoever would remove
//! never waits for a copy: it comes back to it later.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Keeps the files of a folder where they are.
#[derive(Debug)]
pub(crate) struct Hold {
    _lock: Locked,
}

/// The right to remove files of a folder.
#[derive(Debug)]
pub(crate) struct Removal {
    _lock: Option<Locked>,
}

/// A lock that is given back when it is dropped.
#[derive(Debug)]
struct Locked(File);

// === impl Hold ===

impl Hold {
    /// Waits until nobody removes anything, which takes moments.
    pub(crate) fn take(folder: &Path) -> io::Result<Self> {
        Locked::new(folder, FlockOperation::LockShared).map(|lock| Self { _lock: lock })
    }
}

// === impl Removal ===

impl Removal {
    /// If nobody holds the files now.
    pub(crate) fn now(folder: &Path) -> Option<Self> {
        match Locked::new(folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(lock) => Some(Self { _lock: Some(lock) }),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::WOULDBLOCK) => None,
            // A file system without locks has no backup that could hold one either. Anything else may pass.
            Err(error) if has_no_locks(&error) => Some(Self { _lock: None }),
            Err(_) => None,
        }
    }

    /// Once nobody holds the files any more.
    pub(crate) fn wait(folder: &Path) -> io::Result<Self> {
        Locked::new(folder, FlockOperation::LockExclusive).map(|lock| Self { _lock: Some(lock) })
    }
}

fn has_no_locks(error: &io::Error) -> bool {
    let never = [Errno::NOSYS, Errno::OPNOTSUPP, Errno::NOLCK, Errno::INVAL];
    Errno::from_io_error(error).is_some_and(|errno| never.contains(&errno))
}

// === impl Locked ===

impl Locked {
    fn new(folder: &Path, operation: FlockOperation) -> io::Result<Self> {
        let folder = File::open(folder)?;
        flock(&folder, operation)?;
        Ok(Self(folder))
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Closing would not do: a process that was forked at this moment still has the same open file.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}
