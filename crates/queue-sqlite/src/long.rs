//! Mark long: attempts that have run for more than a moment get a row, so that a crash counts as their interruption.

use kvern_queue::{Error, LeaseToken};
use rusqlite::{Result as SqlResult, params};

use crate::arrivals;
use crate::effects::Effects;
use crate::memory::Memory;
use crate::operation::Step;
use crate::rows::{self, stored_time};
use crate::shared::Answer;
use crate::transaction::Transaction;

/// Attempts that a renewal found to be long.
#[derive(Debug)]
pub(crate) struct MarkLong {
    pub(crate) leases: Vec<LeaseToken>,
    pub(crate) answer: Answer<()>,
}

impl Step for MarkLong {
    type Found = ();

    fn apply(&self, tx: &mut Transaction<'_, '_>) -> SqlResult<Result<(), Error>> {
        for token in &self.leases {
            let started_at = {
                let memory = tx.shared.memory();
                let running = memory.running.get(&token.job).filter(|running| running.token == *token);
                running.and_then(|running| running.job.started_at)
            };
            // It may have ended on the way here, or earlier in this transaction.
            if let Some(started_at) = started_at.filter(|_| !tx.ended.contains(&token.job)) {
                let values = params![rows::key(token.job), stored_time(started_at)];
                tx.run("INSERT OR REPLACE INTO started VALUES (?1, ?2)", values)?;
                // While it runs for hours it must not keep its arrival, and with it all later ones.
                arrivals::leave(tx, rows::key(token.job))?;
            }
        }
        Ok(Ok(()))
    }

    fn finish(self, (): (), _: &mut Memory, effects: &mut Effects) {
        effects.answer_done(self.answer, Ok(()));
    }

    fn refuse(self, why: Error, memory: &mut Memory, effects: &mut Effects) {
        for token in &self.leases {
            if let Some(running) = memory.running.get_mut(&token.job) {
                running.is_long &= running.token != *token;
            }
        }
        effects.answer_done(self.answer, Err(why));
    }
}
