//! Create: a backup of a data directory, whether its server works or not. See [`crate::backup`] for why it is exact.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kvern_core::UnixMs;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, Result as SqlResult};

use crate::backup::copy::{self, Hears, PARTIAL, Progress, UNSYNCED_BYTES_MAX, open_still, sync_dir};
use crate::backup::error::BackupError;
use crate::backup::files::copy_files;
use crate::backup::label::{FORMAT, Label};
use crate::check::{have_data, known_schema};
use crate::finding::Finding;
use crate::hold::Hold;
use crate::lock::{LOCK_FILE, Lock};
use crate::queue::database;
use crate::schema;

/// Pages that are copied at once: 1 MiB, so that progress is seen.
const STEP_PAGES: i32 = 256;
const PAGE_BYTES: u64 = 4096;
/// A database that is busy at its start is tried again so often.
const BUSY_MAX: u32 = 100;
const BUSY_WAIT: Duration = Duration::from_millis(50);

/// A backup that was made.
#[derive(Debug)]
pub struct Made {
    /// What is in it.
    pub label: Label,
    /// Files that were damaged in the data directory already. They are in the backup as they were.
    pub findings: Vec<Finding>,
}

/// Removes what was begun unless it is finished. It has the lock of the directory: what is removed is no server's.
#[derive(Debug)]
pub(crate) struct Begun {
    _lock: Lock,
    dir: PathBuf,
    is_ours: bool,
    is_finished: bool,
}

/// Makes a backup in a new or empty directory. The server of the data directory goes on.
///
/// # Errors
/// [`BackupError`] says why there is none. What was begun is removed.
pub fn create(data: &Path, dir: &Path, hears: Hears<'_>) -> Result<Made, BackupError> {
    let source = have_data(data)?;
    check_apart(data, dir)?;
    let begun = Begun::begin(dir)?;
    let blobs = data.join("blobs");
    let hold = match Hold::take(&blobs) {
        // Without the folder there are no files: those that rows name are lost, and will be named.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        held => Some(held.map_err(|error| BackupError::of_io("hold", &blobs, error))?),
    };
    let partial = dir.join(PARTIAL);
    let (schema, taken_at_ms) = copy_database(&source, &partial, hears)?;

    let failed = |error| BackupError::of_database("read", &partial, error);
    let copy = open_still(&partial).map_err(failed)?;
    let copied = copy_files(&copy, &partial, (&blobs, &copy::make_blobs(dir)?), hears)?;
    drop(hold);
    let jobs = counts(&copy).map_err(failed)?;
    drop(copy);

    let (database_bytes, database_crc32c) = sum(&partial, hears)?;
    fs::rename(&partial, database(dir)).map_err(|error| BackupError::of_io("name", &partial, error))?;
    sync_dir(dir)?;
    let label = Label {
        format: FORMAT,
        kvern: env!("CARGO_PKG_VERSION").to_owned(),
        schema,
        taken_at_ms,
        database_bytes,
        database_crc32c,
        files: copied.files,
        file_bytes: copied.bytes,
        jobs,
    };
    label.write(dir)?;
    // No server works in a backup: its label says what it is, to one that has just opened the file too.
    let _ = fs::remove_file(dir.join(LOCK_FILE));
    begun.finish()?;
    Ok(Made { label, findings: copied.findings })
}

/// A backup inside the data directory would be lost with it.
fn check_apart(data: &Path, dir: &Path) -> Result<(), BackupError> {
    let Ok(data) = data.canonicalize() else { return Ok(()) };
    let absolute = std::path::absolute(dir).map_err(|error| BackupError::of_io("find", dir, error))?;
    // It need not be there yet: the nearest directory that is decides.
    let above = absolute.ancestors().find_map(|above| above.canonicalize().ok());
    let is_inside = above.is_some_and(|above| above.starts_with(&data));
    if is_inside { Err(BackupError::Inside { dir: dir.to_owned(), data }) } else { Ok(()) }
}

/// The database as one read sees it: its schema, and when that was.
fn copy_database(from: &Path, to: &Path, hears: Hears<'_>) -> Result<(i64, UnixMs), BackupError> {
    let reading = |error| BackupError::of_database("read", from, error);
    let writing = |error| BackupError::of_io("write", to, error);
    let source = schema::open_reader(from).map_err(reading)?;
    let schema = known_schema(from, &source)?;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(writing)?;
    let copying = |error| BackupError::of_database("copy", to, error);
    let mut target = Connection::open(to).map_err(copying)?;
    set_up(&target).map_err(copying)?;

    // The read begins with the first look, and lasts until all pages are copied: what is committed after it goes to the
    // log of the database and is not seen.
    source.execute_batch("BEGIN; SELECT count(*) FROM meta").map_err(reading)?;
    let taken_at = now();
    let pages = Backup::new(&source, &mut target).map_err(copying)?;
    let (mut busy, mut synced) = (0, 0);
    loop {
        let step = pages.step(STEP_PAGES).map_err(copying)?;
        if matches!(step, StepResult::Busy | StepResult::Locked) {
            busy += 1;
            if busy > BUSY_MAX {
                return Err(copying(busy_error()));
            }
            std::thread::sleep(BUSY_WAIT);
        }
        let [of, left] = [pages.progress().pagecount, pages.progress().remaining].map(|pages| pages.unsigned_abs());
        let done = u64::from(of - left) * PAGE_BYTES;
        hears(Progress { doing: "copying the database", done, of: u64::from(of) * PAGE_BYTES });
        if done - synced >= UNSYNCED_BYTES_MAX {
            file.sync_data().map_err(writing)?;
            synced = done;
        }
        if step == StepResult::Done {
            break;
        }
    }
    drop(pages);
    drop(source);
    // A copy that stands still needs no files beside it.
    target.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(())).map_err(copying)?;
    target.close().map_err(|(_, error)| copying(error))?;
    file.sync_all().map_err(writing)?;
    Ok((schema, taken_at))
}

fn busy_error() -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
    rusqlite::Error::SqliteFailure(code, None)
}

/// It is synced as a whole, and removed as a whole if it fails.
fn set_up(target: &Connection) -> SqlResult<()> {
    target.pragma_update_and_check(None, "journal_mode", "OFF", |_| Ok(()))?;
    target.pragma_update(None, "synchronous", "OFF")?;
    target.pragma_update(None, "cache_size", -2048)
}

fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn counts(copy: &Connection) -> SqlResult<BTreeMap<String, u64>> {
    let states = ["scheduled", "queued", "succeeded", "failed", "cancelled"];
    let count = |state: &str| {
        let sql = format!("SELECT ifnull(sum({state}), 0) FROM functions");
        copy.query_row(&sql, [], |row| row.get(0)).map(|count: i64| (state.to_owned(), count.cast_unsigned()))
    };
    states.into_iter().map(count).collect()
}

/// Size and checksum of a file.
pub(crate) fn sum(path: &Path, hears: Hears<'_>) -> Result<(u64, u32), BackupError> {
    use std::io::Read;
    let failed = |error| BackupError::of_io("read", path, error);
    let mut file = fs::File::open(path).map_err(failed)?;
    let of = file.metadata().map_err(failed)?.len();
    let (mut piece, mut done, mut crc32c) = (vec![0; 1 << 20], 0, 0);
    loop {
        let count = file.read(&mut piece).map_err(failed)?;
        if count == 0 {
            return Ok((done, crc32c));
        }
        crc32c = crc32c::crc32c_append(crc32c, &piece[..count]);
        done += count as u64;
        hears(Progress { doing: "reading the copy", done, of });
    }
}

// === impl Begun ===

impl Begun {
    /// Begins in a new or empty directory.
    pub(crate) fn begin(dir: &Path) -> Result<Self, BackupError> {
        let is_ours = !dir.exists();
        copy::make_target(dir)?;
        Self::hold(dir, is_ours)
    }

    /// Takes a directory that was empty a moment ago. If a server was quicker, everything there is that server's.
    fn hold(dir: &Path, is_ours: bool) -> Result<Self, BackupError> {
        let lock = Lock::take(dir)?;
        copy::check_still_empty(dir)?;
        Ok(Self { _lock: lock, dir: dir.to_owned(), is_ours, is_finished: false })
    }

    /// All of it is there, and so is its name.
    pub(crate) fn finish(mut self) -> Result<(), BackupError> {
        self.is_finished = true;
        match self.dir.canonicalize() {
            Ok(dir) if self.is_ours => dir.parent().map_or(Ok(()), sync_dir),
            _ => Ok(()),
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        // The directory was empty: all of this is ours. What cannot be removed is told apart by its names.
        for name in [PARTIAL, "queue.partial-journal", "queue.partial-wal", "queue.partial-shm", "backup.partial"] {
            let _ = fs::remove_file(self.dir.join(name));
        }
        let _ = fs::remove_file(self.dir.join("queue.db"));
        let _ = fs::remove_dir_all(self.dir.join("blobs"));
        let _ = fs::remove_file(self.dir.join(LOCK_FILE));
        if self.is_ours {
            let _ = fs::remove_dir(&self.dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use kvern_queue::Clock;

    use super::*;
    use crate::open::Options;
    use crate::queue::SqliteQueue;

    fn start(dir: &Path) -> Result<std::sync::Arc<SqliteQueue>, crate::error::OpenError> {
        SqliteQueue::open(Options { dir: dir.to_owned(), clock: Clock::manual(UnixMs(1)) })
    }

    #[test]
    fn a_server_that_was_quicker_keeps_what_it_made() {
        let dir = tempfile::TempDir::new().expect("a directory");
        copy::make_target(dir.path()).expect("it is empty");
        let queue = start(dir.path()).expect("it starts");
        assert!(Begun::hold(dir.path(), true).is_err(), "a server works there");
        assert!(database(dir.path()).exists() && dir.path().join(LOCK_FILE).exists(), "its files are gone");
        queue.crash();
        let refused = Begun::hold(dir.path(), true);
        assert!(matches!(refused, Err(BackupError::NotEmpty { .. })), "a server worked there");
        assert!(database(dir.path()).exists(), "its database is gone");
    }

    #[test]
    fn nobody_starts_where_something_was_begun() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let begun = Begun::begin(dir.path()).expect("it is empty");
        assert!(start(dir.path()).is_err(), "the directory is taken");
        drop(begun);
        // What that start made before it looked at the lock is gone too, and the directory is as before.
        assert!(fs::read_dir(dir.path()).expect("it is there").next().is_none());
    }
}
