//! Refill: the writer reads the next ready jobs into a window, between commits, so that nothing half done slips in.

use std::sync::Arc;

use kvern_core::JobId;
use rusqlite::{Connection, Result as SqlResult, params};

use crate::rank::Rank;
use crate::rows::{self, IsDamaged, Stored, input_columns, job_columns};
use crate::shared::Shared;
use crate::sweep::limit;
use crate::window::{Place, Ready, WINDOW_JOBS_MAX, WINDOW_JOBS_SURE};

const NEXT_READY: &str = concat!(
    "SELECT ",
    job_columns!(),
    ", ",
    input_columns!(),
    " FROM jobs WHERE function = ?1 AND rank = ?2 AND pos >= ?3 AND seq > ?4 ORDER BY pos, seq LIMIT ?5"
);
/// Where [`input_columns`] begin in [`NEXT_READY`].
const INPUT_AT: usize = 16;

/// What a read brought.
#[derive(Debug, Default)]
struct Read {
    ready: Vec<Ready>,
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
    let mut read = Read::default();
    let mut is_whole = true;
    for rank in Rank::queued().filter(|rank| after.is_none_or(|after| after.rank <= *rank)) {
        let after = after.filter(|after| after.rank == rank);
        if !read.rank(connection, shared, (function, rank), after, jobs_max, bytes_max)? {
            is_whole = false;
            break;
        }
    }
    let Read { mut ready, last, damaged, .. } = read;
    let mut memory = shared.memory();
    ready.retain(|one| !memory.running.contains_key(&one.job.id));
    let count = ready.len();
    memory.with_window(function, |window| window.extend(ready, if is_whole { None } else { last }));
    memory.waiters.wake(function, count);
    Ok(damaged)
}

impl Read {
    /// Reads the jobs of one rank. False if it stopped before the end.
    fn rank(
        &mut self,
        connection: &Connection,
        shared: &Shared,
        (function, rank): (usize, Rank),
        after: Option<Place>,
        jobs_max: usize,
        bytes_max: usize,
    ) -> SqlResult<bool> {
        let mut statement = connection.prepare_cached(NEXT_READY)?;
        let pos = after.map_or(i64::MIN, |after| rows::stored_time(after.seq.at()));
        let seq = after.map_or(i64::MIN, |after| after.seq.get().cast_signed());
        // One more than wanted tells whether this was all.
        let most = limit(jobs_max - self.ready.len() + 1);
        let mut rows = statement.query(params![function.cast_signed() as i64, rank.get(), pos, seq, most])?;
        while let Some(row) = rows.next()? {
            let is_full =
                self.ready.len() >= jobs_max || (self.bytes >= bytes_max && self.ready.len() >= WINDOW_JOBS_SURE);
            if is_full {
                return Ok(false);
            }
            let stored = Stored::read(row, |id| shared.name(id))?.with_past(connection)?;
            self.last = Some(Place { rank, seq: stored.job.id.sequence() });
            match rows::read_input(row, INPUT_AT, &shared.blobs)? {
                Ok(input) => self.push(Ready { job: Arc::new(stored.job), input }),
                Err(IsDamaged) => self.damaged.push(stored.job.id),
            }
        }
        Ok(true)
    }

    fn push(&mut self, ready: Ready) {
        self.bytes += ready.cost();
        self.ready.push(ready);
    }
}
