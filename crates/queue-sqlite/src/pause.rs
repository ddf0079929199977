//! Pause: no new leases of a function, also after a restart.

use kvern_core::FunctionName;
use kvern_queue::{Error, KnownBad};
use rusqlite::{Result as SqlResult, params};

use crate::effects::Effects;
use crate::memory::Memory;
use crate::operation::Step;
use crate::shared::Answer;
use crate::transaction::Transaction;

/// Stops or allows new leases of a function.
#[derive(Debug)]
pub(crate) struct Pause {
    pub(crate) function: FunctionName,
    pub(crate) paused: bool,
    pub(crate) answer: Answer<()>,
}

impl Step for Pause {
    type Found = usize;

    fn apply(&self, tx: &mut Transaction<'_, '_>) -> SqlResult<Result<usize, Error>> {
        let function = tx.function(&self.function)?;
        let id = function.cast_signed() as i64;
        assert!(!KnownBad::PanicInWriter.is_made(), "a mistake on purpose: the writer panics within a transaction");
        tx.run("UPDATE functions SET paused = ?2 WHERE id = ?1", params![id, self.paused])?;
        Ok(Ok(function))
    }

    fn finish(self, function: usize, memory: &mut Memory, effects: &mut Effects) {
        memory.functions[function].stored.paused = self.paused;
        if !self.paused {
            memory.waiters.wake(function, usize::MAX);
        }
        effects.answer_done(self.answer, Ok(()));
    }

    fn refuse(self, why: Error, _: &mut Memory, effects: &mut Effects) {
        effects.answer_done(self.answer, Err(why));
    }
}
