//! Whether a failure of SQLite is a want of room, which passes, or the end of the store.
//!
//! SQLite calls it full only where the disk is. A quota, or a limit on the size of files, it reports as a failed write,
//! the same as a broken disk, and keeps to itself what the system said. So the system is asked again. That is safe
//! whatever it answers: the last write of a commit is the frame that makes it one, so after a failed write there is none,
//! and a rollback tells the truth. A failed sync is another matter, and always the end.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use rusqlite::{Connection, ErrorCode, ffi};
use rustix::process::{Resource, getrlimit};

use crate::schema::path_of;

/// No write of SQLite is larger: a page, with the head of its frame.
const WRITE_BYTES_MAX: u64 = 8 << 10;

/// Whether there is no room: in the database or its log, or in the index of the log.
pub(crate) fn is_full(error: &rusqlite::Error, database: &Path) -> bool {
    let extended_code = error.sqlite_error().map(|error| error.extended_code);
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
        || extended_code == Some(ffi::SQLITE_IOERR_SHMSIZE)
        || (extended_code == Some(ffi::SQLITE_IOERR_WRITE) && may_not_grow(database))
}

/// Whether a sync failed, in whatever statement: what was written before it may be lost, and no later sync says so.
pub(crate) fn is_failed_sync(error: &rusqlite::Error) -> bool {
    let extended_code = error.sqlite_error().map(|error| error.extended_code);
    matches!(extended_code, Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC))
}

/// [`is_full`] of a connection.
pub(crate) fn is_full_for(error: &rusqlite::Error, connection: &Connection) -> bool {
    is_full(error, &path_of(connection))
}

fn may_not_grow(database: &Path) -> bool {
    is_at_limit(database) || is_over_quota(database)
}

/// Whether the database or its log is as large as a file of this process may be.
fn is_at_limit(database: &Path) -> bool {
    let Some(limit) = getrlimit(Resource::Fsize).current else { return false };
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    let sizes = [database, Path::new(&log)].map(|file| file.metadata().map_or(0, |metadata| metadata.len()));
    sizes.iter().any(|size| size + WRITE_BYTES_MAX > limit)
}

/// Whether another file beside the database is refused room too.
fn is_over_quota(database: &Path) -> bool {
    let path = database.with_extension("probe");
    let written = File::create(&path).and_then(|mut file| file.write_all(&[0; WRITE_BYTES_MAX as usize]));
    let _ = std::fs::remove_file(&path);
    written
        .is_err_and(|error| matches!(error.kind(), std::io::ErrorKind::QuotaExceeded | std::io::ErrorKind::StorageFull))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(extended_code: std::ffi::c_int) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(extended_code), None)
    }

    #[test]
    fn a_want_of_room_is_told_from_a_broken_disk() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let database = dir.path().join("queue.db");
        for (code, expected) in [
            (ffi::SQLITE_FULL, true),
            (ffi::SQLITE_IOERR_SHMSIZE, true),
            (ffi::SQLITE_IOERR_WRITE, false),
            (ffi::SQLITE_IOERR_FSYNC, false),
            (ffi::SQLITE_IOERR, false),
        ] {
            assert_eq!(is_full(&failure(code), &database), expected, "{code}, where there is room");
        }
        assert!(std::fs::read_dir(dir.path()).expect("reads").next().is_none(), "the probe is gone");
    }
}
