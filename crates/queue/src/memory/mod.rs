//! The queue in memory: the executable specification of the contract.
//!
//! Obviously right rather than fast: one lock around plain maps, and every question is answered by a walk over all
//! jobs. Everything that an operation decides is in `store`, `leases` and `sweep`; here are the lock, the waiting and
//! the news.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use kvern_core::{FunctionName, Job, JobId, State};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::contract::{Durability, Queue};
use crate::error::Error;
use crate::events::{Hub, Watch, Watcher};
use crate::job::{
    Ask, Cursor, Filter, Lease, LeaseState, LeaseToken, Leased, NewJob, Page, Retention, Settlement, Stats, Submitted,
    Swept, WorkerInfo,
};
use crate::payload::{Payload, Stage, Stored};

use store::Store;

mod leases;
mod store;
mod sweep;

/// The longest wait of a lease, whatever was asked for: a date that no timer can hold is as good as never.
const WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(365 * 24 * 3600);

/// A queue that forgets everything with its process. For tests and simulations.
#[derive(Debug)]
pub struct MemoryQueue {
    clock: Clock,
    store: Mutex<Store>,
    hub: Hub,
    /// Told after every operation that may have made a job ready, or ready sooner.
    changed: Notify,
}

// === impl MemoryQueue ===

impl MemoryQueue {
    /// An empty queue.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, store: Mutex::new(Store::new()), hub: Hub::default(), changed: Notify::new() }
    }

    /// What a kill and a new start do to a durable queue: leases are over, running jobs wait again, and everything that
    /// was acknowledged is kept. Also opens a closed queue.
    pub fn reboot(&self) {
        let moved = {
            let mut store = self.lock();
            store.reboot(self.clock.now());
            store.take_moved()
        };
        self.tell(moved);
    }

    /// Keeps only so many bytes of a job's log: what a running attempt wrote last, a kill may take along.
    pub fn cut_log(&self, id: JobId, bytes: usize) {
        if let Some(entry) = self.lock().jobs.get_mut(&id) {
            entry.log.truncate(bytes);
        }
    }

    /// Takes the room for new jobs away, or gives it back: submits are refused meanwhile, and all else goes on.
    pub fn set_full(&self, is_full: bool) {
        self.lock().is_full = is_full;
    }

    /// Another queue that holds the same and goes its own way from here. Nobody watches it, and nobody waits for it.
    #[must_use]
    pub fn fork(&self) -> Self {
        let store = Mutex::new(self.lock().clone());
        Self { clock: self.clock.clone(), store, hub: Hub::default(), changed: Notify::new() }
    }

    /// Runs one operation on an open store in which every due job is queued, then tells what it moved.
    fn with<T>(&self, operation: impl FnOnce(&mut Store) -> Result<T, Error>) -> Result<T, Error> {
        let (given, moved) = {
            let mut store = self.lock();
            store.check_open()?;
            store.promote(self.clock.now());
            let given = operation(&mut store);
            (given, store.take_moved())
        };
        self.tell(moved);
        given
    }

    /// As [`Self::with`], for reads: they go on after a close.
    fn look<T>(&self, question: impl FnOnce(&Store) -> Result<T, Error>) -> Result<T, Error> {
        let (given, moved) = {
            let mut store = self.lock();
            store.promote(self.clock.now());
            let given = question(&store);
            (given, store.take_moved())
        };
        self.tell(moved);
        given
    }

    fn tell(&self, moved: Vec<(JobId, FunctionName, State)>) {
        // Only what matters to a waiting lease wakes it; else waiting leases would wake each other for ever.
        let is_ready_sooner = moved.iter().any(|(_, _, state)| matches!(state, State::Queued | State::Scheduled));
        for (id, function, state) in moved {
            self.hub.tell(id, &function, state);
        }
        if is_ready_sooner {
            self.changed.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        // An operation that panicked has not answered; what it left is still the best there is.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Queue for MemoryQueue {
    fn durability(&self) -> Durability {
        Durability::Memory
    }

    async fn stage(&self) -> Result<Box<dyn Stage>, Error> {
        self.with(|_| Ok(Box::new(MemoryStage::default()) as Box<dyn Stage>))
    }

    async fn submit(&self, job: NewJob) -> Result<Submitted, Error> {
        self.with(|store| store.submit(job, self.clock.now()))
    }

    async fn lease(&self, ask: Ask) -> Result<Vec<Leased>, Error> {
        let deadline = Instant::now() + ask.wait.min(WAIT_MAX);
        loop {
            // Made before the look, so a change in between is not missed.
            let changed = self.changed.notified();
            let (leased, due_at) = self.with(|store| {
                let leased = store.lease(&ask, self.clock.now(), self.clock.monotonic())?;
                Ok((leased, store.next_due(&ask)))
            })?;
            // Leases are taken and given within one poll: a caller that drops this future never holds one (rule 11).
            if !leased.is_empty() || Instant::now() >= deadline {
                return Ok(leased);
            }
            // Each arm only ends a wait, so any may be dropped.
            tokio::select! {
                () = changed => {}
                () = self.clock.reached(due_at) => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }

    async fn renew(&self, leases: &[LeaseToken]) -> Result<Vec<LeaseState>, Error> {
        let now = self.clock.monotonic();
        self.with(|store| Ok(leases.iter().map(|token| store.renew(*token, now)).collect()))
    }

    async fn settle(&self, lease: Lease, settlement: Settlement) -> Result<State, Error> {
        self.with(|store| store.settle(lease.token(), settlement, self.clock.now(), self.clock.monotonic()))
    }

    async fn cancel(&self, id: JobId) -> Result<Job, Error> {
        self.with(|store| store.cancel(id, self.clock.now()))
    }

    async fn retry(&self, id: JobId) -> Result<Job, Error> {
        self.with(|store| store.retry(id, self.clock.now()))
    }

    async fn pause(&self, function: &FunctionName, paused: bool) -> Result<(), Error> {
        self.with(|store| {
            store.pause(function, paused);
            Ok(())
        })?;
        self.changed.notify_waiters();
        Ok(())
    }

    async fn get(&self, id: JobId) -> Result<Job, Error> {
        self.look(|store| Ok(store.entry(id)?.job.clone()))
    }

    async fn input(&self, id: JobId) -> Result<Stored, Error> {
        self.look(|store| {
            let entry = store.entry(id)?;
            Ok(Stored { content_type: entry.job.content_type.clone(), payload: entry.input.clone() })
        })
    }

    async fn result(&self, id: JobId) -> Result<Option<Stored>, Error> {
        self.look(|store| Ok(store.entry(id)?.result.clone()))
    }

    async fn list(&self, filter: &Filter, cursor: Option<&Cursor>, limit: usize) -> Result<Page, Error> {
        self.look(|store| store.list(filter, cursor, limit))
    }

    fn stats(&self) -> Stats {
        self.look(|store| Ok(store.stats())).unwrap_or_default()
    }

    fn watch(&self, what: Watch) -> Watcher {
        self.hub.watch(what)
    }

    async fn append_log(&self, lease: LeaseToken, bytes: Bytes) -> Result<(), Error> {
        self.with(|store| store.append_log(lease, &bytes, self.clock.monotonic()))
    }

    async fn read_log(&self, id: JobId, offset: u64, limit: usize) -> Result<Bytes, Error> {
        self.look(|store| {
            let log = &store.entry(id)?.log;
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(log.len());
            let to = from.saturating_add(limit).min(log.len());
            Ok(Bytes::copy_from_slice(&log[from..to]))
        })
    }

    async fn announce(&self, worker: WorkerInfo) -> Result<(), Error> {
        self.with(|store| {
            store.announce(worker, self.clock.now(), self.clock.monotonic());
            Ok(())
        })
    }

    async fn workers(&self) -> Result<Vec<WorkerInfo>, Error> {
        self.with(|store| Ok(store.workers(self.clock.monotonic())))
    }

    async fn sweep(&self, retention: &Retention, limit: usize) -> Result<Swept, Error> {
        self.with(|store| store.sweep(retention, limit, self.clock.now(), self.clock.monotonic()))
    }

    async fn forget(&self, id: JobId) -> Result<(), Error> {
        self.with(|store| store.forget_finished(id))
    }

    async fn close(&self) {
        self.lock().close();
        self.changed.notify_waiters();
    }

    async fn closed(&self) -> Error {
        loop {
            let changed = self.changed.notified();
            if let Err(why) = self.health() {
                return why;
            }
            changed.await;
        }
    }

    fn health(&self) -> Result<(), Error> {
        self.lock().check_open()
    }

    fn room(&self) -> Result<(), Error> {
        let store = self.lock();
        store.check_open()?;
        store.check_room()
    }
}

/// A payload on its way: always inline, for there is no disk here.
#[derive(Debug, Default)]
struct MemoryStage(BytesMut);

#[async_trait]
impl Stage for MemoryStage {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.0.extend_from_slice(&bytes);
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.0.len() as u64
    }

    async fn finish(self: Box<Self>) -> Result<Payload, Error> {
        Ok(Payload::Inline(self.0.freeze()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::conformance::setup::{EPOCH, ask, job};

    #[tokio::test]
    async fn a_close_ends_a_waiting_lease_and_everything_but_reading() {
        let queue = MemoryQueue::new(Clock::manual(EPOCH));
        let id = queue.submit(job("f")).await.expect("accepted").id;
        let mut lease = std::pin::pin!(queue.lease(ask(&[("g", 1)], 1, Duration::from_secs(60))));
        tokio::select! {
            biased;
            leased = &mut lease => panic!("the lease did not wait but gave {leased:?}"),
            () = queue.close() => {}
        }
        assert!(matches!(lease.await, Err(Error::Closed(_))));
        assert!(matches!(queue.submit(job("f")).await, Err(Error::Closed(_))));
        assert!(matches!(queue.health(), Err(Error::Closed(_))));
        assert!(queue.get(id).await.is_ok());
        queue.reboot();
        assert!(queue.health().is_ok() && queue.submit(job("f")).await.is_ok());
    }

    /// With the machine's clock the timer of a due job is tokio's.
    #[tokio::test]
    async fn a_due_job_wakes_a_lease_on_the_system_clock() {
        let clock = Clock::system();
        let queue = MemoryQueue::new(clock.clone());
        let due_at = clock.now().after(Duration::from_millis(30));
        let id = queue.submit(NewJob { not_before: Some(due_at), ..job("f") }).await.expect("accepted").id;
        let leased = queue.lease(ask(&[("f", 1)], 1, Duration::from_secs(60))).await.expect("leases");
        assert_eq!(leased.iter().map(|one| one.job.id).collect::<Vec<_>>(), [id]);
        assert!(clock.now() >= due_at);
    }
}
