//! Why a data directory or a backup cannot be checked, copied or restored, and what to try.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::OpenError;

/// Why a data directory or a backup cannot be checked, copied or restored. The text ends with what to try.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// No queue has worked here.
    #[error("there is no data directory at {}: no server has kept jobs there; name it with --data DIR", dir.display())]
    NoData {
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// No backup is here.
    #[error("there is no backup in {}; make one with `kvern backup create DIR`", dir.display())]
    NoBackup {
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// A backup that was cut off.
    #[error(
        "the backup in {} was not finished, so it is none: it was cut off while it was made; remove it and make another",
        dir.display()
    )]
    Unfinished {
        /// Where it is.
        dir: PathBuf,
    },
    /// Something is where a copy was to go.
    #[error("{} {}; choose another directory, or an empty one", dir.display(), what)]
    NotEmpty {
        /// Where it was to go.
        dir: PathBuf,
        /// What is there.
        what: &'static str,
    },
    /// A backup inside the data directory would be lost with it.
    #[error("{} lies in the data directory {}: a backup there would be lost with it; choose another place", dir.display(), data.display())]
    Inside {
        /// Where it was to go.
        dir: PathBuf,
        /// The data directory.
        data: PathBuf,
    },
    /// A newer Kvern wrote it.
    #[error("{} was written by a newer Kvern ({what}); use that version", path.display())]
    Newer {
        /// The database or label.
        path: PathBuf,
        /// What this version does not know.
        what: String,
    },
    /// What was read is not what was written.
    #[error("{} is damaged: {what}; use another backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How that shows.
        what: String,
    },
    /// Somebody else's.
    #[error("no permission for {}; run this as the user of the server, or as root", path.display())]
    NotAllowed {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is no room.
    #[error("the disk is full: {} cannot be written; make room there, remove what was begun, and try again", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Anything else that the system says.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What SQLite says.
    #[error("cannot {doing} the database {}; if it is damaged, `kvern doctor` says what is", path.display())]
    Database {
        /// What was being done.
        doing: &'static str,
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The directory cannot be taken.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl BackupError {
    /// What a failed operation on a file means.
    pub(crate) fn of_io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::NotAllowed { path, source },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full { path, source }
            }
            _ => Self::Io { doing, path, source },
        }
    }

    /// What a failed operation on a database means. SQLite keeps to itself why it cannot open a file, or write one; the
    /// system says so when it is asked for the same.
    pub(crate) fn of_database(doing: &'static str, path: &Path, source: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{CannotOpen, DiskFull, ReadOnly};
        if crate::full::is_full(&source, path) || source.sqlite_error_code() == Some(DiskFull) {
            let source = io::Error::new(io::ErrorKind::StorageFull, source.to_string());
            return Self::Full { path: path.to_owned(), source };
        }
        let may_not = match source.sqlite_error_code() {
            Some(CannotOpen | ReadOnly) => path.parent().and_then(|folder| may_not_use(path, folder)),
            _ => None,
        };
        match may_not {
            Some(source) => Self::NotAllowed { path: path.to_owned(), source },
            None => Self::Database { doing, path: path.to_owned(), source },
        }
    }
}

/// Whether this user may not read a file, or not write in its folder, where SQLite shares what it needs beside a database.
fn may_not_use(path: &Path, folder: &Path) -> Option<io::Error> {
    use rustix::fs::{Access, access};
    let refused = access(path, Access::READ_OK).and_then(|()| access(folder, Access::WRITE_OK)).err()?;
    Some(io::Error::from(refused))
}
