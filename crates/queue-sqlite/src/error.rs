//! Why a data directory cannot be opened, and what to try.

use std::io;
use std::path::{Path, PathBuf};

use kvern_queue::Error;
use rusqlite::ErrorCode;

use crate::checksum::is_damage;
use crate::full::is_full;

/// Why a data directory cannot be opened. The text ends with what to try.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory, or a file in it, cannot be made or read.
    #[error("cannot use {}; check that the path exists and that this user may write there", path.display())]
    Directory {
        /// The directory or file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another server has it.
    #[error("{} is in use by another server{}; stop that one first, or choose another directory", dir.display(), by(*pid))]
    InUse {
        /// The data directory.
        dir: PathBuf,
        /// The process that has it, if it said so.
        pid: Option<u32>,
    },
    /// A newer Kvern wrote it.
    #[error(
        "{} was written by a newer Kvern (schema {found}, this one knows up to {known}); start that version, or restore a backup",
        path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest that this program knows.
        known: i64,
    },
    /// Another program's database.
    #[error("{} is no database of Kvern: it has tables of another program; choose another data directory", path.display())]
    Foreign {
        /// The database.
        path: PathBuf,
    },
    /// The SQLite in this program has a known bug that can damage the database.
    #[error("SQLite {found} is too old; build with the bundled SQLite (3.51.3 or newer)")]
    OldSqlite {
        /// Its version.
        found: &'static str,
    },
    /// A backup stays as it is.
    #[error("{} is a backup: restore it into another directory with `kvern restore`, and start there", dir.display())]
    Backup {
        /// Where it is.
        dir: PathBuf,
    },
    /// A restore or a backup that was cut off.
    #[error(
        "a copy into {} was begun and not finished; remove the directory, and restore the backup again into a new one",
        dir.display()
    )]
    Unfinished {
        /// Where it is.
        dir: PathBuf,
    },
    /// The database is not what was written.
    #[error(
        "the database {} is damaged; `kvern doctor --data {dir}` says what is, `kvern restore BACKUP --data NEW_DIR` brings \
         back the last backup", path.display(), dir = folder(path)
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The database cannot be read.
    #[error("cannot open the database {}; `kvern doctor --data {dir}` says more", path.display(), dir = folder(path))]
    Database {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// There is no room to begin.
    #[error("the disk is full: {} cannot be opened; make some MiB of room there", path.display())]
    Full {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The writer could not be started.
    #[error("cannot start the writer thread; check the limit on processes (ulimit -u)")]
    Thread(#[source] io::Error),
}

impl OpenError {
    /// What SQLite says of a database that is being opened.
    pub(crate) fn of_database(path: &Path, source: rusqlite::Error) -> Self {
        let (is_full, is_damaged) = (is_full(&source, path), is_damage(&source));
        let path = path.to_owned();
        match (is_full, is_damaged) {
            (true, _) => Self::Full { path, source },
            (false, true) => Self::Damaged { path, source },
            (false, false) => Self::Database { path, source },
        }
    }
}

/// What a failed statement means while the queue works.
pub(crate) fn broken(error: &rusqlite::Error) -> Error {
    if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) {
        return Error::Busy(format!("another program has locked the database: {error}"));
    }
    let what_to_try = if is_damage(error) { "; `kvern doctor` says what is damaged" } else { "" };
    Error::Broken(format!("{error}{what_to_try}"))
}

fn folder(path: &Path) -> std::path::Display<'_> {
    path.parent().unwrap_or(path).display()
}

fn by(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}
