//! Everything that is said on the socket: the questions of a client, which it numbers, and the words of the server.
//!
//! Most are the nouns of the contract as they are. Those that hold payloads have a form of their own here, because a
//! payload is never copied whole: a large input is told by its path, a large result by the number of the stage that the
//! client filled.
//!
//! ```text
//! client  (7, Lease(ask))  (8, Settle(token, settlement))  (7, Withdraw)
//! server  Answer(8, State(succeeded))
//! ```

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use kvern_core::{Attempt, FunctionName, Job, JobId, Next, Outcome, State, UnixMs};
use kvern_queue::{
    Ask, Blob, Cursor, Error, Filter, Idempotency, Lease, LeaseState, LeaseToken, Leased, NewJob, Page, Payload,
    Retention, Settlement, Stats, Stored, Submitted, Swept, WorkerInfo,
};
use serde::{Deserialize, Serialize};

/// The longest wait of a lease, whatever was asked for: no timer holds a date that is further off.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// The number that a client gives to a question.
pub(crate) type Number = u64;

/// What a client says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Question {
    Submit(Box<WireJob>),
    /// Answered in one or more parts.
    Lease(Ask),
    /// The lease of this number is not waited for any more. Has no answer.
    Withdraw,
    Renew(Vec<LeaseToken>),
    Settle(LeaseToken, Box<WireSettlement>),
    /// Nobody took this lease: it goes back. Has no answer.
    GiveBack(LeaseToken),
    Cancel(JobId),
    Retry(JobId),
    Forget(JobId),
    Pause(FunctionName, bool),
    Get(JobId),
    Input(JobId),
    Result(JobId),
    List(Filter, Option<Cursor>, u64),
    AppendLog(LeaseToken, Bytes),
    ReadLog(JobId, u64, u64),
    Announce(WorkerInfo),
    Workers,
    Sweep(Retention, u64),
    Look,
    /// Every move from now on. Has no answer.
    Watch,
    /// Bytes for the stage of this number, which the first of them opens.
    Write(Number, Bytes),
    Finish(Number),
    /// Nobody needs the stage of this number, or what it became. Has no answer.
    Drop(Number),
}

/// What the server says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Word {
    Answer(Number, Answer),
    Moved(JobId, FunctionName, State),
    Missed,
}

/// The answer to a question.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Answer {
    Done,
    Submitted(Submitted),
    Leases(Vec<WireLeased>, IsLast),
    Renewed(Vec<LeaseState>),
    State(State),
    Job(Box<Job>),
    Stored(Option<WireStored>),
    Page(Page),
    Log(Bytes),
    Workers(Vec<WorkerInfo>),
    Swept(Swept),
    Finished(Option<WireBlob>),
    Look(Look),
    Refused(Error),
}

/// Whether no other part follows.
pub(crate) type IsLast = bool;

/// What the contract tells without waiting.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Look {
    pub(crate) stats: Stats,
    pub(crate) room: Result<(), Error>,
}

/// A payload on the socket.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum WirePayload {
    Inline(Bytes),
    /// From the server: where it is.
    Blob(WireBlob),
    /// To the server: the stage that it has.
    Staged(Number),
}

/// A file of the server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WireBlob {
    /// A path may be no text.
    path: Bytes,
    bytes: u64,
    crc32c: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WireLeased {
    pub(crate) token: LeaseToken,
    pub(crate) job: Job,
    input: WirePayload,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WireStored {
    content_type: Option<String>,
    payload: WirePayload,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WireJob {
    function: FunctionName,
    pub(crate) input: WirePayload,
    content_type: Option<String>,
    idempotency: Option<Idempotency>,
    not_before: Option<UnixMs>,
    expires_at: Option<UnixMs>,
    priority: u8,
    tags: Vec<(String, String)>,
    max_queued: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "almost every settlement is a finish, and it is boxed")]
pub(crate) enum WireSettlement {
    Finish { outcome: Outcome, next: Next, result: Option<(String, WirePayload)>, attempt: Attempt, log: Bytes },
    Release,
}

// === impl WirePayload ===

impl WirePayload {
    /// A payload of the server's queue, for a client.
    pub(crate) fn given(payload: &Payload) -> Self {
        match payload {
            Payload::Inline(bytes) => Self::Inline(bytes.clone()),
            Payload::Blob(blob) => Self::Blob(WireBlob::of(blob)),
        }
    }

    /// What a client was given.
    fn into_payload(self) -> Payload {
        match self {
            Self::Inline(bytes) => Payload::Inline(bytes),
            Self::Blob(blob) => Payload::Blob(blob.into_blob()),
            // No server says this; whoever opens it finds nothing there.
            Self::Staged(_) => Payload::Blob(Blob::new(PathBuf::new(), 0, 0)),
        }
    }

    /// Roughly what it takes in a frame.
    fn bytes(&self) -> usize {
        match self {
            Self::Inline(bytes) => bytes.len(),
            Self::Blob(blob) => blob.path.len(),
            Self::Staged(_) => 0,
        }
    }
}

// === impl WireBlob ===

impl WireBlob {
    pub(crate) fn of(blob: &Blob) -> Self {
        let path = Bytes::copy_from_slice(blob.path.as_os_str().as_bytes());
        Self { path, bytes: blob.bytes, crc32c: blob.crc32c }
    }

    /// The file, which the server looks after.
    pub(crate) fn into_blob(self) -> Blob {
        Blob::new(Path::new(&OsString::from_vec(self.path.into())).to_owned(), self.bytes, self.crc32c)
    }
}

// === impl WireLeased ===

impl WireLeased {
    pub(crate) fn of(leased: Leased) -> Self {
        Self { token: leased.lease.token(), input: WirePayload::given(&leased.input), job: leased.job }
    }

    pub(crate) fn into_leased(self) -> Leased {
        Leased { lease: Lease::new(self.token), job: self.job, input: self.input.into_payload() }
    }

    /// Roughly what it takes in a frame: its input, and a record of this size for each attempt that it had.
    pub(crate) fn bytes(&self) -> usize {
        const RECORD_BYTES: usize = 4 << 10;
        self.input.bytes() + RECORD_BYTES * (1 + self.job.attempts.len())
    }
}

// === impl WireStored ===

impl WireStored {
    pub(crate) fn of(stored: &Stored) -> Self {
        Self { content_type: stored.content_type.clone(), payload: WirePayload::given(&stored.payload) }
    }

    pub(crate) fn into_stored(self) -> Stored {
        Stored { content_type: self.content_type, payload: self.payload.into_payload() }
    }
}

// === impl WireJob ===

impl WireJob {
    /// The job, with its input as it travels.
    pub(crate) fn of(job: NewJob, input: WirePayload) -> Self {
        let NewJob {
            function,
            input: _,
            content_type,
            idempotency,
            not_before,
            expires_at,
            priority,
            tags,
            max_queued,
        } = job;
        Self { function, input, content_type, idempotency, not_before, expires_at, priority, tags, max_queued }
    }

    /// The job, with its input as the queue takes it.
    pub(crate) fn into_job(self, input: Payload) -> NewJob {
        let Self { function, input: _, content_type, idempotency, not_before, expires_at, priority, tags, max_queued } =
            self;
        NewJob { function, input, content_type, idempotency, not_before, expires_at, priority, tags, max_queued }
    }
}

// === impl WireSettlement ===

impl WireSettlement {
    /// The settlement, with its result as it travels.
    ///
    /// # Errors
    /// What `travels` says.
    pub(crate) fn of(
        settlement: &Settlement,
        travels: impl FnOnce(&Payload) -> Result<WirePayload, Error>,
    ) -> Result<Self, Error> {
        let Settlement::Finish { outcome, next, result, attempt, log } = settlement else { return Ok(Self::Release) };
        let result = match result {
            Some((content_type, payload)) => Some((content_type.clone(), travels(payload)?)),
            None => None,
        };
        let (outcome, attempt, log) = (outcome.clone(), attempt.clone(), log.clone());
        Ok(Self::Finish { outcome, next: *next, result, attempt, log })
    }

    /// The stage that holds its result.
    pub(crate) fn staged(&self) -> Option<Number> {
        match self {
            Self::Finish { result: Some((_, WirePayload::Staged(stage))), .. } => Some(*stage),
            _ => None,
        }
    }

    /// The settlement; `staged` is what the stage of its result became.
    pub(crate) fn into_settlement(self, staged: Option<Payload>) -> Settlement {
        let Self::Finish { outcome, next, result, attempt, log } = self else { return Settlement::Release };
        let result = result.map(|(content_type, payload)| match (payload, staged) {
            (WirePayload::Staged(_), Some(staged)) => (content_type, staged),
            (payload, _) => (content_type, payload.into_payload()),
        });
        Settlement::Finish { outcome, next, result, attempt, log }
    }
}

// === tests ===

#[cfg(test)]
mod tests {
    use kvern_core::{Failure, FailureCode};

    use super::*;
    use crate::frame::{decode, encode};

    #[test]
    fn what_records_leave_out_comes_back() {
        let attempt = Attempt {
            number: 1,
            outcome: "failed".to_owned(),
            started_at: UnixMs(1),
            finished_at: UnixMs(2),
            version: None,
            error: None,
        };
        for failure in [Failure::new(FailureCode::Exit, "no"), Failure::new(FailureCode::Exit, "no").with_trace("line")]
        {
            let said = WireSettlement::Finish {
                outcome: Outcome::Failed(failure.clone()),
                next: Next::RetryAt(UnixMs(7)),
                result: None,
                attempt: attempt.clone(),
                log: Bytes::from_static(b"\xff\x00"),
            };
            let heard: WireSettlement = decode(&encode(&said).expect("it fits")).expect("a word");
            assert_eq!(format!("{heard:?}"), format!("{said:?}"));
        }
    }

    #[test]
    fn a_path_need_not_be_text() {
        let path = PathBuf::from(OsString::from_vec(b"/data/\xff/blobs/1-0".to_vec()));
        let blob = Blob::new(path, 7, 9);
        let heard: WireBlob = decode(&encode(&WireBlob::of(&blob)).expect("it fits")).expect("a word");
        assert_eq!(heard.into_blob(), blob);
    }

    #[test]
    fn what_is_too_large_for_a_frame_is_refused() {
        let word = Question::Write(1, vec![0; crate::frame::FRAME_BYTES_MAX].into());
        assert!(matches!(encode(&word), Err(Error::TooLarge { .. })));
    }
}
