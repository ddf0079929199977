//! What is stored is for its owner alone, also in a directory that others may look into.
//!
//! The data directory itself is the user's: if it was there before us it keeps its mode, for it may hold other things.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::OpenError;

/// What SQLite keeps beside a database; it gives new ones the mode of the database.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Makes a directory, with those above it.
pub(crate) fn make_dir(path: &Path) -> Result<(), OpenError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| OpenError::Directory { path: path.to_owned(), source })
}

/// Makes a directory of ours, or closes it to others.
pub(crate) fn make_own_dir(path: &Path) -> Result<(), OpenError> {
    make_dir(path)?;
    close_to_others(path)
}

/// Makes an empty database, or closes the one that is there to others.
pub(crate) fn make_database(path: &Path) -> Result<(), OpenError> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(OpenError::Directory { path: path.to_owned(), source: error });
        }
        _ => {}
    }
    close_to_others(path)?;
    for suffix in BESIDE {
        let mut beside = path.as_os_str().to_owned();
        beside.push(suffix);
        close_to_others(&PathBuf::from(beside))?;
    }
    Ok(())
}

/// Takes away what group and others may do. What is not there needs nothing.
fn close_to_others(path: &Path) -> Result<(), OpenError> {
    let closed = path.metadata().and_then(|metadata| match metadata.permissions().mode() {
        mode if mode & 0o077 == 0 => Ok(()),
        mode => std::fs::set_permissions(path, Permissions::from_mode(mode & 0o700)),
    });
    match closed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(OpenError::Directory { path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}
