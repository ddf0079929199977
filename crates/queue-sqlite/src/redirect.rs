//! Redirect: somebody sends a job another way. A cancel ends a waiting job and marks a running one; a retry gives a
//! finished one another life.

use std::sync::Arc;

use kvern_core::{Job, JobId, State};
use kvern_queue::{Error, record};
use rusqlite::{Result as SqlResult, params};

use crate::effects::Effects;
use crate::memory::Memory;
use crate::operation::Step;
use crate::rows;
use crate::shared::Answer;
use crate::transaction::{ResultRow, Transaction};
use crate::window::Place;

/// A person's word about a job.
#[derive(Debug)]
pub(crate) struct Redirect {
    pub(crate) id: JobId,
    pub(crate) to: Way,
    pub(crate) answer: Answer<()>,
}

/// Where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Cancel,
    Retry,
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Redirected {
    /// A running job was marked.
    Marked,
    /// A stored job moved.
    Moved { function: usize, job: Box<Job> },
}

impl Step for Redirect {
    type Found = Redirected;

    fn apply(&self, tx: &mut Transaction<'_, '_>) -> SqlResult<Result<Redirected, Error>> {
        if !tx.ended.contains(&self.id) && self.finds_it_running(tx) {
            if self.to == Way::Retry {
                return Ok(Err(Error::WrongState { id: self.id, state: State::Running }));
            }
            // The request reaches the attempt with its next renewal; the row keeps it over a crash.
            tx.run("INSERT OR IGNORE INTO cancels VALUES (?1)", params![rows::key(self.id)])?;
            tx.cancelled.insert(self.id);
            return Ok(Ok(Redirected::Marked));
        }
        let stored = match tx.find(self.id)? {
            Ok(stored) => stored,
            Err(unknown) => return Ok(Err(unknown)),
        };
        let (function, mut job) = (usize::try_from(stored.function).unwrap_or(usize::MAX), stored.job);
        let from = job.state;
        let moved = match self.to {
            Way::Cancel => record::cancel(&mut job, tx.now),
            Way::Retry => record::redrive(&mut job, tx.now),
        };
        if let Err(refused) = moved {
            return Ok(Err(refused));
        }
        if !hold_back(tx, function, &job) {
            // A worker took it since the look above.
            return self.apply(tx);
        }
        tx.move_job(function, from, &job, &ResultRow::default())?;
        if self.to == Way::Retry {
            tx.run("UPDATE jobs SET expires_at = NULL WHERE seq = ?1", params![rows::key(self.id)])?;
        }
        Ok(Ok(Redirected::Moved { function, job: Box::new(job) }))
    }

    fn finish(self, found: Redirected, memory: &mut Memory, effects: &mut Effects) {
        match found {
            Redirected::Marked => self.mark(memory, true),
            Redirected::Moved { function, job } => {
                let place = place_of(&job);
                match self.to {
                    // A settlement or a submit of the same batch may have put it back.
                    Way::Cancel => memory.hold_back(function, place),
                    Way::Retry => memory.with_window(function, |window| window.gap(place)),
                }
                effects.moved.push((job.id, job.function.clone(), job.state));
            }
        }
        effects.answer_done(self.answer, Ok(()));
    }

    fn refuse(self, why: Error, memory: &mut Memory, effects: &mut Effects) {
        self.mark(memory, false);
        effects.answer_done(self.answer, Err(why));
    }
}

impl Redirect {
    /// Whether the job runs; a cancel says in the same look that it comes, or a release could slip in between.
    fn finds_it_running(&self, tx: &Transaction<'_, '_>) -> bool {
        let mut memory = tx.shared.memory();
        let Some(running) = memory.running.get_mut(&self.id) else { return false };
        if self.to == Way::Cancel {
            running.is_cancelling = true;
        }
        true
    }

    /// The request to a running job is on the disk, or was refused.
    fn mark(&self, memory: &mut Memory, is_stored: bool) {
        let running = memory.running.get_mut(&self.id).filter(|_| self.to == Way::Cancel);
        let Some(running) = running else { return };
        running.is_cancelling = false;
        if is_stored {
            Arc::make_mut(&mut running.job).cancel_requested = true;
        }
    }
}

/// Takes a waiting job out of its window, so that no lease gets it before the commit. False if it runs.
pub(crate) fn hold_back(tx: &Transaction<'_, '_>, function: usize, job: &Job) -> bool {
    let mut memory = tx.shared.memory();
    if !tx.ended.contains(&job.id) && memory.running.contains_key(&job.id) {
        return false;
    }
    memory.hold_back(function, place_of(job));
    true
}

/// Where a job stands, or would stand, among the ready ones of its function.
pub(crate) fn place_of(job: &Job) -> Place {
    Place { rank: crate::rank::Rank::of(State::Queued, job.priority), seq: job.id.sequence() }
}
