//! The queue in memory behind a slow disk that sometimes fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kvern_core::{FunctionName, Job, JobId, State};
use kvern_queue::{
    Ask, Cursor, Durability, Error, Filter, Lease, LeaseState, LeaseToken, Leased, MemoryQueue, NewJob, Page, Queue,
    Retention, Settlement, Stage, Stats, Stored, Submitted, Swept, Watch, Watcher, WorkerInfo,
};
use kvern_runtime::Fake;
use tokio::time::sleep;

use super::dice::Dice;
use super::judge::Judge;

/// Delays what the worker asks, and loses some of it.
pub(crate) struct FaultyQueue {
    pub(crate) inner: Arc<MemoryQueue>,
    pub(crate) dice: Dice,
    pub(crate) judge: Judge,
    /// In a hundred.
    pub(crate) faults: u32,
    pub(crate) slowness: Duration,
    /// Before a settlement is stored.
    pub(crate) settles_take: Duration,
    /// Whether there is no room for settlements, sweeps and large inputs of calls.
    pub(crate) is_full: Arc<AtomicBool>,
    /// Whether large results cannot be staged.
    pub(crate) is_scarce: Arc<AtomicBool>,
    /// Whether there is room for outcomes only: none for large results or new jobs.
    pub(crate) is_low: Arc<AtomicBool>,
    /// Whether it cannot be reached: what is asked comes to nothing, or its answer does.
    pub(crate) is_away: Arc<AtomicBool>,
}

impl FaultyQueue {
    /// No faults, but a disk that takes this long for each settlement.
    pub(crate) fn slow(inner: Arc<MemoryQueue>, settles_take: Duration) -> Self {
        let dice = Dice::new(0);
        let judge = Judge::new(Fake::new(), Arc::clone(&inner), dice.clone());
        Self {
            inner,
            dice,
            judge,
            faults: 0,
            slowness: Duration::ZERO,
            settles_take,
            is_full: Arc::default(),
            is_scarce: Arc::default(),
            is_low: Arc::default(),
            is_away: Arc::default(),
        }
    }

    /// No faults, but no room for settlements while this says so.
    pub(crate) fn full(inner: Arc<MemoryQueue>, is_full: Arc<AtomicBool>) -> Self {
        Self { is_full, ..Self::slow(inner, Duration::ZERO) }
    }

    /// No faults, but no open files for large results while this says so.
    pub(crate) fn scarce(inner: Arc<MemoryQueue>, is_scarce: Arc<AtomicBool>) -> Self {
        Self { is_scarce, ..Self::slow(inner, Duration::ZERO) }
    }

    /// No faults, but room for outcomes only while this says so.
    pub(crate) fn low(inner: Arc<MemoryQueue>, is_low: Arc<AtomicBool>) -> Self {
        Self { is_low, ..Self::slow(inner, Duration::ZERO) }
    }

    fn reach(&self) -> Result<(), Error> {
        let is_away = self.is_away.load(Ordering::Relaxed);
        if is_away { Err(Error::Broken("a queue that cannot be reached".to_owned())) } else { Ok(()) }
    }

    async fn delay(&self) {
        if !self.slowness.is_zero() {
            sleep(self.dice.up_to(self.slowness)).await;
        }
    }
}

#[async_trait]
impl Queue for FaultyQueue {
    fn durability(&self) -> Durability {
        self.inner.durability()
    }

    async fn stage(&self) -> Result<Box<dyn Stage>, Error> {
        if self.is_scarce.load(Ordering::Relaxed) {
            return Err(Error::Busy("too many open files".to_owned()));
        }
        self.room()?;
        self.inner.stage().await
    }

    async fn submit(&self, job: NewJob) -> Result<Submitted, Error> {
        self.inner.submit(job).await
    }

    async fn lease(&self, ask: Ask) -> Result<Vec<Leased>, Error> {
        if self.dice.percent(self.faults) {
            return Err(Error::Broken("a lost connection".to_owned()));
        }
        // Before the lease: rule 11 allows a drop at any time.
        self.delay().await;
        self.reach()?;
        let leased = self.inner.lease(ask).await?;
        // Given, and nobody hears of it: such a lease runs out.
        self.reach().inspect_err(|_| leased.iter().for_each(|leased| self.judge.excuse(leased.job.id)))?;
        Ok(leased)
    }

    async fn renew(&self, leases: &[LeaseToken]) -> Result<Vec<LeaseState>, Error> {
        if self.dice.percent(self.faults) {
            return Err(Error::Broken("a lost connection".to_owned()));
        }
        self.delay().await;
        self.reach()?;
        self.inner.renew(leases).await
    }

    async fn settle(&self, lease: Lease, settlement: Settlement) -> Result<State, Error> {
        self.delay().await;
        sleep(self.settles_take).await;
        if self.is_full.load(Ordering::Relaxed) {
            return Err(Error::NoSpace("a full disk".to_owned()));
        }
        if self.dice.percent(self.faults) {
            let why = "nothing was stored".to_owned();
            return Err(if self.dice.percent(50) { Error::NoSpace(why) } else { Error::Busy(why) });
        }
        self.reach()?;
        let job = lease.token().job;
        let fault = self.dice.percent(self.faults);
        if fault && self.dice.percent(50) {
            self.judge.excuse(job);
            return Err(Error::Unknown("a failed write".to_owned()));
        }
        let state = self.inner.settle(lease, settlement).await;
        self.delay().await;
        if fault { Err(Error::Unknown("a lost answer".to_owned())) } else { state }
    }

    async fn cancel(&self, id: JobId) -> Result<Job, Error> {
        self.inner.cancel(id).await
    }

    async fn retry(&self, id: JobId) -> Result<Job, Error> {
        self.inner.retry(id).await
    }

    async fn forget(&self, id: JobId) -> Result<(), Error> {
        self.inner.forget(id).await
    }

    async fn pause(&self, function: &FunctionName, paused: bool) -> Result<(), Error> {
        self.inner.pause(function, paused).await
    }

    async fn get(&self, id: JobId) -> Result<Job, Error> {
        self.inner.get(id).await
    }

    async fn input(&self, id: JobId) -> Result<Stored, Error> {
        self.inner.input(id).await
    }

    async fn result(&self, id: JobId) -> Result<Option<Stored>, Error> {
        self.inner.result(id).await
    }

    async fn list(&self, filter: &Filter, cursor: Option<&Cursor>, limit: usize) -> Result<Page, Error> {
        self.inner.list(filter, cursor, limit).await
    }

    fn stats(&self) -> Stats {
        self.inner.stats()
    }

    fn watch(&self, what: Watch) -> Watcher {
        self.inner.watch(what)
    }

    async fn append_log(&self, lease: LeaseToken, bytes: Bytes) -> Result<(), Error> {
        self.delay().await;
        self.reach()?;
        self.inner.append_log(lease, bytes).await
    }

    async fn read_log(&self, id: JobId, offset: u64, limit: usize) -> Result<Bytes, Error> {
        self.inner.read_log(id, offset, limit).await
    }

    async fn announce(&self, worker: WorkerInfo) -> Result<(), Error> {
        self.inner.announce(worker).await
    }

    async fn workers(&self) -> Result<Vec<WorkerInfo>, Error> {
        self.inner.workers().await
    }

    async fn sweep(&self, retention: &Retention, limit: usize) -> Result<Swept, Error> {
        if self.is_full.load(Ordering::Relaxed) {
            return Err(Error::NoSpace("a full disk".to_owned()));
        }
        self.reach()?;
        self.inner.sweep(retention, limit).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }

    async fn closed(&self) -> Error {
        self.inner.closed().await
    }

    fn health(&self) -> Result<(), Error> {
        self.inner.health()
    }

    fn room(&self) -> Result<(), Error> {
        match self.is_low.load(Ordering::Relaxed) || self.is_full.load(Ordering::Relaxed) {
            true => Err(Error::NoSpace("a full disk".to_owned())),
            false => self.inner.room(),
        }
    }
}
