//! Due: scheduled jobs whose time has come are queued, a few at a time so that submits are not starved.

use kvern_core::id::Sequence;
use kvern_core::state::Move;
use kvern_core::{JobId, State, UnixMs};
use rusqlite::types::FromSqlError;
use rusqlite::{Result as SqlResult, params};

use crate::effects::Effects;
use crate::memory::{Memory, NEVER};
use crate::rank::{Rank, in_index};
use crate::rows::{self, stored_time};
use crate::stuck::{self, Bad};
use crate::sweep::limit;
use crate::transaction::Transaction;
use crate::window::Place;

/// Most jobs queued in one transaction because they came due.
pub(crate) const DUE_JOBS_MAX: usize = 512;

pub(crate) const FIRST_SCHEDULED: &str = concat!(
    "SELECT pos, seq, random, priority FROM jobs WHERE function = ?1 AND rank = ?2 AND ",
    in_index!(),
    " ORDER BY pos, seq LIMIT ?3"
);

/// What came due, and when the next job will.
#[derive(Debug)]
pub(crate) struct CameDue {
    /// The state that they have now.
    queued: State,
    jobs: Vec<(usize, JobId, Rank)>,
    /// By function.
    next_due: Vec<(usize, UnixMs)>,
}

/// Queues what is due. Runs before the operations of its transaction: what those schedule, they make known themselves.
pub(crate) fn apply(tx: &mut Transaction<'_, '_>) -> SqlResult<CameDue> {
    // The one move that all of these jobs make; nothing else of their records changes.
    let queued = State::Scheduled.after(Move::Due).map_err(FromSqlError::other)?;
    let functions: Vec<usize> = {
        let memory = tx.shared.memory();
        let all = memory.functions.iter().enumerate();
        all.filter(|(_, function)| function.next_due <= tx.now).map(|(index, _)| index).collect()
    };
    // A fair share for each, so that one function's flood does not hold up another's single job.
    let share = (DUE_JOBS_MAX / functions.len().max(1)).max(1);
    let mut came_due = CameDue { queued, jobs: Vec::new(), next_due: Vec::new() };
    for function in functions {
        let mut due = first_scheduled(tx, function, share + 1)?;
        let next = due.iter().map(|(at, ..)| *at).find(|at| *at > stored_time(tx.now));
        due.retain(|(at, ..)| *at <= stored_time(tx.now));
        // One too many means that there is more to do at once.
        let next = if due.len() > share { due.pop().map(|(at, ..)| at) } else { next };
        came_due.next_due.push((function, next.map_or(NEVER, |at| UnixMs(at.cast_unsigned()))));
        for (_, id, priority) in due {
            if tx.shared.memory().bad(rows::key(id)).is_some() {
                // It fails in another round; what is due must not wait for it.
                tx.shared.tell_damaged(tx.shared.memory().stuck(id).is_none().then_some(id));
                continue;
            }
            let rank = Rank::of(queued, priority);
            queue(tx, id, rank).map_err(|error| stuck::note(tx, rows::key(id), Bad::Unwritable, error))?;
            tx.count_gone(function, State::Scheduled);
            tx.count_new(function, queued);
            came_due.jobs.push((function, id, rank));
        }
    }
    Ok(came_due)
}

fn first_scheduled(tx: &Transaction<'_, '_>, function: usize, most: usize) -> SqlResult<Vec<(i64, JobId, u8)>> {
    let mut statement = tx.desk.connection.prepare_cached(FIRST_SCHEDULED)?;
    let rank = Rank::of(State::Scheduled, 0).get();
    let rows = statement.query_map(params![function.cast_signed() as i64, rank, limit(most)], |row| {
        let sequence = Sequence::from_bits(row.get::<_, i64>(1)?.cast_unsigned());
        Ok((row.get(0)?, JobId::new(sequence, row.get::<_, i64>(2)?.cast_unsigned()), row.get(3)?))
    })?;
    rows.collect()
}

fn queue(tx: &Transaction<'_, '_>, id: JobId, rank: Rank) -> SqlResult<()> {
    let values = params![rows::key(id), rank.get(), stored_time(id.accepted_at())];
    tx.run("UPDATE jobs SET rank = ?2, pos = ?3 WHERE seq = ?1", values)?;
    Ok(())
}

// === impl CameDue ===

impl CameDue {
    /// After the commit: the windows have gaps where these jobs belong.
    pub(crate) fn finish(self, memory: &mut Memory, effects: &mut Effects) {
        for (function, next_due) in self.next_due {
            memory.functions[function].next_due = next_due;
        }
        for (function, id, rank) in self.jobs {
            memory.with_window(function, |window| window.gap(Place { rank, seq: id.sequence() }));
            effects.moved.push((id, memory.functions[function].name.clone(), self.queued));
        }
    }
}
