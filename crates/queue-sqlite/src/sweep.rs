//! Sweep: expired jobs fail, overdue leases end, finished jobs are forgotten. Bounded, so that it never stops the rest.

use kvern_core::{FunctionName, Job, JobId, Keep, State, UnixMs};
use kvern_queue::{Error, Retention, Swept, record};
use rusqlite::{Result as SqlResult, params};

use crate::effects::Effects;
use crate::forget;
use crate::keys;
use crate::memory::Memory;
use crate::operation::Step;
use crate::redirect::{hold_back, place_of};
use crate::rows::{self, Stored, stored_time};
use crate::settle::{finish_attempt, forget_attempt};
use crate::shared::Answer;
use crate::stuck::{self, Bad};
use crate::transaction::{ResultRow, Transaction};

/// Cleans up at most `limit` jobs.
#[derive(Debug)]
pub(crate) struct Sweep {
    pub(crate) retention: Retention,
    pub(crate) limit: usize,
    pub(crate) answer: Answer<Swept>,
}

/// What it did.
#[derive(Debug, Default)]
pub(crate) struct Cleaned {
    swept: Swept,
    expired: Vec<(usize, Job)>,
    rescued: Vec<Job>,
    files: Vec<std::path::PathBuf>,
}

impl Step for Sweep {
    type Found = Cleaned;

    fn apply(&self, tx: &mut Transaction<'_, '_>) -> SqlResult<Result<Cleaned, Error>> {
        let mut cleaned = Cleaned::default();
        let mut left = self.limit;
        expire(tx, &mut left, &mut cleaned)?;
        if let Err(error) = rescue(tx, &mut left, &mut cleaned)? {
            return Ok(Err(error));
        }
        self.forget(tx, left, &mut cleaned)?;
        cleaned.swept.more |= !keys::sweep(tx, self.limit)?;
        Ok(Ok(cleaned))
    }

    fn finish(self, cleaned: Cleaned, memory: &mut Memory, effects: &mut Effects) {
        for (function, job) in cleaned.expired {
            // A submit or a settlement of the same batch may have put it back.
            memory.hold_back(function, place_of(&job));
            effects.moved.push((job.id, job.function, job.state));
        }
        for job in cleaned.rescued {
            finish_attempt(job, memory, effects);
        }
        effects.files.extend(cleaned.files);
        effects.answer_sweep(self.answer, Ok(cleaned.swept));
    }

    fn refuse(self, why: Error, _: &mut Memory, effects: &mut Effects) {
        effects.answer_sweep(self.answer, Err(why));
    }
}

/// Waiting jobs whose time is over. One that runs has begun in time.
fn expire(tx: &mut Transaction<'_, '_>, left: &mut usize, cleaned: &mut Cleaned) -> SqlResult<()> {
    let running = tx.shared.memory().running.len();
    let most = left.saturating_add(running).saturating_add(1);
    let keys: Vec<i64> = {
        let sql = "SELECT seq FROM expiries WHERE at <= ?1 ORDER BY at, seq LIMIT ?2";
        let mut statement = tx.desk.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params![stored_time(tx.now), limit(most)], |row| row.get(0))?;
        rows.collect::<SqlResult<_>>()?
    };
    for key in keys {
        let bad = tx.shared.memory().bad(key);
        if bad == Some(Bad::Unreadable) {
            continue;
        }
        let found = match Stored::find_by_key(tx.desk.connection, key, |function| tx.shared.name(function)) {
            // A row that is no record must not hold up leases that ran out, nor the expiry of others.
            Err(error) if error.sqlite_error().is_none() => {
                tracing::error!(%error, "a job that expires cannot be read and stays where it is");
                continue;
            }
            found => found.map_err(|error| stuck::note(tx, key, Bad::Unreadable, error))?,
        };
        let Some(Stored { mut job, function, .. }) = found else { continue };
        let function = usize::try_from(function).unwrap_or(usize::MAX);
        let from = job.state;
        if !record::is_expired(&job, tx.now) || runs(tx, job.id) {
            continue;
        }
        if bad.is_some() {
            // It fails all the same, as damaged.
            tx.shared.tell_damaged(tx.shared.memory().stuck(job.id).is_none().then_some(job.id));
            continue;
        }
        if *left == 0 {
            cleaned.swept.more = true;
            return Ok(());
        }
        if record::expire(&mut job, tx.now).is_err() || !hold_back(tx, function, &job) {
            continue;
        }
        let moved = tx.move_job(function, from, &job, &ResultRow::default());
        moved.map_err(|error| stuck::note(tx, key, Bad::Unwritable, error))?;
        *left -= 1;
        cleaned.swept.expired += 1;
        cleaned.expired.push((function, job));
    }
    Ok(())
}

/// Whether it runs, as far as this transaction has not ended that.
pub(crate) fn runs(tx: &Transaction<'_, '_>, id: JobId) -> bool {
    !tx.ended.contains(&id) && tx.shared.memory().running.contains_key(&id)
}

/// Jobs whose lease ran out: the worker is lost.
fn rescue(tx: &mut Transaction<'_, '_>, left: &mut usize, cleaned: &mut Cleaned) -> SqlResult<Result<(), Error>> {
    let mut overdue = tx.shared.memory().overdue(tx.monotonic);
    cleaned.swept.more |= overdue.len() > *left;
    overdue.truncate(*left);
    for (function, mut job, is_long) in overdue {
        let key = rows::key(job.id);
        if tx.shared.memory().bad(key).is_some() {
            // Nothing can be kept of it. The next life finds it waiting, and its input damaged.
            continue;
        }
        job.cancel_requested |= tx.cancelled.contains(&job.id);
        let is_cancelled = job.cancel_requested;
        if let Err(error) = record::interrupt(&mut job, tx.now) {
            return Ok(Err(error));
        }
        let moved = tx.move_job(function, State::Running, &job, &ResultRow::default());
        moved.map_err(|error| stuck::note(tx, key, Bad::Unwritable, error))?;
        forget_attempt(tx, key, is_long, is_cancelled)?;
        tx.ended.insert(job.id);
        *left -= 1;
        cleaned.swept.rescued += 1;
        cleaned.rescued.push(job);
    }
    Ok(Ok(()))
}

impl Cleaned {
    fn count_gone(&mut self, (gone, more): (usize, bool), left: &mut usize) {
        *left -= gone;
        self.swept.forgotten += gone;
        self.swept.more |= more;
    }
}

impl Sweep {
    /// Finished jobs past their `keep`, the oldest of each function and state first.
    fn forget(&self, tx: &mut Transaction<'_, '_>, mut left: usize, cleaned: &mut Cleaned) -> SqlResult<()> {
        let functions: Vec<_> = {
            let memory = tx.shared.memory();
            memory.functions.iter().map(|function| function.name.clone()).enumerate().collect()
        };
        for (function, name) in &functions {
            let keep = self.keep(name);
            let ages =
                [(State::Succeeded, keep.succeeded), (State::Failed, keep.failed), (State::Cancelled, keep.failed)];
            for (state, age_max) in ages {
                let age_max = u64::try_from(age_max.as_millis()).unwrap_or(u64::MAX);
                let Some(before) = tx.now.0.checked_sub(age_max).map(UnixMs) else { continue };
                let gone = forget::over_age(tx, *function, state, before, left, &mut cleaned.files)?;
                cleaned.count_gone(gone, &mut left);
            }
        }
        for (function, name) in &functions {
            let bytes_max = self.keep(name).bytes;
            let gone = forget::over_size(tx, *function, bytes_max, left, &mut cleaned.files)?;
            cleaned.count_gone(gone, &mut left);
        }
        Ok(())
    }

    fn keep(&self, function: &FunctionName) -> Keep {
        self.retention.iter().find(|(named, _)| named == function).map(|(_, keep)| *keep).unwrap_or_default()
    }
}

pub(crate) fn limit(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}
