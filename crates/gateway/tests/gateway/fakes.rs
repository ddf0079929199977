//! A queue that can be told to fail or to hold, and functions that answer as the test says.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use kvern_core::{FunctionName, Job, JobId, State};
use kvern_queue::{
    Ask, Cursor, Durability, Error, Filter, Lease, LeaseState, LeaseToken, Leased, MemoryQueue, NewJob, Page, Queue,
    Retention, Settlement, Stage, Stats, Stored, Submitted, Swept, Watch, Watcher, WorkerInfo,
};
use kvern_runtime::{Body, Call, CallError, Invoke, Reply};
use tokio::sync::Semaphore;

/// The queue in memory, with the faults of a real one.
pub(crate) struct Rigged {
    pub(crate) inner: MemoryQueue,
    /// What the next operations answer instead: submits, reads and lists take from the front.
    pub(crate) faults: Mutex<VecDeque<Error>>,
    /// What every result is instead.
    pub(crate) result: Mutex<Option<Stored>>,
    /// Submits take a permit; a test takes all of them to hold submits.
    pub(crate) gate: Semaphore,
    /// Why it takes nothing any more.
    pub(crate) illness: Mutex<Option<Error>>,
    /// Why it takes no job for now.
    pub(crate) tightness: Mutex<Option<Error>>,
}

/// Permits of the gate: as many submits may run at once.
pub(crate) const GATE: u32 = 1000;

/// What a function does with a call.
pub(crate) type Play = Arc<dyn Fn(Call) -> BoxFuture<'static, Result<Reply, CallError>> + Send + Sync>;

/// Calls, played by the test.
pub(crate) struct Theatre {
    pub(crate) play: Mutex<Play>,
}

// === impl Rigged ===

impl Rigged {
    pub(crate) fn new(inner: MemoryQueue) -> Self {
        Self {
            inner,
            faults: Mutex::default(),
            result: Mutex::default(),
            gate: Semaphore::new(GATE as usize),
            illness: Mutex::default(),
            tightness: Mutex::default(),
        }
    }

    /// Makes the next operation fail.
    pub(crate) fn fail_next(&self, error: Error) {
        self.faults.lock().expect("no test panics in here").push_back(error);
    }

    fn fault(&self) -> Result<(), Error> {
        self.faults.lock().expect("no test panics in here").pop_front().map_or(Ok(()), Err)
    }
}

#[async_trait]
impl Queue for Rigged {
    fn durability(&self) -> Durability {
        self.inner.durability()
    }

    async fn stage(&self) -> Result<Box<dyn Stage>, Error> {
        self.inner.stage().await
    }

    async fn submit(&self, job: NewJob) -> Result<Submitted, Error> {
        let _permit = self.gate.acquire().await.expect("the gate is never closed");
        self.fault()?;
        self.inner.submit(job).await
    }

    async fn lease(&self, ask: Ask) -> Result<Vec<Leased>, Error> {
        self.inner.lease(ask).await
    }

    async fn renew(&self, leases: &[LeaseToken]) -> Result<Vec<LeaseState>, Error> {
        self.inner.renew(leases).await
    }

    async fn settle(&self, lease: Lease, settlement: Settlement) -> Result<State, Error> {
        self.inner.settle(lease, settlement).await
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
        self.fault()?;
        self.inner.get(id).await
    }

    async fn input(&self, id: JobId) -> Result<Stored, Error> {
        self.fault()?;
        self.inner.input(id).await
    }

    async fn result(&self, id: JobId) -> Result<Option<Stored>, Error> {
        let instead = self.result.lock().expect("no test panics in here").clone();
        if instead.is_some() { Ok(instead) } else { self.inner.result(id).await }
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
        self.inner.sweep(retention, limit).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }

    async fn closed(&self) -> Error {
        self.inner.closed().await
    }

    fn health(&self) -> Result<(), Error> {
        self.illness.lock().expect("no test panics in here").clone().map_or(Ok(()), Err)
    }

    fn room(&self) -> Result<(), Error> {
        self.health()?;
        self.tightness.lock().expect("no test panics in here").clone().map_or(Ok(()), Err)
    }
}

// === impl Theatre ===

impl Theatre {
    /// A function that gives its input back.
    pub(crate) fn echo() -> Self {
        let play: Play = Arc::new(|call| {
            Box::pin(async move {
                let content_type = call.content_type.unwrap_or_default();
                Ok(Reply { status: None, content_type, body: call.body })
            })
        });
        Self { play: Mutex::new(play) }
    }
}

#[async_trait]
impl Invoke for Theatre {
    async fn call(&self, call: Call) -> Result<Reply, CallError> {
        let play = Arc::clone(&*self.play.lock().expect("no test panics in here"));
        play(call).await
    }
}

/// All bytes of a body.
pub(crate) async fn collect(body: Body) -> std::io::Result<Vec<u8>> {
    use futures_util::TryStreamExt;
    match body {
        Body::Bytes(bytes) => Ok(bytes.to_vec()),
        Body::File(path, _) => tokio::fs::read(path).await,
        Body::Stream(stream) => {
            stream
                .try_fold(Vec::new(), async |mut all, piece| {
                    all.extend_from_slice(&piece);
                    Ok(all)
                })
                .await
        }
    }
}
