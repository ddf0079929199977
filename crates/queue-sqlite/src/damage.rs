//! Damage: a job whose stored input does not match its checksum fails; the others go on.

use std::collections::BTreeSet;

use kvern_core::{Job, JobId, State};
use kvern_queue::record;
use rusqlite::Result as SqlResult;

use crate::effects::Effects;
use crate::memory::Memory;
use crate::redirect::{hold_back, place_of};
use crate::rows;
use crate::stuck::{self, Bad};
use crate::transaction::{ResultRow, Transaction};

/// A job that failed so.
#[derive(Debug)]
pub(crate) struct Failed {
    function: usize,
    job: Job,
    /// Its row cannot be written, and says that it is in this state.
    stuck_in: Option<State>,
}

/// Fails those of these jobs that still wait.
pub(crate) fn apply(tx: &mut Transaction<'_, '_>, damaged: &BTreeSet<JobId>) -> SqlResult<Vec<Failed>> {
    let mut failed = Vec::new();
    for id in damaged {
        let (key, bad) = (rows::key(*id), tx.shared.memory().bad(rows::key(*id)));
        if bad == Some(Bad::Unreadable) || tx.shared.memory().stuck(*id).is_some() {
            continue;
        }
        let stored = tx.find(*id).map_err(|error| stuck::note(tx, key, Bad::Unreadable, error))?;
        let Ok(stored) = stored else { continue };
        let (function, mut job) = (usize::try_from(stored.function).unwrap_or(usize::MAX), stored.job);
        let from = job.state;
        if !matches!(from, State::Queued | State::Scheduled) || !hold_back(tx, function, &job) {
            continue;
        }
        if record::fail_damaged(&mut job, tx.now).is_err() {
            continue;
        }
        if bad.is_none() {
            let moved = tx.move_job(function, from, &job, &ResultRow::default());
            moved.map_err(|error| stuck::note(tx, key, Bad::Unwritable, error))?;
        }
        failed.push(Failed { function, job, stuck_in: bad.map(|_| from) });
    }
    Ok(failed)
}

/// After the commit.
pub(crate) fn finish(failed: Vec<Failed>, memory: &mut Memory, effects: &mut Effects) {
    for Failed { function, job, stuck_in } in failed {
        memory.hold_back(function, place_of(&job));
        effects.moved.push((job.id, job.function.clone(), job.state));
        if let Some(from) = stuck_in {
            memory.stick(function, from, job);
        }
    }
}
