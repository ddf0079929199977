//! Copying: into a new directory, synced, with checksums taken on the way.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, Result as SqlResult};

use crate::backup::error::BackupError;
use crate::backup::label;
use crate::checksum::PIECE_BYTES;
use crate::lock::LOCK_FILE;
use crate::queue::database;

/// The database of a copy that is not finished.
pub(crate) const PARTIAL: &str = "queue.partial";
/// What is written before the disk is asked to have it. A single large sync would hold up those of a server.
pub(crate) const UNSYNCED_BYTES_MAX: u64 = 32 << 20;
/// Files whose names are read at once.
const FILES_MAX: usize = 256;

const FILES: &str = "SELECT name, blobs.seq, jobs.random, \
     CASE WHEN input = name THEN input_bytes ELSE bytes END, CASE WHEN input = name THEN input_crc32c ELSE crc32c END \
     FROM blobs JOIN jobs ON jobs.seq = blobs.seq LEFT JOIN results ON results.seq = blobs.seq \
     WHERE name > ?1 ORDER BY name LIMIT ?2";

/// How far a long work is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub doing: &'static str,
    /// Bytes (or jobs, where `doing` says so) done.
    pub done: u64,
    /// Of so many.
    pub of: u64,
}

/// Hears how far it is.
pub type Hears<'a> = &'a mut dyn FnMut(Progress);

/// A file that a row names.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) key: i64,
    pub(crate) random: i64,
    pub(crate) bytes: u64,
    pub(crate) crc32c: u32,
}

/// Whether somebody began to copy into this directory and did not end.
pub(crate) fn is_begun(dir: &Path) -> bool {
    dir.join(PARTIAL).exists()
}

/// Makes the directory of a copy, which must be new or empty.
pub(crate) fn make_target(dir: &Path) -> Result<(), BackupError> {
    let failed = |error| BackupError::of_io("make", dir, error);
    match fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(BackupError::NotEmpty { dir: dir.to_owned(), what: what_is_in(dir) }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Whether nothing has come into the directory of a copy but its lock, and the folder that a server makes before it looks at
/// the lock.
pub(crate) fn check_still_empty(dir: &Path) -> Result<(), BackupError> {
    let entries = fs::read_dir(dir).map_err(|error| BackupError::of_io("read", dir, error))?;
    let may_be_there = |name: &OsStr| name == LOCK_FILE || name == "blobs";
    if entries.flatten().all(|entry| may_be_there(&entry.file_name())) {
        return Ok(());
    }
    Err(BackupError::NotEmpty { dir: dir.to_owned(), what: what_is_in(dir) })
}

fn what_is_in(dir: &Path) -> &'static str {
    if label::is_labelled(dir) {
        "holds a backup already"
    } else if is_begun(dir) {
        "holds a copy that was begun and not finished: remove it"
    } else if database(dir).exists() || dir.join(LOCK_FILE).exists() {
        "holds the jobs of a server"
    } else {
        "is not empty"
    }
}

/// The files that rows name, after this name.
pub(crate) fn named_after(connection: &Connection, name: &str) -> SqlResult<Vec<Named>> {
    let mut statement = connection.prepare_cached(FILES)?;
    let rows = statement.query_map((name, crate::sweep::limit(FILES_MAX)), |row| {
        let (name, key, random) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(Named { name, key, random, bytes: row.get::<_, i64>(3)?.cast_unsigned(), crc32c: row.get(4)? })
    })?;
    rows.collect()
}

/// Size of all files that rows name.
pub(crate) fn named_bytes(connection: &Connection) -> SqlResult<u64> {
    let sql = "SELECT ifnull(sum(CASE WHEN input = name THEN input_bytes ELSE bytes END), 0) \
         FROM blobs JOIN jobs ON jobs.seq = blobs.seq LEFT JOIN results ON results.seq = blobs.seq";
    connection.query_row(sql, [], |row| row.get(0)).map(i64::cast_unsigned)
}

/// A database that nobody writes to, and beside which nothing may be written.
pub(crate) fn open_still(path: &Path) -> SqlResult<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
}

/// Copies a file; gives its size and CRC-32C. It is on disk afterwards, its name once its folder is synced.
pub(crate) fn copy_file(from: &Path, to: &Path, told: &mut dyn FnMut(u64)) -> Result<(u64, u32), BackupError> {
    let reading = |error| BackupError::of_io("read", from, error);
    let writing = |error| BackupError::of_io("write", to, error);
    let mut from = File::open(from).map_err(reading)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(writing)?;
    let (mut piece, mut bytes, mut crc32c, mut unsynced) = (vec![0; PIECE_BYTES], 0, 0, 0);
    loop {
        let count = from.read(&mut piece).map_err(reading)?;
        if count == 0 {
            file.sync_all().map_err(writing)?;
            return Ok((bytes, crc32c));
        }
        file.write_all(&piece[..count]).map_err(writing)?;
        crc32c = crc32c::crc32c_append(crc32c, &piece[..count]);
        bytes += count as u64;
        unsynced += count as u64;
        if unsynced >= UNSYNCED_BYTES_MAX {
            file.sync_data().map_err(writing)?;
            unsynced = 0;
        }
        told(count as u64);
    }
}

/// Makes the folder of the files of a copy.
pub(crate) fn make_blobs(dir: &Path) -> Result<PathBuf, BackupError> {
    let blobs = dir.join("blobs");
    let made = DirBuilder::new().mode(0o700).create(&blobs);
    made.map_err(|error| BackupError::of_io("make", &blobs, error))?;
    Ok(blobs)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), BackupError> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|error| BackupError::of_io("sync", dir, error))
}
