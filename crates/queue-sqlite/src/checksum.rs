//! Checksums: whether the stored bytes of a job are those that came. For whoever looks without wanting the bytes: the
//! scrub of a running queue, and checks of a data directory or a backup.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use kvern_core::id::Sequence;
use kvern_core::{FunctionName, JobId, State};
use kvern_queue::is_scarcity;
use rusqlite::types::{FromSqlError, ValueRef};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Result as SqlResult, Row};

use crate::rows::Stored;

/// The pieces in which a file is read: small enough to stop soon, and to keep to a pace.
pub(crate) const PIECE_BYTES: usize = 256 << 10;

const KEYS_UP: &str = "SELECT seq FROM jobs WHERE seq > ?1 ORDER BY seq LIMIT ?2";
const KEYS_DOWN: &str = "SELECT seq FROM jobs WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2";
const INPUT: &str = "SELECT input_bytes, input_crc32c, input FROM jobs WHERE seq = ?1";
const RESULT: &str = "SELECT bytes, crc32c, body FROM results WHERE seq = ?1 AND body IS NOT NULL";
const IS_OWNED: &str = "SELECT 1 FROM blobs WHERE name = ?1 AND seq = ?2";

/// Which bytes of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Its record: state, counts, times, attempts.
    Record,
    /// Its input.
    Input,
    /// Its result.
    Result,
}

/// From which end jobs are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// The oldest first.
    Up,
    /// The newest first.
    Down,
}

/// A job that was looked at.
#[derive(Debug)]
pub(crate) struct Looked {
    /// None if not even that can be read.
    pub(crate) id: Option<JobId>,
    pub(crate) function: Option<FunctionName>,
    pub(crate) state: Option<State>,
    /// What is not as it came, and how that shows.
    pub(crate) damaged: Vec<(Part, String)>,
}

/// Bytes as a row has them.
enum Held {
    /// So many in the row itself; if they are not those that came, how that shows.
    Inline(u64, Option<String>),
    File {
        name: String,
        bytes: u64,
        crc32c: u32,
    },
}

/// Reads and compares. `pace` hears how many bytes were read and says whether to go on.
pub(crate) struct Checker<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) blobs: &'a Path,
    pub(crate) name: &'a dyn Fn(i64) -> Option<FunctionName>,
    pub(crate) pace: &'a mut dyn FnMut(u64) -> bool,
}

/// The keys of the next jobs beyond this one.
pub(crate) fn keys(connection: &Connection, order: Order, beyond: i64, most: usize) -> SqlResult<Vec<i64>> {
    let sql = match order {
        Order::Up => KEYS_UP,
        Order::Down => KEYS_DOWN,
    };
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([beyond, crate::sweep::limit(most)], |row| row.get(0))?;
    rows.collect()
}

/// Whether an error says that what is stored is not what was written, and not that it cannot be read now.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => {
            matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        }
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::Utf8Error(..) => true,
        _ => false,
    }
}

/// Whether a file holds what was stored; if not, how that shows.
pub(crate) fn check_file(
    path: &Path,
    bytes: u64,
    crc32c: u32,
    pace: &mut dyn FnMut(u64) -> bool,
) -> io::Result<Option<String>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some("its file is gone".to_owned())),
        opened => opened?,
    };
    let found = file.metadata()?.len();
    if found != bytes {
        return Ok(Some(format!("its file has {found} bytes and not {bytes}")));
    }
    let (mut piece, mut read) = (vec![0; PIECE_BYTES], 0);
    loop {
        let count = file.read(&mut piece)?;
        if count == 0 {
            let is_whole = read == crc32c;
            return Ok((!is_whole).then(|| "its file does not match its checksum".to_owned()));
        }
        read = crc32c::crc32c_append(read, &piece[..count]);
        if !pace(count as u64) {
            // Nothing was found in what was read.
            return Ok(None);
        }
    }
}

// === impl Order ===

impl Order {
    /// Beyond this key are all jobs.
    pub(crate) fn begin(self) -> i64 {
        match self {
            Self::Up => i64::MIN,
            Self::Down => i64::MAX,
        }
    }
}

// === impl Checker ===

impl Checker<'_> {
    /// Looks at everything of one job that has a checksum. None if there is no such job (any more).
    pub(crate) fn look(&mut self, key: i64) -> SqlResult<Option<Looked>> {
        let stored = match Stored::find_by_key(self.connection, key, self.name) {
            Ok(None) => return Ok(None),
            Err(error) if is_damage(&error) => return Ok(Some(self.unreadable(key, &error))),
            stored => stored?,
        };
        let mut looked = Looked { id: None, function: None, state: None, damaged: Vec::new() };
        if let Some(Stored { job, .. }) = stored {
            looked.id = Some(job.id);
            looked.function = Some(job.function);
            looked.state = Some(job.state);
        }
        for (part, sql) in [(Part::Input, INPUT), (Part::Result, RESULT)] {
            let what = match self.part(key, sql) {
                Err(error) if is_damage(&error) => Some(format!("it cannot be read: {error}")),
                what => what?,
            };
            looked.damaged.extend(what.map(|what| (part, what)));
        }
        // Beside a running queue it may have been forgotten since the first look, and its files with it.
        if !looked.damaged.is_empty() && self.is_gone(key) {
            return Ok(None);
        }
        Ok(Some(looked))
    }

    fn is_gone(&self, key: i64) -> bool {
        // One that cannot be looked at is not gone.
        keys(self.connection, Order::Up, key - 1, 1).is_ok_and(|keys| keys != [key])
    }

    fn unreadable(&self, key: i64, error: &rusqlite::Error) -> Looked {
        let random = "SELECT random FROM jobs WHERE seq = ?1";
        let random = self.connection.query_row(random, [key], |row| row.get::<_, i64>(0));
        let id = random.ok().map(|random| JobId::new(Sequence::from_bits(key.cast_unsigned()), random.cast_unsigned()));
        let damaged = vec![(Part::Record, format!("it cannot be read: {error}"))];
        Looked { id, function: None, state: None, damaged }
    }

    /// How it shows that these bytes are not those that came, if they are not.
    fn part(&mut self, key: i64, sql: &str) -> SqlResult<Option<String>> {
        let held = self.connection.prepare_cached(sql)?.query_row([key], read).optional()?;
        match held {
            None => Ok(None),
            Some(Held::Inline(bytes, what)) => {
                (self.pace)(bytes);
                Ok(what)
            }
            Some(Held::File { name, bytes, crc32c }) => {
                let found = check_file(&self.blobs.join(&name), bytes, crc32c, self.pace);
                if let Err(error) = &found
                    && (is_scarcity(error) || error.kind() == std::io::ErrorKind::PermissionDenied)
                {
                    // It says nothing of the bytes: who may open it, and later, sees.
                    let why = format!("blobs/{name} cannot be opened: {error}");
                    return Err(rusqlite::Error::ToSqlConversionFailure(why.into()));
                }
                if let Some(what) = found.unwrap_or_else(|error| Some(format!("its file cannot be read: {error}"))) {
                    return Ok(Some(format!("{what} (blobs/{name})")));
                }
                let is_owned = self.connection.prepare_cached(IS_OWNED)?.exists((&name, key))?;
                Ok((!is_owned)
                    .then(|| format!("its file, blobs/{name}, is not listed: the next start would remove it")))
            }
        }
    }
}

fn read(row: &Row<'_>) -> SqlResult<Held> {
    let bytes = row.get::<_, i64>(0)?.cast_unsigned();
    let crc32c: u32 = row.get(1)?;
    match row.get_ref(2)? {
        ValueRef::Blob(stored) => {
            let found = stored.len() as u64;
            let what = if found != bytes {
                Some(format!("it has {found} bytes and not {bytes}"))
            } else {
                (crc32c::crc32c(stored) != crc32c).then(|| "it does not match its checksum".to_owned())
            };
            Ok(Held::Inline(found, what))
        }
        ValueRef::Text(name) => {
            let name = std::str::from_utf8(name).map_err(FromSqlError::other)?;
            Ok(Held::File { name: name.to_owned(), bytes, crc32c })
        }
        _ => Ok(Held::Inline(0, Some("it is neither bytes nor the name of a file".to_owned()))),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;
    use crate::schema;

    const ADD: &str = "INSERT INTO jobs (seq, random, function, rank, pos, ready_at, attempts, failures, strikes, interruptions, \
         past, priority, input_bytes, input_crc32c, input) VALUES (7, 7, 0, 10, 7, 7, 0, 0, 0, 0, 0, 4, 5, ?1, 'b-7')";

    /// The limit holds for a whole process, so it has one of its own.
    #[test]
    fn a_want_of_open_files_says_nothing_of_the_bytes() {
        let mut alone = Command::new(std::env::current_exe().expect("a test has a path"));
        let alone = alone.args(["--exact", "checksum::tests::where_no_file_can_be_opened", "--ignored"]);
        let output = alone.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }

    #[test]
    #[ignore = "is run alone by the test above"]
    fn where_no_file_can_be_opened() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let connection = schema::open_writer(&dir.path().join("queue.db")).expect("a database");
        connection.execute(ADD, [crc32c::crc32c(b"whole")]).expect("a job");
        connection.execute("INSERT INTO blobs VALUES ('b-7', 7)", []).expect("its file");
        std::fs::write(dir.path().join("b-7"), b"whole").expect("written");
        let name = |_| "f".parse().ok();
        let mut pace = |_| true;
        let mut checker = Checker { connection: &connection, blobs: dir.path(), name: &name, pace: &mut pace };

        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(0), maximum: before.maximum }).expect("it may be lower");
        let looked = checker.look(7);
        setrlimit(Resource::Nofile, before).expect("it may be as before");
        assert!(matches!(&looked, Err(error) if error.to_string().contains("cannot be opened")), "{looked:?}");
        let looked = checker.look(7).expect("there are files again").expect("the job is there");
        assert!(looked.damaged.is_empty(), "{looked:?}");
        std::fs::write(dir.path().join("b-7"), b"wrong").expect("written");
        let looked = checker.look(7).expect("it can be read").expect("the job is there");
        assert!(looked.damaged.len() == 1, "{looked:?}");
    }
}
