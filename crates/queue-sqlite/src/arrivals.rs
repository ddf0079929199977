//! Arrivals: where fresh jobs are, those that wait with the default priority and have not moved since they were accepted.
//!
//! Most jobs are accepted so, and an entry in the index would be a good part of what is written for each. They need
//! none: the jobs of a function that one commit accepts lie close together in the table, and one row
//! (function, first, last) finds them. A job that moves gets its entry in the index then.
//!
//! The invariant: every job of the rank [`Rank::fresh`] lies in an arrival of its function. An arrival goes once none of
//! its jobs is fresh, which is asked of the table itself; the memory only says how far it is worth asking.

use kvern_core::State;
use kvern_core::limits::PRIORITY_DEFAULT;
use rusqlite::{Result as SqlResult, params};

use crate::memory::Memory;
use crate::rank::Rank;
use crate::transaction::Transaction;

const INSERT: &str = "INSERT INTO arrivals VALUES (?1, ?2, ?3)";
const LEAVE: &str = "UPDATE jobs SET rank = ?3 WHERE seq = ?1 AND rank = ?2";
pub(crate) const FORGET_PASSED: &str = "DELETE FROM arrivals WHERE function = ?1 AND first IN \
     (SELECT first FROM arrivals WHERE function = ?1 AND first < ?2 ORDER BY first LIMIT ?4) AND NOT EXISTS \
     (SELECT 1 FROM jobs WHERE seq BETWEEN first AND last AND jobs.function = ?1 AND rank = ?3)";

/// Arrivals are cleaned up after this many moves of a function's jobs: often enough that a look at what is fresh steps
/// over few others, and seldom enough that the look into memory costs nothing.
const MOVES_BETWEEN: usize = 64;
/// Most arrivals that one clean-up looks at: more than moves between two can pass, so that a heap of them shrinks.
const ARRIVALS_AT_ONCE: i64 = 4 * MOVES_BETWEEN as i64;

/// Moves of the jobs of each function since its arrivals were cleaned up.
#[derive(Debug, Default)]
pub(crate) struct Moves(Vec<usize>);

// === impl Moves ===

impl Moves {
    /// Counts moves, and says whether it is time to clean up; then it begins anew.
    fn count(&mut self, function: usize, moves: usize) -> bool {
        if self.0.len() <= function {
            self.0.resize(function + 1, 0);
        }
        self.0[function] += moves;
        let is_time = self.0[function] >= MOVES_BETWEEN;
        if is_time {
            self.0[function] = 0;
        }
        is_time
    }
}

/// Notes where the fresh jobs of this transaction are.
pub(crate) fn insert(tx: &Transaction<'_, '_>, function: usize, (first, last): (i64, i64)) -> SqlResult<()> {
    tx.run(INSERT, params![function.cast_signed() as i64, first, last])?;
    Ok(())
}

/// Gives a fresh job an entry in the index, so that its arrival can go though it has not moved.
pub(crate) fn leave(tx: &Transaction<'_, '_>, key: i64) -> SqlResult<()> {
    let placed = Rank::of(State::Queued, PRIORITY_DEFAULT);
    tx.run(LEAVE, params![key, Rank::fresh().get(), placed.get()])?;
    Ok(())
}

/// Forgets arrivals of a function whose jobs have all moved, if enough of its jobs moved since the last time.
pub(crate) fn forget_passed(tx: &mut Transaction<'_, '_>, function: usize, moves: usize) -> SqlResult<()> {
    if !tx.desk.moves.count(function, moves) {
        return Ok(());
    }
    let before = tx.shared.memory().first_fresh(function);
    tx.run(FORGET_PASSED, params![function.cast_signed() as i64, before, Rank::fresh().get(), ARRIVALS_AT_ONCE])?;
    Ok(())
}

// === impl Memory ===

impl Memory {
    /// The key of the first job of a function that may be fresh, as far as the memory knows.
    fn first_fresh(&self, function: usize) -> i64 {
        let may_be_fresh = |running: &&crate::running::Running| {
            running.function == function && !running.is_long && running.job.priority == PRIORITY_DEFAULT
        };
        let running = self.running.values().filter(may_be_fresh).map(|running| crate::rows::key(running.job.id)).min();
        let ready = self.functions[function].window.first_of(Rank::of(State::Queued, PRIORITY_DEFAULT));
        running.map_or(ready, |running| running.min(ready))
    }
}
