//! Stuck: waiting jobs that have failed as damaged, and whose rows cannot say so, because SQLite cannot write a row of which
//! it cannot read a page.
//!
//! The memory says it in their place: they are shown and counted as failed, are in no window, and hold up nobody. The next
//! life of the queue finds the same damage again. `kvern doctor` names them.
//!
//! A transaction in which SQLite met damage cannot be committed any more. So whoever meets some notes the job as
//! [`Bad`] and fails; the writer begins anew, and passes over it.

use std::collections::HashMap;
use std::sync::Arc;

use kvern_core::{Job, JobId, State};
use kvern_queue::FunctionStats;

use crate::checksum::is_damage;
use crate::memory::Memory;
use crate::transaction::Transaction;

/// How many jobs of a function are stuck, by what their rows say.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StuckCounts {
    queued: u64,
    scheduled: u64,
}

/// What is wrong with the row of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bad {
    /// It can be read as far as the record goes, and cannot be written.
    Unwritable,
    /// Not even that.
    Unreadable,
}

/// Notes that damage was met at a job; other errors say nothing of it. Gives the error back.
pub(crate) fn note(tx: &Transaction<'_, '_>, key: i64, bad: Bad, error: rusqlite::Error) -> rusqlite::Error {
    if is_damage(&error) {
        let is_news = tx.shared.memory().bad.insert(key, bad).is_none();
        if is_news {
            tracing::error!(key, ?bad, %error, "the row of a job is damaged; `kvern doctor` names the job");
        }
    }
    error
}

// === impl StuckCounts ===

impl StuckCounts {
    /// Counts them as what they are.
    pub(crate) fn correct(self, stats: &mut FunctionStats) {
        stats.queued = stats.queued.saturating_sub(self.queued);
        stats.scheduled = stats.scheduled.saturating_sub(self.scheduled);
        stats.failed += self.queued + self.scheduled;
    }
}

// === impl Memory ===

impl Memory {
    /// What is known to be wrong with the row that has this key.
    pub(crate) fn bad(&self, key: i64) -> Option<Bad> {
        self.bad.get(&key).copied()
    }

    /// A waiting job, stored in state `from`, has failed like this.
    pub(crate) fn stick(&mut self, function: usize, from: State, job: Job) {
        let counts = &mut self.functions[function].stuck;
        match from {
            State::Scheduled => counts.scheduled += 1,
            _ => counts.queued += 1,
        }
        self.stuck.insert(job.id, Arc::new(job));
    }

    /// The record of a job that is stuck.
    pub(crate) fn stuck(&self, id: JobId) -> Option<Arc<Job>> {
        self.stuck.get(&id).map(Arc::clone)
    }

    /// The records of all of them.
    pub(crate) fn all_stuck(&self) -> HashMap<JobId, Arc<Job>> {
        self.stuck.clone()
    }
}
