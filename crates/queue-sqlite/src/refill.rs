//! Refill: the writer reads the next ready jobs into a window, between commits, so that nothing half done slips in.

use std::sync::Arc;

use kvern_core::id::Sequence;
use kvern_core::limits::PRIORITY_DEFAULT;
use kvern_core::{Job, JobId, State};
use kvern_queue::Payload;
use rusqlite::{Connection, Result as SqlResult, Row, params};

use crate::checksum::is_damage;
use crate::rank::{Rank, in_index};
use crate::rows::{self, IsDamaged, Stored, input_columns, job_columns};
use crate::shared::Shared;
use crate::sweep::limit;
use crate::window::{Place, Ready, WINDOW_JOBS_MAX, WINDOW_JOBS_SURE};

/// Those in the index, with these columns.
macro_rules! placed {
    ($columns:expr) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM jobs WHERE function = ?1 AND rank = ?2 AND pos >= ?3 AND seq > ?4 AND ",
            in_index!(),
            " ORDER BY pos, seq LIMIT ?5"
        )
    };
}
/// Those in arrivals, from the one in which `?3` lies, with these columns.
macro_rules! fresh {
    ($columns:expr) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM arrivals CROSS JOIN jobs ON seq BETWEEN first AND last WHERE arrivals.function = ?1 \
             AND first >= ifnull((SELECT max(first) FROM arrivals WHERE function = ?1 AND first <= ?3), 0) \
             AND jobs.function = ?1 AND rank = ?2 AND seq > ?3 ORDER BY first, seq LIMIT ?4"
        )
    };
}
pub(crate) const PLACED: &str = placed!(concat!(job_columns!(), ", ", input_columns!()));
pub(crate) const FRESH: &str = fresh!(concat!(job_columns!(), ", ", input_columns!()));
const PLACED_ALONE: &str = placed!(job_columns!());
const FRESH_ALONE: &str = fresh!(job_columns!());
const INPUT: &str = concat!("SELECT ", input_columns!(), " FROM jobs WHERE seq = ?1");
/// Where [`input_columns`] begin in both.
const INPUT_AT: usize = 16;

/// How inputs are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inputs {
    /// In one read with the records.
    Along,
    /// Each by itself: where a page of one cannot be read, the others can.
    Apart,
}

/// A row of a waiting job.
struct Found {
    seq: Sequence,
    /// None if it is no record: it stays where it is, those behind it go on, and `kvern doctor` names it.
    job: Option<(Job, Result<Payload, IsDamaged>)>,
}

/// What a read brought.
#[derive(Debug, Default)]
struct Read {
    ready: Vec<Ready>,
    /// Rows, also those that give no ready job: where one read ends the next begins, and neither steps over any.
    seen: usize,
    last: Option<Place>,
    bytes: usize,
    damaged: Vec<JobId>,
}

/// Reads on in the window of one function, and gives the jobs whose input is damaged: they must fail, not run.
pub(crate) fn refill(connection: &Connection, shared: &Shared, function: usize) -> SqlResult<Vec<JobId>> {
    let (after, jobs_max, bytes_max) = {
        let memory = shared.memory();
        let window = &memory.functions[function].window;
        let jobs_max = WINDOW_JOBS_MAX.saturating_sub(window.len()).max(WINDOW_JOBS_SURE);
        (window.tail(), jobs_max, memory.window_room())
    };
    let most = (jobs_max, bytes_max);
    let (read, is_whole) = match Read::on(connection, shared, function, after, most, Inputs::Along) {
        Err(error) if is_damage(&error) => Read::on(connection, shared, function, after, most, Inputs::Apart)?,
        read => read?,
    };
    let Read { mut ready, last, mut damaged, .. } = read;
    let mut memory = shared.memory();
    ready.retain(|one| !memory.running.contains_key(&one.job.id) && memory.stuck(one.job.id).is_none());
    damaged.retain(|id| memory.stuck(*id).is_none());
    let count = ready.len();
    memory.with_window(function, |window| window.extend(ready, if is_whole { None } else { last }));
    memory.waiters.wake(function, count);
    Ok(damaged)
}

impl Read {
    /// Reads on behind a place, so many jobs and bytes at most. Whether that was all there is.
    fn on(
        connection: &Connection,
        shared: &Shared,
        function: usize,
        after: Option<Place>,
        most: (usize, usize),
        inputs: Inputs,
    ) -> SqlResult<(Self, bool)> {
        let mut read = Self::default();
        for rank in Rank::queued().filter(|rank| after.is_none_or(|after| after.rank <= *rank)) {
            let after = after.filter(|after| after.rank == rank);
            if !read.rank(connection, shared, (function, rank), after, most, inputs)? {
                return Ok((read, false));
            }
        }
        Ok((read, true))
    }

    /// Reads the jobs of one rank. False if it stopped before the end.
    fn rank(
        &mut self,
        connection: &Connection,
        shared: &Shared,
        (function, rank): (usize, Rank),
        after: Option<Place>,
        (jobs_max, bytes_max): (usize, usize),
        inputs: Inputs,
    ) -> SqlResult<bool> {
        let (placed, fresh) = match inputs {
            Inputs::Along => (PLACED, FRESH),
            Inputs::Apart => (PLACED_ALONE, FRESH_ALONE),
        };
        let pos = after.map_or(i64::MIN, |after| rows::stored_time(after.seq.at()));
        let seq = after.map_or(i64::MIN, |after| after.seq.get().cast_signed());
        // One more than wanted tells whether this was all.
        let most = limit(jobs_max - self.seen + 1);
        let id = function.cast_signed() as i64;
        let read = |row: &Row<'_>| Found::read(row, connection, shared, inputs);
        let mut placed = connection.prepare_cached(placed)?;
        let placed = placed.query_map(params![id, rank.get(), pos, seq, most], read)?;
        let mut fresh = connection.prepare_cached(fresh)?;
        let has_fresh = rank == Rank::of(State::Queued, PRIORITY_DEFAULT);
        let fresh =
            has_fresh.then(|| fresh.query_map(params![id, Rank::fresh().get(), seq, most], read)).transpose()?;
        for found in in_order(placed, fresh.into_iter().flatten()) {
            let is_full = self.seen >= jobs_max || (self.bytes >= bytes_max && self.ready.len() >= WINDOW_JOBS_SURE);
            if is_full {
                return Ok(false);
            }
            let Found { seq, job } = found?;
            self.seen += 1;
            self.last = Some(Place { rank, seq });
            match job {
                Some((job, Ok(input))) => self.push(Ready { job: Arc::new(job), input }),
                Some((job, Err(IsDamaged))) => self.damaged.push(job.id),
                None => {}
            }
        }
        Ok(true)
    }

    fn push(&mut self, ready: Ready) {
        self.bytes += ready.cost();
        self.ready.push(ready);
    }
}

// === impl Found ===

impl Found {
    fn read(row: &Row<'_>, connection: &Connection, shared: &Shared, inputs: Inputs) -> SqlResult<Self> {
        let seq = Sequence::from_bits(row.get::<_, i64>(0)?.cast_unsigned());
        let stored = Stored::read(row, |id| shared.name(id)).and_then(|stored| stored.with_past(connection));
        let input = || match inputs {
            Inputs::Along => rows::read_input(row, INPUT_AT, &shared.blobs),
            Inputs::Apart => input_apart(connection, shared, seq),
        };
        let read = stored.and_then(|stored| Ok((stored.job, input()?)));
        let job = match read {
            Err(error) if error.sqlite_error().is_none() => {
                tracing::error!(%error, "a waiting job cannot be read and stays where it is");
                None
            }
            read => Some(read?),
        };
        Ok(Self { seq, job })
    }
}

/// An input by itself; one that cannot be read is damaged.
fn input_apart(connection: &Connection, shared: &Shared, seq: Sequence) -> SqlResult<Result<Payload, IsDamaged>> {
    let mut statement = connection.prepare_cached(INPUT)?;
    let read = |row: &Row<'_>| rows::read_input(row, 0, &shared.blobs);
    match statement.query_row([seq.get().cast_signed()], read) {
        Err(error) if is_damage(&error) => Ok(Err(IsDamaged)),
        read => read,
    }
}

/// Two streams of jobs in the order of acceptance as one. An error comes as soon as it is met.
fn in_order(
    a: impl Iterator<Item = SqlResult<Found>>,
    b: impl Iterator<Item = SqlResult<Found>>,
) -> impl Iterator<Item = SqlResult<Found>> {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    let seq = |found: &SqlResult<Found>| found.as_ref().ok().map(|found| found.seq);
    std::iter::from_fn(move || match (a.peek(), b.peek()) {
        (Some(first), Some(second)) if seq(second) < seq(first) => b.next(),
        (Some(_), _) => a.next(),
        (None, _) => b.next(),
    })
}
