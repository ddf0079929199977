//! Settle: the end of an attempt. Outcome, result, log and record go into one transaction with the job's move.
//!
//! The caller prepares as much as it can, so that the writer only writes. What the caller cannot know is whether
//! somebody cancels the job in the meantime; the writer then decides anew.

use std::sync::Arc;

use bytes::Bytes;
use kvern_core::{Attempt, Job, Next, Outcome, ResultInfo, State, UnixMs};
use kvern_queue::{Error, LeaseToken, Payload, Settlement, Staged, record};
use rusqlite::{Result as SqlResult, params};

use crate::blob::BlobDir;
use crate::effects::Effects;
use crate::log;
use crate::memory::Memory;
use crate::operation::Step;
use crate::rows;
use crate::running::Running;
use crate::shared::Answer;
use crate::submit::{body, inline_bytes};
use crate::transaction::{ResultRow, Transaction};
use crate::window::Ready;

/// The end of an attempt.
#[derive(Debug)]
pub(crate) struct Settle {
    token: LeaseToken,
    function: usize,
    /// The record as it will be, unless somebody cancels the job first.
    after: Job,
    /// What to decide again in that case; none if a cancel changes nothing.
    undecided: Option<Box<Undecided>>,
    output: Option<Output>,
    log: Bytes,
    is_long: bool,
    answer: Answer<State>,
}

/// The job as it runs, and what ends it.
#[derive(Debug)]
struct Undecided {
    running: Arc<Job>,
    started_before: Option<UnixMs>,
    ending: Ending,
}

/// How an attempt ends.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "one per settlement, and nearly all are the large one")]
enum Ending {
    Finish(Outcome, Next, Attempt),
    Release,
}

/// A result to be stored.
#[derive(Debug)]
struct Output {
    content_type: String,
    payload: Payload,
    crc32c: u32,
    file: Option<String>,
}

// === impl Settle ===

impl Settle {
    /// Prepares the end of the attempt that `running` shows.
    pub(crate) fn new(
        token: LeaseToken,
        running: &Started,
        settlement: Settlement,
        now: UnixMs,
        blobs: &BlobDir,
        answer: Answer<State>,
    ) -> Result<Self, Error> {
        let (ending, result, log) = match settlement {
            Settlement::Finish { outcome, next, result, attempt, log } => {
                (Ending::Finish(outcome, next, attempt), result, log)
            }
            Settlement::Release => (Ending::Release, None, Bytes::new()),
        };
        let output = result.map(|result| Output::new(result, blobs)).transpose()?;
        let info = output.as_ref().map(Output::info);
        let is_decided = matches!(ending, Ending::Finish(_, Next::Succeed, _));
        let kept = (!is_decided).then(|| ending.clone());
        let after = end(&running.job, running.started_before, ending, info, now)?;
        // Only a success has a result; the record says whether this is one.
        let output = output.filter(|_| after.result.is_some());
        let undecided = kept.map(|ending| {
            let (running, started_before) = (Arc::clone(&running.job), running.started_before);
            Box::new(Undecided { running, started_before, ending })
        });
        let (function, is_long) = (running.function, running.is_long);
        Ok(Self { token, function, after, undecided, output, log, is_long, answer })
    }

    /// What it carries.
    pub(crate) fn bytes(&self) -> usize {
        self.output.as_ref().map_or(0, |output| inline_bytes(&output.payload)) + self.log.len()
    }

    fn staged(&self) -> Option<&Staged> {
        self.output.as_ref().and_then(|output| output.payload.staged())
    }

    /// Whether somebody asked to cancel the job, and the record in that case if the caller did not know of it.
    fn decide(&self, tx: &Transaction<'_, '_>) -> Result<(bool, Option<Job>), Error> {
        let memory = tx.shared.memory();
        let running = memory.running.get(&self.token.job).ok_or(Error::StaleLease(self.token.job))?;
        let is_cancelled = running.job.cancel_requested || tx.cancelled.contains(&self.token.job);
        let anew = match &self.undecided {
            Some(undecided) if is_cancelled != undecided.running.cancel_requested => {
                let job = Job { cancel_requested: is_cancelled, ..(*running.job).clone() };
                Some(end(&job, undecided.started_before, undecided.ending.clone(), None, tx.now)?)
            }
            _ => None,
        };
        Ok((is_cancelled, anew))
    }
}

/// What a settlement needs of the overlay.
#[derive(Debug)]
pub(crate) struct Started {
    job: Arc<Job>,
    function: usize,
    started_before: Option<UnixMs>,
    is_long: bool,
    is_cancelling: bool,
}

impl Started {
    pub(crate) fn of(running: &Running) -> Self {
        Self {
            job: Arc::clone(&running.job),
            function: running.function,
            started_before: running.started_before,
            is_long: running.is_long,
            is_cancelling: running.is_cancelling,
        }
    }

    /// Whether a release has nothing to write.
    pub(crate) fn is_only_in_memory(&self) -> bool {
        !self.is_long && !self.is_cancelling && !self.job.cancel_requested
    }
}

impl Step for Settle {
    /// The record, if it is not the one that was prepared.
    type Found = Option<Box<Job>>;

    fn apply(&self, tx: &mut Transaction<'_, '_>) -> SqlResult<Result<Self::Found, Error>> {
        let (is_cancelled, anew) = match self.decide(tx) {
            Ok(decided) => decided,
            Err(refused) => return Ok(Err(refused)),
        };
        let after = anew.as_ref().unwrap_or(&self.after);
        let key = rows::key(after.id);
        let result = self.output.as_ref().map_or_else(ResultRow::default, |output| output.row());
        // The log first: what the job takes is counted with its move.
        if !self.log.is_empty() {
            log::append(tx, key, &self.log)?;
        }
        tx.move_job(self.function, State::Running, after, &result)?;
        if let Some(stored) = result.body {
            tx.own_file(stored, key)?;
            self.staged().inspect(|staged| staged.keep());
        }
        forget_attempt(tx, key, self.is_long, is_cancelled)?;
        tx.ended.insert(after.id);
        Ok(Ok(anew.map(Box::new)))
    }

    fn finish(self, anew: Self::Found, memory: &mut Memory, effects: &mut Effects) {
        let after = anew.map_or(self.after, |job| *job);
        effects.answer_settle(self.answer, Ok(after.state));
        finish_attempt(after, memory, effects);
    }

    fn refuse(self, why: Error, memory: &mut Memory, effects: &mut Effects) {
        if let Some(running) = memory.running.get_mut(&self.token.job)
            && running.token == self.token
        {
            running.is_settling = false;
        }
        // As with a submit. Who settles again once there is room brings the same file.
        if let (Some(staged), false) = (self.staged(), matches!(why, Error::Unknown(_))) {
            staged.give_back();
        }
        effects.payloads.extend(self.output.map(|output| output.payload));
        effects.answer_settle(self.answer, Err(why));
    }
}

/// Removes the rows that say that an attempt runs.
pub(crate) fn forget_attempt(tx: &Transaction<'_, '_>, key: i64, is_long: bool, is_cancelled: bool) -> SqlResult<()> {
    if is_long {
        tx.run("DELETE FROM started WHERE seq = ?1", params![key])?;
    }
    if is_cancelled {
        tx.run("DELETE FROM cancels WHERE seq = ?1", params![key])?;
    }
    Ok(())
}

/// After the commit: the attempt is over, and the job is wherever its record says.
pub(crate) fn finish_attempt(after: Job, memory: &mut Memory, effects: &mut Effects) {
    effects.moved.push((after.id, after.function.clone(), after.state));
    let Some(running) = memory.end(after.id) else { return };
    match after.due_at {
        Some(due_at) => memory.schedule(running.function, due_at),
        None if after.state == State::Queued => {
            memory.offer(running.function, Ready { job: Arc::new(after), input: running.input });
        }
        None => {}
    }
}

fn end(
    running: &Job,
    started_before: Option<UnixMs>,
    ending: Ending,
    info: Option<ResultInfo>,
    now: UnixMs,
) -> Result<Job, Error> {
    let mut job = running.clone();
    match ending {
        Ending::Finish(outcome, next, attempt) => record::finish(&mut job, &outcome, next, attempt, info, now)?,
        Ending::Release => record::release(&mut job, started_before, now)?,
    }
    // A wait that is over already is none.
    if record::is_due(&job, now) {
        record::come_due(&mut job)?;
    }
    Ok(job)
}

// === impl Output ===

impl Output {
    fn new((content_type, payload): (String, Payload), blobs: &BlobDir) -> Result<Self, Error> {
        let (crc32c, file) = blobs.card(&payload)?;
        Ok(Self { content_type, payload, crc32c, file })
    }

    fn info(&self) -> ResultInfo {
        ResultInfo { content_type: self.content_type.clone(), bytes: self.payload.len() }
    }

    fn row(&self) -> ResultRow<'_> {
        ResultRow {
            content_type: Some(&self.content_type),
            bytes: self.payload.len().cast_signed(),
            crc32c: self.crc32c,
            body: Some(body(&self.payload, self.file.as_deref())),
        }
    }
}
