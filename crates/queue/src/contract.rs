//! The Queue contract. Every adapter passes the suite in `conformance`, which has one test per rule, named after it.
//!
//! Submit
//!
//! 1. *a submitted job is there*: once `submit` returned, `get` finds the job, also after the queue was killed and
//!    opened again (as far as [`Queue::durability`] promises).
//! 2. *a key makes one job*: submits with the same [`Idempotency::key`] and the same body give one job, also when they
//!    run at the same time; the later ones say `duplicate`. With another body: [`Error::KeyReused`]. The key is
//!    remembered at least [`kvern_core::limits::IDEMPOTENCY_KEEP`] and as long as the job.
//! 3. *the bound holds*: no more than `max_queued` jobs of a function wait; one more gives [`Error::Full`] and stores
//!    nothing.
//! 4. *ids grow*: a job accepted later has a greater id, also over a restart and a clock that goes back.
//! 5. *payloads come back byte for byte*, inline and staged, input and result; a dropped stage leaves nothing behind, nor
//!    does a staged payload that no job takes.
//!
//! Lease
//!
//! 6. *one job, one lease*: a job is leased by at most one worker at a time.
//! 7. *higher priority first, then older first*, within a function. (Order across functions is not promised.)
//! 8. *functions share*: with jobs waiting for several wanted functions, none of them waits while another gets more
//!    than its turn: leases rotate over the wanted functions.
//! 9. *no more than asked*: `lease` gives at most `max`, and at most `slots` of each function.
//! 10. *a lease waits and wakes*: with nothing to give it waits up to `wait`, and returns soon after a job becomes
//!     ready (submitted, due, resumed, released).
//! 11. *a dropped lease call leaves no lease behind*: dropping the future never strands a job.
//! 12. *a scheduled job waits for its time*, and becomes leasable then without a sweep. From then on it may be shown as
//!     queued; after a sweep it is.
//! 13. *paused functions are not leased*: `pause` stops new leases of a function, lets submits and running attempts go
//!     on, and outlives a restart; `resume` undoes it.
//!
//! Settle
//!
//! 14. *an outcome is stored whole*: `settle` stores outcome, result, log and attempt record and moves the job in one
//!     step; nobody sees any of it before it is durable.
//! 15. *a stale lease is refused*: after expiry (also before a sweep has seen it), another attempt, a restart of the
//!     queue or a second settlement, `settle` gives [`Error::StaleLease`] and changes nothing.
//! 16. *retries wait*: [`Next::RetryAt`] makes the job scheduled until then, [`Next::RetryNow`] queued at once; the
//!     error stays visible in between, and goes once the job succeeds.
//! 17. *a release is not an attempt*: after [`Settlement::Release`] the job is queued in its old place with its counts
//!     unchanged, and its next lease has another token.
//! 18. *an unrenewed lease ends*: [`kvern_core::limits::LEASE_TTL`] after the last renewal (by the monotonic clock) it
//!     is over; the next sweep queues the job again, counted as an interruption; at
//!     [`kvern_core::limits::INTERRUPTIONS_MAX`] it fails with [`kvern_core::FailureCode::Interrupted`].
//! 19. *a restart is not a retry*: jobs that were running when the queue died are queued again after it opens; their
//!     failures and strikes are unchanged. An interruption is counted (and may be one too many, as in rule 18) if a
//!     renewal had found the attempt older than [`crate::record::INTERRUPTION_COUNTS_AFTER`].
//!
//! Cancel, retry
//!
//! 20. *a waiting job is cancelled at once*; a running one is marked, and its next renewal says
//!     [`LeaseState::CancelRequested`]; if its attempt ends otherwise first, a success stands and anything else is a
//!     cancel, also a release, a lost lease or a restart.
//! 21. *a finished job is not cancelled*: [`Error::WrongState`].
//! 22. *a retry gives a dead letter a new life*: failed and cancelled jobs are queued again, with failures, strikes and
//!     interruptions at zero and no expiry; attempts go on counting and stay in the record; others give
//!     [`Error::WrongState`].
//!
//! Look
//!
//! 23. *lists are whole and in order*: pages of `list` together give each job that matched throughout and did not move
//!     exactly once, the latest move first as [`Filter`] says; a cursor of another filter gives [`Error::BadCursor`].
//! 24. *counts are right*: `stats` agrees with what `list` would count.
//! 25. *a watcher hears of every move*, or is told that it missed some ([`Event::Missed`]); an event comes after the
//!     record shows the move.
//! 26. *logs append*: `read_log` gives the bytes of `append_log` and of the settlement in order, from any offset; a
//!     stale lease cannot append.
//! 27. *workers are seen*: an announced worker is listed until [`kvern_core::limits::WORKER_LISTED_FOR`] after its last
//!     word.
//!
//! Sweep
//!
//! 28. *expired jobs fail*: a job waiting at `expires_at` or later is never leased, and a sweep makes it a dead letter
//!     with [`kvern_core::FailureCode::Expired`].
//! 29. *finished jobs are forgotten* after their `keep`, with input, result, log and key (a key no sooner than rule 2
//!     allows), never before; cancelled jobs like failed ones.
//! 30. *a sweep is bounded*: it handles at most `limit` jobs and says whether there is more.
//!
//! End
//!
//! 31. *the end is heard*: `closed` waits while the queue works, and gives the reason once it takes nothing any more,
//!     also to those who ask later; `health` agrees with it.
//!
//! Bounds
//!
//! 32. *a log is bounded*: of all that the attempts of a job print, the first [`kvern_core::limits::LOG_BYTES_MAX`] bytes
//!     are kept, and once more comes, [`crate::log::LOG_IS_FULL`] after them. What is dropped is no error.
//! 33. *finished jobs take no more than they may*: where those of a function take more than `keep.bytes`, sweeps forget the
//!     oldest (by the end of their last attempt), of whatever outcome, until they do not; `stats` tells what they take.
//!
//! Forget
//!
//! 34. *a finished job is forgotten when told to*: `forget` does at once what a sweep does after `keep` (rule 29), and
//!     that is durable; any other job gives [`Error::WrongState`].

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use kvern_core::{FunctionName, Job, JobId, State};
use serde::{Deserialize, Serialize};
#[cfg(doc)]
use {crate::events::Event, crate::job::Idempotency, kvern_core::Next};

use crate::error::Error;
use crate::events::{Watch, Watcher};
use crate::job::{
    Ask, Cursor, Filter, Lease, LeaseState, LeaseToken, Leased, NewJob, Page, Retention, Settlement, Stats, Submitted,
    Swept, WorkerInfo,
};
use crate::payload::{Stage, Stored};

/// Holds jobs from acceptance until they are forgotten. The rules stand above.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// What a returned `submit` survives.
    fn durability(&self) -> Durability;

    /// A place for a payload of unknown size. Given also while there is no [`Queue::room`] for new jobs: what runs may
    /// store its result. Who stages an input asks for room first.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::NoSpace`].
    async fn stage(&self) -> Result<Box<dyn Stage>, Error>;

    /// Accepts a job; durable on return. Where the disk does not answer within [`kvern_core::limits::SUBMIT_WITHIN`], the
    /// answer is [`Error::Unknown`]: the job may be stored all the same once it does.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::KeyReused`], [`Error::NoSpace`], [`Error::Disk`], [`Error::Unknown`], [`Error::Closed`].
    async fn submit(&self, job: NewJob) -> Result<Submitted, Error>;

    /// Takes up to `max` jobs to run; an empty answer after `wait`. May be dropped (rule 11).
    ///
    /// # Errors
    /// [`Error::Closed`].
    async fn lease(&self, ask: Ask) -> Result<Vec<Leased>, Error>;

    /// Renews leases; one answer each, in order.
    ///
    /// # Errors
    /// [`Error::Closed`].
    async fn renew(&self, leases: &[LeaseToken]) -> Result<Vec<LeaseState>, Error>;

    /// Stores the end of an attempt and gives the state that the job has then. Must not be dropped midway. Where there
    /// was no room the lease stands, and the same settlement, with the same staged result, may be tried again.
    ///
    /// # Errors
    /// [`Error::StaleLease`], [`Error::NoSpace`], [`Error::Busy`], [`Error::Unknown`], [`Error::Closed`].
    async fn settle(&self, lease: Lease, settlement: Settlement) -> Result<State, Error>;

    /// Cancels a job and gives its record afterwards.
    ///
    /// # Errors
    /// [`Error::UnknownJob`], [`Error::WrongState`].
    async fn cancel(&self, id: JobId) -> Result<Job, Error>;

    /// Gives a failed or cancelled job another life and returns its record. The function's `max_queued` does not stop
    /// it.
    ///
    /// # Errors
    /// [`Error::UnknownJob`], [`Error::WrongState`].
    async fn retry(&self, id: JobId) -> Result<Job, Error>;

    /// Stops (`true`) or allows (`false`) new leases of a function; kept over restarts.
    ///
    /// # Errors
    /// [`Error::Closed`].
    async fn pause(&self, function: &FunctionName, paused: bool) -> Result<(), Error>;

    /// The record of a job.
    ///
    /// # Errors
    /// [`Error::UnknownJob`].
    async fn get(&self, id: JobId) -> Result<Job, Error>;

    /// The input of a job.
    ///
    /// # Errors
    /// [`Error::UnknownJob`], [`Error::Damaged`].
    async fn input(&self, id: JobId) -> Result<Stored, Error>;

    /// The result of a job that succeeded; none for any other.
    ///
    /// # Errors
    /// [`Error::UnknownJob`], [`Error::Damaged`].
    async fn result(&self, id: JobId) -> Result<Option<Stored>, Error>;

    /// A page of at most `limit` records (at least one, at most [`kvern_core::limits::PAGE_JOBS_MAX`]), in the order
    /// that [`Filter`] says.
    ///
    /// # Errors
    /// [`Error::BadCursor`].
    async fn list(&self, filter: &Filter, cursor: Option<&Cursor>, limit: usize) -> Result<Page, Error>;

    /// Counts.
    fn stats(&self) -> Stats;

    /// Moves of one job or of all. Subscribe, read the record, then wait.
    fn watch(&self, what: Watch) -> Watcher;

    /// Adds to the log of a running attempt. Need not be durable on return.
    ///
    /// # Errors
    /// [`Error::StaleLease`], [`Error::Closed`].
    async fn append_log(&self, lease: LeaseToken, bytes: Bytes) -> Result<(), Error>;

    /// At most `limit` bytes of a job's log from `offset`; empty at the end.
    ///
    /// # Errors
    /// [`Error::UnknownJob`].
    async fn read_log(&self, id: JobId, offset: u64, limit: usize) -> Result<Bytes, Error>;

    /// Says that a worker lives and what it runs.
    ///
    /// # Errors
    /// [`Error::Closed`].
    async fn announce(&self, worker: WorkerInfo) -> Result<(), Error>;

    /// The workers that live.
    ///
    /// # Errors
    /// [`Error::Closed`].
    async fn workers(&self) -> Result<Vec<WorkerInfo>, Error>;

    /// Expiry, then overdue leases, then retention: at most `limit` jobs in all. Jobs whose time has come are shown as
    /// queued afterwards; they do not count.
    ///
    /// # Errors
    /// [`Error::Closed`].
    async fn sweep(&self, retention: &Retention, limit: usize) -> Result<Swept, Error>;

    /// Forgets a finished job.
    ///
    /// # Errors
    /// [`Error::UnknownJob`], [`Error::WrongState`].
    async fn forget(&self, id: JobId) -> Result<(), Error>;

    /// Makes everything handed over durable, then refuses all further work. Idempotent.
    async fn close(&self);

    /// Waits until the queue takes nothing any more, and says why: it was closed, or it failed.
    async fn closed(&self) -> Error;

    /// Why the queue takes nothing any more, if so.
    fn health(&self) -> Result<(), Error>;

    /// Why any submit would be refused now, if so; for `/readyz`. Unlike the end, a want of room passes.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Disk`], [`Error::Closed`].
    fn room(&self) -> Result<(), Error> {
        self.health()
    }
}

/// What a returned submit survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Durability {
    /// A power cut: it is on disk.
    Fsync,
    /// The death of the process; a power cut may take the last seconds.
    Seconds,
    /// Nothing: it is in memory.
    Memory,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fsync => "fsync",
            Self::Seconds => "seconds",
            Self::Memory => "memory",
        })
    }
}
