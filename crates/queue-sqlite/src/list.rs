//! Lists: streams of the index, one for each function and rank, merged from the latest to the oldest.

use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use kvern_core::id::Sequence;
use kvern_core::limits::PAGE_JOBS_MAX;
use kvern_core::{Job, JobId, State, UnixMs};
use kvern_queue::list::{Place, place};
use kvern_queue::{Cursor, Error, Filter, Page};
use rusqlite::{Connection, Result as SqlResult, Row, params};

use crate::rank::{Rank, in_index};
use crate::read::overlaid;
use crate::rows::{Stored, stored_time};
use crate::shared::Shared;

/// Records by their ids.
type Jobs = HashMap<JobId, Arc<Job>>;

/// Places read at once from one stream.
const STREAM_CHUNK: usize = 64;

/// Those in the index.
pub(crate) const OLDER: &str = concat!(
    "SELECT pos, seq FROM jobs WHERE function = ?1 AND rank = ?2 AND pos <= ?3 AND pos >= ?5 \
     AND (pos < ?3 OR seq < ?4) AND ",
    in_index!(),
    " ORDER BY pos DESC, seq DESC LIMIT ?6"
);
/// Those in arrivals.
pub(crate) const OLDER_FRESH: &str = "SELECT pos, seq FROM arrivals CROSS JOIN jobs ON seq BETWEEN first AND last \
     WHERE arrivals.function = ?1 AND first <= ?3 AND last >= ?4 AND jobs.function = ?1 AND rank = ?2 \
     AND seq <= ?3 AND seq >= ?4 ORDER BY first DESC, seq DESC LIMIT ?5";

/// Stored jobs of one function and rank, the latest first.
struct Stream {
    function: i64,
    rank: Rank,
    /// Everything from here on has been read.
    before: (i64, i64),
    ahead: VecDeque<(i64, i64)>,
    is_over: bool,
}

/// A page of the records that the filter admits.
pub(crate) fn page(
    connection: &Connection,
    shared: &Shared,
    filter: &Filter,
    before: Option<Place>,
    limit: usize,
) -> SqlResult<Page> {
    let limit = limit.clamp(1, PAGE_JOBS_MAX);
    // As in `read::get`: the overlay first, then the rows, all of one moment.
    let running = running(shared);
    let stuck = shared.memory().all_stuck();
    let snapshot = connection.unchecked_transaction()?;
    let mut jobs = stored_jobs(&snapshot, shared, filter, before, limit + 1, (&running, &stuck))?;
    // With queued jobs the running ones come along, for they are stored so; alone they are few and in memory.
    if wants(filter, State::Running) && !wants(filter, State::Queued) {
        jobs.extend(running_jobs(&snapshot, shared, filter, before, &running)?);
    }
    let is_on_page = |job: &&Arc<Job>| filter.admits(job) && before.is_none_or(|before| place(job) < before);
    jobs.extend(stuck.values().filter(is_on_page).map(|job| Job::clone(job)));
    jobs.sort_by_key(|job| std::cmp::Reverse(place(job)));
    let is_whole = jobs.len() <= limit;
    jobs.truncate(limit);
    let next = jobs.last().filter(|_| !is_whole).map(|last| Cursor::after(filter, place(last)));
    Ok(Page { jobs, next })
}

/// Where the list goes on.
pub(crate) fn start(filter: &Filter, cursor: Option<&Cursor>) -> Result<Option<Place>, Error> {
    cursor.map(|cursor| cursor.last(filter)).transpose()
}

fn running(shared: &Shared) -> Jobs {
    let memory = shared.memory();
    memory.running.iter().map(|(id, running)| (*id, Arc::clone(&running.job))).collect()
}

fn wants(filter: &Filter, state: State) -> bool {
    filter.states.is_empty() || filter.states.contains(&state)
}

fn stored_jobs(
    connection: &Connection,
    shared: &Shared,
    filter: &Filter,
    before: Option<Place>,
    most: usize,
    (running, stuck): (&Jobs, &Jobs),
) -> SqlResult<Vec<Job>> {
    let mut streams = streams(shared, filter, before);
    let since = filter.since.map_or(i64::MIN, stored_time);
    let mut heads = BinaryHeap::new();
    for (at, stream) in streams.iter_mut().enumerate() {
        heads.extend(stream.next(connection, since, most)?.map(|head| (head, at)));
    }
    let mut jobs = Vec::new();
    while let Some(((_, key), at)) = heads.pop() {
        heads.extend(streams[at].next(connection, since, most)?.map(|head| (head, at)));
        let Some(stored) = Stored::find_by_key(connection, key, |function| shared.name(function))? else { continue };
        if stuck.contains_key(&stored.job.id) {
            continue;
        }
        let job = overlay(stored.job, running);
        if filter.admits(&job) && before.is_none_or(|before| place(&job) < before) {
            jobs.push(job);
        }
        if jobs.len() >= most {
            break;
        }
    }
    Ok(jobs)
}

fn running_jobs(
    connection: &Connection,
    shared: &Shared,
    filter: &Filter,
    before: Option<Place>,
    running: &Jobs,
) -> SqlResult<Vec<Job>> {
    let mut jobs = Vec::new();
    for job in running.values() {
        if !filter.admits(job) || before.is_some_and(|before| place(job) >= before) {
            continue;
        }
        // It may have ended between the two looks; then the stored streams have it, if the filter wants it.
        let stored = Stored::find(connection, job.id, |function| shared.name(function))?;
        let now = stored.map(|stored| overlay(stored.job, running));
        jobs.extend(now.filter(|job| job.state == State::Running));
    }
    Ok(jobs)
}

fn overlay(stored: Job, running: &Jobs) -> Job {
    let running = running.get(&stored.id).map(Arc::clone);
    overlaid(stored, running)
}

fn streams(shared: &Shared, filter: &Filter, before: Option<Place>) -> Vec<Stream> {
    // A place holds an id, but within one millisecond and sequence there is one job: the sequence is enough here.
    let before = before.map_or((i64::MAX, i64::MAX), |(at, id)| (stored_time(at), crate::rows::key(id)));
    let memory = shared.memory();
    let functions = memory.functions.iter().enumerate();
    let functions =
        functions.filter(|(_, function)| filter.function.as_ref().is_none_or(|name| *name == function.name));
    let mut streams = Vec::new();
    for (index, _) in functions {
        let states = State::ALL.into_iter().filter(|state| *state != State::Running && wants(filter, *state));
        for rank in states.flat_map(Rank::of_state) {
            let function = index.cast_signed() as i64;
            streams.push(Stream { function, rank, before, ahead: VecDeque::new(), is_over: false });
        }
    }
    streams
}

// === impl Stream ===

impl Stream {
    fn next(&mut self, connection: &Connection, since: i64, most: usize) -> SqlResult<Option<(i64, i64)>> {
        if self.ahead.is_empty() && !self.is_over {
            self.read(connection, since, most.min(STREAM_CHUNK))?;
        }
        Ok(self.ahead.pop_front())
    }

    fn read(&mut self, connection: &Connection, since: i64, most: usize) -> SqlResult<()> {
        let (pos, seq) = self.before;
        let (function, rank, limit) = (self.function, self.rank.get(), most.cast_signed() as i64);
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
        self.ahead = if self.rank == Rank::fresh() {
            // Their place is (the time in the key, the key).
            let last = (seq - 1).clamp(first_key(pos) - 1, first_key(pos.saturating_add(1)) - 1);
            let mut statement = connection.prepare_cached(OLDER_FRESH)?;
            statement.query_map(params![function, rank, last, first_key(since), limit], read)?.collect::<SqlResult<_>>()
        } else {
            let mut statement = connection.prepare_cached(OLDER)?;
            statement.query_map(params![function, rank, pos, seq, since, limit], read)?.collect::<SqlResult<_>>()
        }?;
        self.is_over = self.ahead.len() < most;
        self.before = self.ahead.back().copied().unwrap_or(self.before);
        Ok(())
    }
}

/// The least key of a job accepted at this time.
fn first_key(at: i64) -> i64 {
    Sequence::first_of(UnixMs(at.max(0).cast_unsigned())).get().cast_signed()
}
