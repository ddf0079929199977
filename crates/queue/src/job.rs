//! The nouns of the contract: what goes into a queue and what comes out of it.

use std::time::Duration;

use bytes::Bytes;
use kvern_core::{Attempt, FunctionName, Job, JobId, Keep, Next, Outcome, State, UnixMs};
use serde::{Deserialize, Serialize};

use crate::payload::Payload;

/// A job to be accepted.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// The function; whether it exists is the gateway's to check.
    pub function: FunctionName,
    /// The input.
    pub input: Payload,
    /// Its content type, as the client sent it.
    pub content_type: Option<String>,
    /// Deduplicates submits.
    pub idempotency: Option<Idempotency>,
    /// Not before this time. A time that has come makes the job queued, as none does.
    pub not_before: Option<UnixMs>,
    /// Fails if it waits at this time or later, also when it waits for another attempt.
    pub expires_at: Option<UnixMs>,
    /// 0 (last) to 9 (first).
    pub priority: u8,
    /// At most [`kvern_core::limits::TAGS_MAX`] labels.
    pub tags: Vec<(String, String)>,
    /// The function's `max_queued`.
    pub max_queued: u64,
}

/// An idempotency key, hashed with its scope so that the queue never sees a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idempotency {
    /// Hash of function, token and key.
    pub key: [u8; 16],
    /// Hash of content type and body.
    pub body: [u8; 16],
}

/// What a submit gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// The job.
    pub id: JobId,
    /// Its state at the commit: queued or scheduled; for a twin, the state that the first job has now, or had last if
    /// it is forgotten and only the key is left.
    pub state: State,
    /// Whether the idempotency key had made it before.
    pub duplicate: bool,
}

/// What a worker asks for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ask {
    /// Who asks; [`WorkerInfo::name`].
    pub worker: String,
    /// Functions with free slots. Each lease takes one slot.
    pub wants: Vec<Want>,
    /// Most leases in all.
    pub max: usize,
    /// How long to wait for the first.
    pub wait: Duration,
}

/// Free slots of one function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// The function.
    pub function: FunctionName,
    /// Slots; at least 1.
    pub slots: usize,
}

/// The exclusive, expiring, renewable right to run one attempt. Given up by [`crate::Queue::settle`].
#[derive(Debug, PartialEq, Eq)]
pub struct Lease(LeaseToken);

/// What fences a lease: a later attempt, or a restart of the queue, has another token. No two leases share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LeaseToken {
    /// The job.
    pub job: JobId,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The life of the queue in which it was given.
    pub epoch: u64,
    /// Which lease of that life. A release leaves the attempt's number as it was, so the number alone would let a
    /// repeated release end the lease of the next holder.
    pub serial: u64,
}

/// A job with the right to run it.
#[derive(Debug)]
pub struct Leased {
    /// The right.
    pub lease: Lease,
    /// The job as it stands: running.
    pub job: Job,
    /// Its input.
    pub input: Payload,
}

/// What a renewal found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseState {
    /// It stands for another [`kvern_core::limits::LEASE_TTL`].
    Held,
    /// It stands, and somebody asked to cancel the job.
    CancelRequested,
    /// It is over: stop the attempt, its outcome will be refused.
    Over,
}

/// How an attempt ended, and what follows.
///
/// The record keeps the time of the lease as `started_at` and the queue's own time of the settlement as `finished_at`;
/// the times in `attempt` are the worker's.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "almost every settlement is a finish, and each is moved only once")]
pub enum Settlement {
    /// It has an outcome.
    Finish {
        /// The outcome.
        outcome: Outcome,
        /// What follows, as [`kvern_core::next`] decided.
        next: Next,
        /// The result; only with [`Next::Succeed`].
        result: Option<(String, Payload)>,
        /// The attempt for the record.
        attempt: Attempt,
        /// The rest of the log, after what [`crate::Queue::append_log`] took.
        log: Bytes,
    },
    /// It has none: the worker stops, and the job is queued again as if it had not been leased.
    Release,
}

/// Which jobs to list, the latest move first. All that is set must hold.
///
/// A list goes by [`crate::list::place`]: the milliseconds at which the job entered its state, then its id, both
/// descending. A job that is queued or runs stands where it was accepted (`running` is not stored, so a lease does not
/// move it), a scheduled job at its due time, a finished one at its finish.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
pub struct Filter {
    /// Of this function.
    pub function: Option<FunctionName>,
    /// In one of these states; empty means any.
    pub states: Vec<State>,
    /// Its place in the list is at or after this time: accepted, finished, or for a scheduled job due.
    pub since: Option<UnixMs>,
}

/// Where a list goes on. Opaque; belongs to one filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor(pub String);

/// A piece of a list, the latest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// Where the next page begins; none at the end.
    pub next: Option<Cursor>,
}

/// Counts of one function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FunctionStats {
    /// Waiting for a time.
    pub scheduled: u64,
    /// Waiting for a slot.
    pub queued: u64,
    /// Under a lease.
    pub running: u64,
    /// Kept after success.
    pub succeeded: u64,
    /// Kept dead letters.
    pub failed: u64,
    /// Kept after a cancel.
    pub cancelled: u64,
    /// What the kept ones take: input, result and log, and [`kvern_core::limits::RECORD_BYTES`] each.
    pub finished_bytes: u64,
    /// Whether leases are paused.
    pub paused: bool,
}

/// Counts of everything, maintained and never counted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stats {
    /// By function, in the order of names. Functions that never had a job may be missing.
    pub functions: Vec<(FunctionName, FunctionStats)>,
}

/// A worker as it announced itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// Its name, unique among live workers.
    pub name: String,
    /// The versions of the functions that it runs.
    pub functions: Vec<(FunctionName, String)>,
    /// When it announced itself last.
    pub seen_at: UnixMs,
}

/// How long finished jobs of each function are kept, for the sweep. For functions that it does not name (no longer in
/// the manifest) the default of [`Keep`] holds.
pub type Retention = Vec<(FunctionName, Keep)>;

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Swept {
    /// Jobs failed because they expired before they ran.
    pub expired: usize,
    /// Jobs queued again because their lease ran out.
    pub rescued: usize,
    /// Jobs forgotten.
    pub forgotten: usize,
    /// Whether the limit was reached and more is to do.
    pub more: bool,
}

// === impl Lease ===

impl Lease {
    /// A lease with this token. Only queues make leases.
    #[must_use]
    pub fn new(token: LeaseToken) -> Self {
        Self(token)
    }

    /// What names it in renewals.
    #[must_use]
    pub fn token(&self) -> LeaseToken {
        self.0
    }
}

// === impl FunctionStats ===

impl FunctionStats {
    /// The count of jobs in a state.
    #[must_use]
    pub fn of(&self, state: State) -> u64 {
        match state {
            State::Scheduled => self.scheduled,
            State::Queued => self.queued,
            State::Running => self.running,
            State::Succeeded => self.succeeded,
            State::Failed => self.failed,
            State::Cancelled => self.cancelled,
        }
    }

    /// The count of jobs in a state, to be changed.
    pub fn of_mut(&mut self, state: State) -> &mut u64 {
        match state {
            State::Scheduled => &mut self.scheduled,
            State::Queued => &mut self.queued,
            State::Running => &mut self.running,
            State::Succeeded => &mut self.succeeded,
            State::Failed => &mut self.failed,
            State::Cancelled => &mut self.cancelled,
        }
    }

    /// Jobs that wait: what `max_queued` bounds.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.scheduled + self.queued
    }
}
