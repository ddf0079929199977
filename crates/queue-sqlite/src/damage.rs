//! Damage: a job whose stored input does not match its checksum fails; the others go on.

use std::collections::BTreeSet;

use kvern_core::{Job, JobId, State};
use kvern_queue::record;
use rusqlite::Result as SqlResult;

use crate::checksum::is_damage;
use crate::effects::Effects;
use crate::memory::Memory;
use crate::redirect::{hold_back, place_of};
use crate::transaction::{ResultRow, Transaction};

/// A job that failed so.
#[derive(Debug)]
pub(crate) struct Failed {
    function: usize,
    job: Job,
}

/// Fails those of these jobs that still wait.
pub(crate) fn apply(tx: &mut Transaction<'_, '_>, damaged: &BTreeSet<JobId>) -> SqlResult<Vec<Failed>> {
    let mut failed = Vec::new();
    for id in damaged {
        let Ok(stored) = tx.find(*id)? else { continue };
        let (function, mut job) = (usize::try_from(stored.function).unwrap_or(usize::MAX), stored.job);
        let from = job.state;
        if !matches!(from, State::Queued | State::Scheduled) || !hold_back(tx, function, &job) {
            continue;
        }
        if record::fail_damaged(&mut job, tx.now).is_err() {
            continue;
        }
        match tx.move_job(function, from, &job, &ResultRow::default()) {
            // Its row cannot even be written. The others' can, and what is due must not wait for it.
            Err(error) if is_damage(&error) => {
                tracing::error!(job_id = %id, %error, "a damaged job cannot be failed; `kvern doctor` says more");
                continue;
            }
            moved => moved?,
        }
        failed.push(Failed { function, job });
    }
    Ok(failed)
}

/// After the commit.
pub(crate) fn finish(failed: Vec<Failed>, memory: &mut Memory, effects: &mut Effects) {
    for Failed { function, job } in failed {
        memory.hold_back(function, place_of(&job));
        effects.moved.push((job.id, job.function, job.state));
    }
}
