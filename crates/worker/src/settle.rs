//! Settlements under way: handed over by turns, owned here until the queue has stored them.
//!
//! A turn goes on to its next job once its settlement is handed over, not once it is on disk. Each one keeps its lease
//! renewed until then, and there are never more than a bounded number. One that the queue has no room for is tried again
//! for as long as that lasts ([`crate::backlog`]): its attempt is over, and to run the job again would mend nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use kvern_core::limits::SETTLEMENTS_UNSYNCED_MAX;
use kvern_core::{FunctionName, Outcome, State};
use kvern_queue::{Error, Lease, Queue, Settlement};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::attempt::catch_panic;
use crate::backlog::Backlog;
use crate::heartbeat::Holding;
use crate::observer::{Observer, Settled, Times};

/// Owns the settlements that are not stored yet.
pub(crate) struct Settlements {
    queue: Arc<dyn Queue>,
    observer: Arc<dyn Observer>,
    permits: Arc<Semaphore>,
    tasks: TaskTracker,
    pub(crate) backlog: Backlog,
    complained: AtomicBool,
    finished: AtomicUsize,
    released: AtomicUsize,
}

/// What is told of a settlement once it is stored.
pub(crate) struct Note {
    pub(crate) function: FunctionName,
    pub(crate) attempt: u32,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) times: Option<Times>,
}

// === impl Settlements ===

impl Settlements {
    pub(crate) fn new(queue: Arc<dyn Queue>, observer: Arc<dyn Observer>) -> Self {
        Self {
            queue,
            observer,
            permits: Arc::new(Semaphore::new(SETTLEMENTS_UNSYNCED_MAX)),
            tasks: TaskTracker::new(),
            backlog: Backlog::default(),
            complained: AtomicBool::new(false),
            finished: AtomicUsize::new(0),
            released: AtomicUsize::new(0),
        }
    }

    /// Hands a settlement over. Waits only while too many others are not stored yet. Dropped while it waits, it leaves
    /// the job to the end of its lease. Gives what ends when it is stored, or was refused.
    pub(crate) async fn hand_over(
        self: &Arc<Self>,
        lease: Lease,
        holding: Holding,
        settlement: Settlement,
        note: Note,
    ) -> JoinHandle<()> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        let settlements = Arc::clone(self);
        self.tasks.spawn(async move {
            let job = lease.token().job;
            let stored = catch_panic(settlements.store(lease, settlement)).await;
            match stored {
                Ok(result) => settlements.tell(job, &note, result),
                Err(panic) => tracing::error!(%job, panic, "a settlement panicked"),
            }
            // The lease is renewed and the permit taken up to here.
            drop((holding, permit));
        })
    }

    /// Attempts that were stored with an outcome, and jobs that were released, so far.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.finished.load(Ordering::Relaxed), self.released.load(Ordering::Relaxed))
    }

    /// Settlements that are not stored yet.
    pub(crate) fn under_way(&self) -> usize {
        self.tasks.len()
    }

    /// Returns when all are stored. No more may be handed over once this is called.
    pub(crate) async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Stores a settlement, however long there is no room for it. Any other refusal is the last word.
    async fn store(&self, lease: Lease, settlement: Settlement) -> Result<State, Error> {
        let token = lease.token();
        let mut stored = self.queue.settle(lease, settlement.clone()).await;
        let Some(error) = no_room(&stored) else { return stored };
        let mut waiting = self.backlog.join(error);
        while no_room(&stored).is_some() {
            waiting.pause().await;
            // Nothing was stored, so this is still the one lease of this token.
            stored = self.queue.settle(Lease::new(token), settlement.clone()).await;
        }
        stored
    }

    fn tell(&self, job: kvern_core::JobId, note: &Note, result: Result<State, Error>) {
        match result {
            Ok(state) => {
                let count = if note.outcome.is_some() { &self.finished } else { &self.released };
                count.fetch_add(1, Ordering::Relaxed);
                self.complained.store(false, Ordering::Relaxed);
                self.observer.job_settled(&Settled {
                    job,
                    function: &note.function,
                    attempt: note.attempt,
                    outcome: note.outcome.as_ref(),
                    state,
                    times: note.times,
                });
            }
            Err(error) => {
                self.log(job, &error);
                self.observer.settlement_failed(job, &error);
            }
        }
    }

    fn log(&self, job: kvern_core::JobId, error: &Error) {
        if matches!(error, Error::StaleLease(_)) {
            tracing::info!(job_id = %job, "the outcome was refused: another attempt owns the job");
        } else if matches!(error, Error::Unknown(_)) {
            tracing::warn!(job_id = %job, %error, "whether an outcome was stored is unknown; if not, its job runs again");
        } else if !self.complained.swap(true, Ordering::Relaxed) {
            tracing::error!(job_id = %job, %error, "an outcome could not be stored; its job runs again later");
        }
    }
}

/// Why nothing was stored, if that is for want of something that comes back.
fn no_room<T>(stored: &Result<T, Error>) -> Option<&Error> {
    stored.as_ref().err().filter(|error| matches!(error, Error::NoSpace(_) | Error::Busy(_)))
}
