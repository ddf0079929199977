//! What each operation does to the record of a job. Pure, and shared, so that every adapter tells the same story.
//!
//! Each function makes one move through [`State::after`] and fails with [`Error::WrongState`] where that forbids it.

use std::time::Duration;

use kvern_core::limits::ATTEMPTS_MAX;
use kvern_core::state::Move;
use kvern_core::{Attempt, Failure, FailureCode, Job, JobId, Next, Outcome, ResultInfo, State, Tally, UnixMs};

use crate::error::Error;
use crate::job::NewJob;
use crate::known_bad::KnownBad;

/// A restart counts as an interruption of attempts that a renewal had found older than this. Younger ones cost nothing
/// to run again, and not counting them saves a write for each short job.
pub const INTERRUPTION_COUNTS_AFTER: Duration = Duration::from_secs(1);

/// Attempts kept in a record; older ones go first. Retries by hand have no bound, so this must.
pub const ATTEMPTS_KEPT_MAX: usize = 2 * ATTEMPTS_MAX as usize;

/// What an attempt that was cut off is called in the record; see [`Attempt::outcome`].
pub const INTERRUPTED: &str = "interrupted";

/// A job just accepted. `id` holds the time of acceptance.
#[must_use]
pub fn accept(id: JobId, new: &NewJob, now: UnixMs) -> Job {
    let due_at = new.not_before.filter(|at| *at > now);
    Job {
        id,
        function: new.function.clone(),
        state: if due_at.is_some() { State::Scheduled } else { State::Queued },
        created_at: id.accepted_at(),
        due_at,
        ready_at: due_at.unwrap_or(id.accepted_at()),
        expires_at: new.expires_at,
        priority: new.priority,
        tags: new.tags.clone(),
        content_type: new.content_type.clone(),
        input_bytes: new.input.len(),
        tally: Tally::default(),
        started_at: None,
        finished_at: None,
        result: None,
        error: None,
        attempts: Vec::new(),
        cancel_requested: false,
    }
}

/// Whether a waiting job's time is over.
#[must_use]
pub fn is_expired(job: &Job, now: UnixMs) -> bool {
    matches!(job.state, State::Scheduled | State::Queued) && job.expires_at.is_some_and(|at| at <= now)
}

/// Whether a scheduled job's time has come.
#[must_use]
pub fn is_due(job: &Job, now: UnixMs) -> bool {
    job.state == State::Scheduled && job.due_at.is_some_and(|at| at <= now)
}

/// A scheduled job's time has come.
///
/// # Errors
/// [`Error::WrongState`] unless it is scheduled.
pub fn come_due(job: &mut Job) -> Result<(), Error> {
    step(job, Move::Due)?;
    job.due_at = None;
    Ok(())
}

/// A worker took the lease.
///
/// # Errors
/// [`Error::WrongState`] unless it is queued.
pub fn start(job: &mut Job, now: UnixMs) -> Result<(), Error> {
    step(job, Move::Leased)?;
    job.started_at = Some(now);
    Ok(())
}

/// The attempt has an outcome. A job that somebody asked to cancel only succeeds or is cancelled.
///
/// # Errors
/// [`Error::WrongState`] unless it runs.
pub fn finish(
    job: &mut Job,
    outcome: &Outcome,
    next: Next,
    attempt: Attempt,
    result: Option<ResultInfo>,
    now: UnixMs,
) -> Result<(), Error> {
    let next = if job.cancel_requested && next != Next::Succeed { Next::Cancel } else { next };
    match next {
        Next::Succeed => end(job, Move::Succeeded, now)?,
        Next::Fail => end(job, Move::GaveUp, now)?,
        Next::Cancel => end(job, Move::Cancelled, now)?,
        Next::RetryNow => {
            step(job, Move::RetryNow)?;
            job.ready_at = now;
        }
        Next::RetryAt(at) => {
            step(job, Move::RetryLater)?;
            job.due_at = Some(at);
            job.ready_at = at.max(now);
        }
    }
    remember(job, job.tally.with(outcome), attempt);
    if next == Next::Succeed {
        job.error = None;
        job.result = result;
    } else if let Some(failure) = outcome.failure() {
        job.error = Some(failure.clone());
    }
    Ok(())
}

/// The lease ended as if it had not been given. `before` is the start of the attempt before it.
///
/// # Errors
/// [`Error::WrongState`] unless it runs.
pub fn release(job: &mut Job, before: Option<UnixMs>, now: UnixMs) -> Result<(), Error> {
    if job.cancel_requested {
        end(job, Move::Cancelled, now)?;
    } else {
        step(job, Move::Released)?;
    }
    job.started_at = before;
    Ok(())
}

/// The attempt was cut off by the death of the server or the worker, and that counts.
///
/// # Errors
/// [`Error::WrongState`] unless it runs.
pub fn interrupt(job: &mut Job, now: UnixMs) -> Result<(), Error> {
    let tally = job.tally.with_interruption();
    if job.cancel_requested {
        end(job, Move::Cancelled, now)?;
    } else if tally.is_interrupted_too_often() {
        end(job, Move::GaveUp, now)?;
        let message = format!(
            "{} attempts were cut off by the death of the server or the worker; see the log for what they did last",
            tally.interruptions
        );
        job.error = Some(Failure::new(FailureCode::Interrupted, message));
    } else {
        step(job, Move::Released)?;
        job.ready_at = now;
    }
    let attempt = Attempt {
        number: tally.attempts,
        outcome: INTERRUPTED.to_owned(),
        started_at: job.started_at.unwrap_or(now),
        finished_at: now,
        version: None,
        error: None,
    };
    remember(job, tally, attempt);
    Ok(())
}

/// The job's `expires_at` passed while it waited.
///
/// # Errors
/// [`Error::WrongState`] unless it waits.
pub fn expire(job: &mut Job, now: UnixMs) -> Result<(), Error> {
    end(job, Move::GaveUp, now)?;
    job.error = Some(Failure::new(FailureCode::Expired, "the job's `expires_at` passed before it could run"));
    Ok(())
}

/// The job's stored input turned out to be damaged while it waited.
///
/// # Errors
/// [`Error::WrongState`] unless it waits.
pub fn fail_damaged(job: &mut Job, now: UnixMs) -> Result<(), Error> {
    end(job, Move::GaveUp, now)?;
    job.error = Some(Failure::damaged_input());
    Ok(())
}

/// Somebody asked to cancel the job: a waiting one is cancelled, a running one marked.
///
/// # Errors
/// [`Error::WrongState`] if it is finished.
pub fn cancel(job: &mut Job, now: UnixMs) -> Result<(), Error> {
    if job.state == State::Running {
        job.cancel_requested = true;
        return Ok(());
    }
    end(job, Move::Cancelled, now)
}

/// Somebody asked for another life of a dead letter. Attempts go on counting, so that their numbers in the record stay
/// apart; an expiry of the old life does not end the new one.
///
/// # Errors
/// [`Error::WrongState`] unless it failed or was cancelled.
pub fn redrive(job: &mut Job, now: UnixMs) -> Result<(), Error> {
    step(job, Move::Redriven)?;
    job.ready_at = now;
    job.tally = Tally { attempts: job.tally.attempts, ..Tally::default() };
    job.finished_at = None;
    job.expires_at = None;
    Ok(())
}

fn end(job: &mut Job, by: Move, now: UnixMs) -> Result<(), Error> {
    step(job, by)?;
    job.finished_at = Some(now);
    job.due_at = None;
    Ok(())
}

fn step(job: &mut Job, by: Move) -> Result<(), Error> {
    let from = job.state;
    job.state = from.after(by).map_err(|_| Error::WrongState { id: job.id, state: from })?;
    if from == State::Running {
        // The request was to the attempt, and that is over.
        job.cancel_requested = false;
    }
    Ok(())
}

fn remember(job: &mut Job, tally: Tally, attempt: Attempt) {
    if !KnownBad::NoAttemptCounter.is_made() {
        job.tally = tally;
    }
    job.attempts.push(attempt);
    let surplus = job.attempts.len().saturating_sub(ATTEMPTS_KEPT_MAX);
    job.attempts.drain(..surplus);
}
