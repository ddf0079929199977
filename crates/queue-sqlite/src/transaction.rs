//! The open transaction: prepared statements, counts to be written with it, and the marks that its operations share.

use std::collections::HashSet;
use std::time::Duration;

use kvern_core::id::Sequence;
use kvern_core::limits::RECORD_BYTES;
use kvern_core::{Clockwork, FunctionName, Job, JobId, State, UnixMs};
use kvern_queue::Error;
use rusqlite::{Connection, Result as SqlResult, Statement, params};

use crate::arrivals::{self, Moves};
use crate::keys::{self, Keys};
use crate::log;
use crate::rank::Rank;
use crate::rows::{self, Body, Stored, stored_time};
use crate::shared::Shared;

const INSERT_JOB: &str = "INSERT INTO jobs (seq, random, function, rank, pos, ready_at, attempts, failures, \
     strikes, interruptions, past, priority, expires_at, content_type, tags, key, key_body, input_bytes, \
     input_crc32c, input) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, 0, 0, 0, 0, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
const MOVE_JOB: &str = "UPDATE jobs SET rank = ?2, pos = ?3, attempts = ?4, failures = ?5, strikes = ?6, \
     interruptions = ?7, past = ?8, ready_at = ?9 WHERE seq = ?1";
const WRITE_PAST: &str = "INSERT OR REPLACE INTO results \
     (seq, started_at, attempts, error, content_type, bytes, crc32c, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
const ADD_FUNCTION: &str = "INSERT INTO functions VALUES (?1, ?2, 0, 0, 0, 0, 0, 0, 0)";
const ADD_COUNTS: &str = "UPDATE functions SET scheduled = scheduled + ?2, queued = queued + ?3, \
     succeeded = succeeded + ?4, failed = failed + ?5, cancelled = cancelled + ?6, \
     finished_bytes = finished_bytes + ?7 WHERE id = ?1";

/// States with a stored count, in the order of [`Counts`].
const COUNTED: [State; 5] = [State::Scheduled, State::Queued, State::Succeeded, State::Failed, State::Cancelled];

/// The statements of the hot path, prepared once. The others go through rusqlite's cache.
#[derive(Debug)]
pub(crate) struct Prepared<'c> {
    pub(crate) insert_job: Statement<'c>,
    move_job: Statement<'c>,
    write_past: Statement<'c>,
}

/// What outlives a transaction: only the writer touches it.
#[derive(Debug)]
pub(crate) struct Desk<'c> {
    pub(crate) connection: &'c Connection,
    pub(crate) prepared: Prepared<'c>,
    pub(crate) clockwork: Clockwork,
    /// The greatest sequence given out.
    pub(crate) last: Sequence,
    pub(crate) random: Random,
    /// Functions that the database knows: those with a smaller id.
    pub(crate) functions_stored: usize,
    pub(crate) keys: Keys,
    pub(crate) moves: Moves,
}

/// How the counts of one function change.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    change: [i64; COUNTED.len()],
    finished_bytes: i64,
    is_touched: bool,
    /// The keys of the first and the last fresh job.
    arrived: Option<(i64, i64)>,
    moves: usize,
    /// Jobs that waited when the transaction first asked.
    waiting: Option<u64>,
}

/// An open transaction.
#[derive(Debug)]
pub(crate) struct Transaction<'a, 'c> {
    pub(crate) desk: &'a mut Desk<'c>,
    pub(crate) shared: &'a Shared,
    pub(crate) now: UnixMs,
    pub(crate) monotonic: Duration,
    /// Jobs of the overlay whose attempt this transaction has ended: for them the database is right.
    pub(crate) ended: HashSet<JobId>,
    /// Jobs of the overlay that this transaction marks to be cancelled.
    pub(crate) cancelled: HashSet<JobId>,
    /// Why no new job is stored, if so.
    pub(crate) no_room: Option<Error>,
    /// What it changes of the keys.
    pub(crate) keys: keys::Change,
    counts: Vec<Counts>,
}

/// The outside of a job, for [`Transaction::move_job`].
#[derive(Debug, Default)]
pub(crate) struct ResultRow<'a> {
    pub(crate) content_type: Option<&'a str>,
    pub(crate) bytes: i64,
    pub(crate) crc32c: u32,
    pub(crate) body: Option<Body<'a>>,
}

/// The random bits of ids: a keyed hash of a counter, with a key from the operating system.
#[derive(Debug)]
pub(crate) struct Random {
    key: std::hash::RandomState,
    count: u64,
}

// === impl Prepared ===

impl<'c> Prepared<'c> {
    pub(crate) fn new(connection: &'c Connection) -> SqlResult<Self> {
        Ok(Self {
            insert_job: connection.prepare(INSERT_JOB)?,
            move_job: connection.prepare(MOVE_JOB)?,
            write_past: connection.prepare(WRITE_PAST)?,
        })
    }
}

// === impl Desk ===

impl Desk<'_> {
    /// The next id.
    pub(crate) fn next_id(&mut self, now: UnixMs) -> JobId {
        self.last = self.clockwork.tick(now);
        JobId::new(self.last, self.random.draw())
    }
}

// === impl Transaction ===

impl<'a, 'c> Transaction<'a, 'c> {
    /// Opens one.
    pub(crate) fn begin(desk: &'a mut Desk<'c>, shared: &'a Shared) -> SqlResult<Self> {
        desk.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let (now, monotonic) = (shared.clock.now(), shared.clock.monotonic());
        Ok(Self {
            desk,
            shared,
            now,
            monotonic,
            ended: HashSet::new(),
            cancelled: HashSet::new(),
            no_room: None,
            keys: keys::Change::default(),
            counts: Vec::new(),
        })
    }

    /// Writes what the operations add up to, counts and arrivals; the commit itself is the writer's.
    pub(crate) fn write_sums(&mut self) -> SqlResult<Vec<Counts>> {
        let all = std::mem::take(&mut self.counts);
        for (index, counts) in all.iter().enumerate().filter(|(_, counts)| counts.is_touched) {
            let [scheduled, queued, succeeded, failed, cancelled] = counts.change;
            let (id, bytes) = (index.cast_signed() as i64, counts.finished_bytes);
            self.run(ADD_COUNTS, params![id, scheduled, queued, succeeded, failed, cancelled, bytes])?;
            if let Some(span) = counts.arrived {
                arrivals::insert(self, index, span)?;
            }
            arrivals::forget_passed(self, index, counts.moves)?;
        }
        Ok(all)
    }

    /// The id of a function, which gets a row if it has none.
    pub(crate) fn function(&mut self, name: &FunctionName) -> SqlResult<usize> {
        let index = self.shared.memory().index(name);
        while self.desk.functions_stored <= index {
            let id = self.desk.functions_stored;
            let name = self.shared.memory().functions[id].name.clone();
            let mut statement = self.desk.connection.prepare_cached(ADD_FUNCTION)?;
            statement.execute(params![id.cast_signed() as i64, name.as_str()])?;
            self.desk.functions_stored += 1;
        }
        Ok(index)
    }

    /// Jobs of a function that wait, those of this transaction included.
    pub(crate) fn waiting(&mut self, function: usize) -> u64 {
        let shared = self.shared;
        let counts = self.counts(function);
        let before = *counts.waiting.get_or_insert_with(|| shared.memory().waiting(function));
        // Scheduled and queued come first.
        before.saturating_add_signed(counts.change[0] + counts.change[1])
    }

    /// What the finished jobs of a function take, those of this transaction included.
    pub(crate) fn finished_bytes(&mut self, function: usize) -> u64 {
        let before = self.shared.memory().functions[function].stored.finished_bytes;
        before.saturating_add_signed(self.counts(function).finished_bytes)
    }

    /// A job came into being.
    pub(crate) fn count_new(&mut self, function: usize, state: State) {
        self.count(function, state, 1);
    }

    /// A job came that is not in the index.
    pub(crate) fn count_arrival(&mut self, function: usize, key: i64) {
        let arrived = &mut self.counts(function).arrived;
        *arrived = Some((arrived.map_or(key, |(first, _)| first), key));
    }

    /// A job was forgotten.
    pub(crate) fn count_gone(&mut self, function: usize, state: State) {
        self.count(function, state, -1);
    }

    /// Finished jobs take this much more.
    pub(crate) fn count_finished_bytes(&mut self, function: usize, bytes: i64) {
        self.counts(function).finished_bytes += bytes;
    }

    fn count(&mut self, function: usize, state: State, by: i64) {
        let counts = self.counts(function);
        counts.change[counted(state)] += by;
        counts.is_touched = true;
    }

    fn counts(&mut self, function: usize) -> &mut Counts {
        if self.counts.len() <= function {
            self.counts.resize(function + 1, Counts::default());
        }
        &mut self.counts[function]
    }

    /// Writes the record of a job that was in state `from`; `result` goes with a success.
    pub(crate) fn move_job(
        &mut self,
        function: usize,
        from: State,
        job: &Job,
        result: &ResultRow<'_>,
    ) -> SqlResult<()> {
        let key = rows::key(job.id);
        let has_past = job.started_at.is_some() || job.error.is_some() || !job.attempts.is_empty();
        let tally = job.tally;
        self.desk.prepared.move_job.execute(params![
            key,
            Rank::of(job.state, job.priority).get(),
            rows::position(job),
            tally.attempts,
            tally.failures,
            tally.strikes,
            tally.interruptions,
            has_past,
            stored_time(job.ready_at)
        ])?;
        self.count(function, from, -1);
        self.count(function, job.state, 1);
        self.counts(function).moves += 1;
        if job.state.is_final() != from.is_final() {
            let result = job.result.as_ref().map_or(0, |result| result.bytes);
            let bytes = finished_bytes(job.input_bytes, result, log::end(self, key)?);
            self.count_finished_bytes(function, if job.state.is_final() { bytes } else { -bytes });
        }
        if has_past {
            self.write_past(key, job, result)?;
        }
        if let (true, Some(at)) = (job.state.is_final(), job.expires_at) {
            self.run("DELETE FROM expiries WHERE at = ?1 AND seq = ?2", params![stored_time(at), key])?;
        }
        Ok(())
    }

    fn write_past(&mut self, key: i64, job: &Job, result: &ResultRow<'_>) -> SqlResult<()> {
        let bytes = result.content_type.map(|_| result.bytes);
        let crc32c = result.content_type.map(|_| result.crc32c);
        self.desk.prepared.write_past.execute(params![
            key,
            job.started_at.map(stored_time),
            to_json(&job.attempts)?,
            job.error.as_ref().map(to_json).transpose()?,
            result.content_type,
            bytes,
            crc32c,
            result.body,
        ])?;
        Ok(())
    }

    /// The job with this id as this transaction has it.
    pub(crate) fn find(&self, id: JobId) -> SqlResult<Result<Stored, Error>> {
        let found = Stored::find(self.desk.connection, id, |function| self.shared.name(function))?;
        Ok(found.ok_or(Error::UnknownJob(id)))
    }

    /// Runs a statement from the cache.
    pub(crate) fn run(&self, sql: &str, params: impl rusqlite::Params) -> SqlResult<usize> {
        self.desk.connection.prepare_cached(sql)?.execute(params)
    }

    /// Names a file that a row has now.
    pub(crate) fn own_file(&self, body: Body<'_>, key: i64) -> SqlResult<()> {
        if let Body::File(name) = body {
            self.run("INSERT INTO blobs VALUES (?1, ?2)", params![name, key])?;
        }
        Ok(())
    }
}

// === impl Counts ===

impl Counts {
    /// Adds the change to counts in memory.
    pub(crate) fn add_to(&self, stats: &mut kvern_queue::FunctionStats) {
        for (state, change) in COUNTED.into_iter().zip(self.change) {
            let count = stats.of_mut(state);
            *count = count.saturating_add_signed(change);
        }
        stats.finished_bytes = stats.finished_bytes.saturating_add_signed(self.finished_bytes);
    }
}

// === impl Random ===

impl Random {
    pub(crate) fn new() -> Self {
        Self { key: std::hash::RandomState::new(), count: 0 }
    }

    fn draw(&mut self) -> u64 {
        use std::hash::BuildHasher;
        self.count += 1;
        self.key.hash_one(self.count)
    }
}

/// What a finished job takes, as [`kvern_queue::FunctionStats::finished_bytes`] counts it.
pub(crate) fn finished_bytes(input: u64, result: u64, log: u64) -> i64 {
    (RECORD_BYTES + input + result + log).cast_signed()
}

fn counted(state: State) -> usize {
    match state {
        State::Scheduled => 0,
        State::Queued | State::Running => 1,
        State::Succeeded => 2,
        State::Failed => 3,
        State::Cancelled => 4,
    }
}

pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> SqlResult<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}
