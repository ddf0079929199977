//! Between rows and records: how a job is read from the database, and what is written of it.

use bytes::Bytes;
use kvern_core::id::Sequence;
use kvern_core::{FunctionName, Job, JobId, ResultInfo, State, Tally, UnixMs};
use kvern_queue::Payload;
use rusqlite::types::{FromSqlError, ToSqlOutput, Type, ValueRef};
use rusqlite::{Connection, OptionalExtension, Result as SqlResult, Row, ToSql};

use crate::blob::BlobDir;
use crate::rank::Rank;

/// The columns that [`Stored::read`] wants, in its order.
macro_rules! job_columns {
    () => {
        "seq, random, jobs.function, rank, pos, attempts, failures, strikes, interruptions, past, priority, expires_at, \
         content_type, tags, input_bytes, ready_at"
    };
}
/// The columns that [`read_input`] wants after those.
macro_rules! input_columns {
    () => {
        "input_bytes, input_crc32c, input"
    };
}
pub(crate) use {input_columns, job_columns};

const BY_SEQ: &str = concat!("SELECT ", job_columns!(), " FROM jobs WHERE seq = ?1");
const PAST: &str = "SELECT started_at, attempts, error, content_type, bytes FROM results WHERE seq = ?1";

/// A job as it is stored: one that runs is queued here.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) job: Job,
    /// The id of its function.
    pub(crate) function: i64,
    /// Whether `results` has a row for it.
    has_past: bool,
}

/// Bytes as a row keeps them: themselves, or the name of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Body<'a> {
    Inline(&'a [u8]),
    File(&'a str),
}

/// Stored bytes that do not match their checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IsDamaged;

// === impl Stored ===

impl Stored {
    /// Reads [`job_columns`]; the history is added by [`Stored::with_past`].
    pub(crate) fn read(row: &Row<'_>, name: impl FnOnce(i64) -> Option<FunctionName>) -> SqlResult<Self> {
        let sequence = Sequence::from_bits(row.get::<_, i64>(0)?.cast_unsigned());
        let id = JobId::new(sequence, row.get::<_, i64>(1)?.cast_unsigned());
        let function = row.get(2)?;
        let state = Rank::from_stored(row.get(3)?).and_then(Rank::state).ok_or_else(|| bad(3, "no such rank"))?;
        let pos = UnixMs(row.get::<_, i64>(4)?.cast_unsigned());
        let tags = match row.get_ref(13)?.as_str_or_null()? {
            Some(json) => serde_json::from_str(json).map_err(|error| bad(13, &error.to_string()))?,
            None => Vec::new(),
        };
        let job = Job {
            id,
            function: name(function).ok_or_else(|| bad(2, "no such function"))?,
            state,
            created_at: id.accepted_at(),
            due_at: (state == State::Scheduled).then_some(pos),
            ready_at: UnixMs(row.get::<_, i64>(15)?.cast_unsigned()),
            expires_at: row.get::<_, Option<i64>>(11)?.map(|at| UnixMs(at.cast_unsigned())),
            priority: row.get(10)?,
            tags,
            content_type: row.get(12)?,
            input_bytes: row.get::<_, i64>(14)?.cast_unsigned(),
            tally: Tally {
                attempts: row.get(5)?,
                failures: row.get(6)?,
                strikes: row.get(7)?,
                interruptions: row.get(8)?,
            },
            started_at: None,
            finished_at: state.is_final().then_some(pos),
            result: None,
            error: None,
            attempts: Vec::new(),
            cancel_requested: false,
        };
        Ok(Self { job, function, has_past: row.get(9)? })
    }

    /// Adds what `results` knows, if there is anything.
    pub(crate) fn with_past(mut self, connection: &Connection) -> SqlResult<Self> {
        if self.has_past {
            let mut statement = connection.prepare_cached(PAST)?;
            statement.query_row([key(self.job.id)], |row| read_past(row, &mut self.job)).optional()?;
        }
        Ok(self)
    }

    /// The job with this id, whole, if it is stored.
    pub(crate) fn find(
        connection: &Connection,
        id: JobId,
        name: impl FnOnce(i64) -> Option<FunctionName>,
    ) -> SqlResult<Option<Self>> {
        let found = Self::find_by_key(connection, key(id), name)?;
        Ok(found.filter(|stored| stored.job.id == id))
    }

    /// The job with this key, whole, if it is stored.
    pub(crate) fn find_by_key(
        connection: &Connection,
        key: i64,
        name: impl FnOnce(i64) -> Option<FunctionName>,
    ) -> SqlResult<Option<Self>> {
        let mut statement = connection.prepare_cached(BY_SEQ)?;
        let found = statement.query_row([key], |row| Self::read(row, name)).optional()?;
        found.map(|stored| stored.with_past(connection)).transpose()
    }
}

fn read_past(row: &Row<'_>, job: &mut Job) -> SqlResult<()> {
    job.started_at = row.get::<_, Option<i64>>(0)?.map(|at| UnixMs(at.cast_unsigned()));
    job.attempts = from_json(1, row.get_ref(1)?.as_str()?)?;
    job.error = row.get_ref(2)?.as_str_or_null()?.map(|json| from_json(2, json)).transpose()?;
    if let Some(content_type) = row.get::<_, Option<String>>(3)? {
        job.result = Some(ResultInfo { content_type, bytes: row.get::<_, i64>(4)?.cast_unsigned() });
    }
    Ok(())
}

/// Reads size, checksum and bytes from column `at` on, and verifies what is inline.
pub(crate) fn read_input(row: &Row<'_>, at: usize, blobs: &BlobDir) -> SqlResult<Result<Payload, IsDamaged>> {
    let bytes = row.get::<_, i64>(at)?.cast_unsigned();
    let crc32c: u32 = row.get(at + 1)?;
    Ok(match row.get_ref(at + 2)? {
        ValueRef::Blob(stored) if stored.len() as u64 == bytes && crc32c::crc32c(stored) == crc32c => {
            Ok(Payload::Inline(Bytes::copy_from_slice(stored)))
        }
        ValueRef::Text(name) => match std::str::from_utf8(name) {
            Ok(name) => Ok(Payload::Blob(blobs.blob(name, bytes, crc32c))),
            Err(_) => Err(IsDamaged),
        },
        _ => Err(IsDamaged),
    })
}

// === impl Body ===

impl ToSql for Body<'_> {
    fn to_sql(&self) -> SqlResult<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Inline(bytes) => ValueRef::Blob(bytes),
            Self::File(name) => ValueRef::Text(name.as_bytes()),
        }))
    }
}

/// The key of a job's row.
pub(crate) fn key(id: JobId) -> i64 {
    // Below 2^63, so the sign is never touched.
    id.sequence().get().cast_signed()
}

/// A time as stored: what lies beyond SQLite's integers (in 292 million years) is brought back to their end.
pub(crate) fn stored_time(at: UnixMs) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

/// When a job entered the state in which it is stored.
pub(crate) fn position(job: &Job) -> i64 {
    stored_time(kvern_queue::list::place(job).0)
}

fn from_json<T: serde::de::DeserializeOwned>(column: usize, json: &str) -> SqlResult<T> {
    serde_json::from_str(json).map_err(|error| bad(column, &error.to_string()))
}

fn bad(column: usize, why: &str) -> rusqlite::Error {
    let why = FromSqlError::Other(why.to_owned().into());
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, why.into())
}
