//! The queue as its callers see it: each method checks what memory knows and hands the rest to the writer or a reader.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kvern_core::limits::{LEASE_TTL, SUBMIT_WITHIN};
use kvern_core::{FunctionName, Job, JobId, State};
use kvern_queue::{
    Ask, Cursor, Durability, Error, Filter, Lease, LeaseState, LeaseToken, Leased, NewJob, Page, Queue, Retention,
    Settlement, Stage, Stats, Stored, Submitted, Swept, Watch, Watcher, WorkerInfo, record,
};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::commits::CommitStats;
use crate::forget::Forget;
use crate::inbox::{End, Inbox};
use crate::lease;
use crate::list;
use crate::log::AppendLog;
use crate::long::MarkLong;
use crate::operation::Operation;
use crate::pause::Pause;
use crate::pulse::silent;
use crate::read::{self, Readers};
use crate::redirect::{Redirect, Way};
use crate::scrub::Scrub;
use crate::settle::{Settle, Started};
use crate::shared::Shared;
use crate::submit::{Submit, inline_bytes};
use crate::sweep::Sweep;
use crate::window::Ready;

/// The database in a data directory.
pub const DATABASE_FILE: &str = "queue.db";
/// The longest that a renewal waits until long attempts are marked.
const MARKED_WITHIN: Duration = Duration::from_secs(1);
const _: () =
    assert!(MARKED_WITHIN.as_millis() * 4 < LEASE_TTL.as_millis(), "renewals come often enough on a disk that hangs");

/// The embedded queue.
#[derive(Debug)]
pub struct SqliteQueue {
    pub(crate) shared: Arc<Shared>,
    pub(crate) readers: Readers,
    pub(crate) writer: Mutex<Option<JoinHandle<()>>>,
    pub(crate) scrub: Mutex<Option<Scrub>>,
}

impl SqliteQueue {
    /// What the commits cost so far.
    #[must_use]
    pub fn commits(&self) -> CommitStats {
        self.shared.commits.stats()
    }

    /// The folder of large payloads.
    #[must_use]
    pub fn blobs(&self) -> &Path {
        self.shared.blobs.dir()
    }

    /// Stops as a kill would: nothing that waits is written, nothing is flushed. For tests.
    #[doc(hidden)]
    pub fn crash(&self) {
        self.end(End::Abort, "it was killed");
    }

    fn end(&self, end: End, why: &str) {
        self.shared.memory().close(Error::Closed(why.to_owned()));
        self.shared.inbox.end(end);
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A writer that panicked has said so; there is nothing left to wait for.
        let _ = writer.map(JoinHandle::join);
        drop(self.take_scrub());
    }

    fn take_scrub(&self) -> Option<Scrub> {
        self.scrub.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&rusqlite::Connection, &Shared) -> rusqlite::Result<Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let shared = Arc::clone(&self.shared);
        self.readers.read(move |connection| question(connection, &shared)).await
    }

    async fn redirect(&self, id: JobId, to: Way) -> Result<Job, Error> {
        self.shared.memory().check_open()?;
        self.shared.ask(0, |answer| Operation::Redirect(Redirect { id, to, answer })).await?;
        self.get(id).await
    }
}

#[async_trait]
impl Queue for SqliteQueue {
    fn durability(&self) -> Durability {
        Durability::Fsync
    }

    async fn stage(&self) -> Result<Box<dyn Stage>, Error> {
        self.shared.memory().check_open()?;
        Ok(Box::new(self.shared.blobs.stage()))
    }

    async fn submit(&self, job: NewJob) -> Result<Submitted, Error> {
        self.shared.pulse.check()?;
        let room = self.shared.inbox.take_room(Inbox::units(inline_bytes(&job.input)));
        timeout(SUBMIT_WITHIN, room).await.map_err(|_| silent(SUBMIT_WITHIN))?;
        let (answer, answered) = oneshot::channel();
        let units = Inbox::units(inline_bytes(&job.input)) as usize;
        match Submit::new(job, &self.shared.blobs, answer) {
            Ok(submit) => self.shared.push(Operation::Submit(Box::new(submit)))?,
            Err(error) => {
                self.shared.inbox.give_back(units);
                return Err(error);
            }
        }
        // Who goes away leaves the job to the writer: it is stored once the disk answers, if it ever does.
        let answered = timeout(SUBMIT_WITHIN, self.shared.answered(answered)).await;
        answered.unwrap_or_else(|_| Err(Error::Unknown(silent(SUBMIT_WITHIN).to_string())))
    }

    async fn lease(&self, ask: Ask) -> Result<Vec<Leased>, Error> {
        lease::lease(&self.shared, ask).await
    }

    async fn renew(&self, leases: &[LeaseToken]) -> Result<Vec<LeaseState>, Error> {
        let monotonic = self.shared.clock.monotonic();
        let mut long = Vec::new();
        let states = {
            let mut memory = self.shared.memory();
            memory.check_open()?;
            let renew = |token: &LeaseToken| {
                let renewed = memory.renew(*token, monotonic);
                long.extend(renewed.is_long_now.then_some(*token));
                renewed.state
            };
            leases.iter().map(renew).collect()
        };
        if !long.is_empty() {
            // The leases stand whatever comes of this; only what a crash would count depends on it. So nobody waits for
            // a disk that hangs: whoever hears nothing of a lease for long gives it up.
            let marking = self.shared.ask(0, |answer| Operation::MarkLong(MarkLong { leases: long, answer }));
            let marked = timeout(MARKED_WITHIN, marking).await;
            let marked = marked.unwrap_or_else(|_| Err(silent(MARKED_WITHIN)));
            // Every renewal tries again, so it is said once.
            let was_broken = self.shared.is_marking_broken.swap(marked.is_err(), Ordering::Relaxed);
            if let (Err(error), false) = (marked, was_broken) {
                tracing::warn!(%error, "long attempts cannot be marked");
            }
        }
        Ok(states)
    }

    async fn settle(&self, lease: Lease, settlement: Settlement) -> Result<State, Error> {
        let token = lease.token();
        let bytes = match &settlement {
            Settlement::Finish { result, log, .. } => {
                result.as_ref().map_or(0, |(_, payload)| inline_bytes(payload)) + log.len()
            }
            Settlement::Release => 0,
        };
        let units = Inbox::units(bytes);
        self.shared.inbox.take_room(units).await;
        // From here to the hand-over nothing waits, so a dropped call either has settled or has changed nothing.
        match self.prepare(token, settlement) {
            Ok(Prepared::Done(state)) => {
                self.shared.inbox.give_back(units as usize);
                Ok(state)
            }
            Ok(Prepared::Waits(settle, answered)) => {
                self.shared.push(Operation::Settle(settle))?;
                self.shared.answered(answered).await
            }
            Err(error) => {
                self.shared.inbox.give_back(units as usize);
                Err(error)
            }
        }
    }

    async fn cancel(&self, id: JobId) -> Result<Job, Error> {
        self.redirect(id, Way::Cancel).await
    }

    async fn retry(&self, id: JobId) -> Result<Job, Error> {
        self.redirect(id, Way::Retry).await
    }

    async fn pause(&self, function: &FunctionName, paused: bool) -> Result<(), Error> {
        let function = function.clone();
        self.shared.ask(0, |answer| Operation::Pause(Pause { function, paused, answer })).await
    }

    async fn get(&self, id: JobId) -> Result<Job, Error> {
        self.read(move |connection, shared| read::get(connection, shared, id)).await
    }

    async fn input(&self, id: JobId) -> Result<Stored, Error> {
        self.read(move |connection, shared| read::input(connection, shared, id)).await
    }

    async fn result(&self, id: JobId) -> Result<Option<Stored>, Error> {
        self.read(move |connection, shared| read::result(connection, shared, id)).await
    }

    async fn list(&self, filter: &Filter, cursor: Option<&Cursor>, limit: usize) -> Result<Page, Error> {
        let before = list::start(filter, cursor)?;
        let filter = filter.clone();
        self.read(move |connection, shared| list::page(connection, shared, &filter, before, limit).map(Ok)).await
    }

    fn stats(&self) -> Stats {
        self.shared.memory().stats()
    }

    fn watch(&self, what: Watch) -> Watcher {
        self.shared.hub.watch(what)
    }

    async fn append_log(&self, lease: LeaseToken, bytes: Bytes) -> Result<(), Error> {
        let monotonic = self.shared.clock.monotonic();
        {
            let mut memory = self.shared.memory();
            memory.check_open()?;
            memory.held(lease, monotonic)?;
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let carried = bytes.len();
        self.shared.ask(carried, |answer| Operation::AppendLog(AppendLog { token: lease, bytes, answer })).await
    }

    async fn read_log(&self, id: JobId, offset: u64, limit: usize) -> Result<Bytes, Error> {
        self.read(move |connection, _| read::log(connection, id, offset, limit)).await
    }

    async fn announce(&self, worker: WorkerInfo) -> Result<(), Error> {
        let (now, monotonic) = (self.shared.clock.now(), self.shared.clock.monotonic());
        let mut memory = self.shared.memory();
        memory.check_open()?;
        memory.announce(worker, now, monotonic);
        Ok(())
    }

    async fn workers(&self) -> Result<Vec<WorkerInfo>, Error> {
        let monotonic = self.shared.clock.monotonic();
        let mut memory = self.shared.memory();
        memory.check_open()?;
        Ok(memory.workers(monotonic))
    }

    async fn sweep(&self, retention: &Retention, limit: usize) -> Result<Swept, Error> {
        let retention = retention.clone();
        self.shared.ask(0, |answer| Operation::Sweep(Sweep { retention, limit, answer })).await
    }

    async fn forget(&self, id: JobId) -> Result<(), Error> {
        self.shared.memory().check_open()?;
        self.shared.ask(0, |answer| Operation::Forget(Forget { id, answer })).await
    }

    async fn close(&self) {
        self.shared.memory().close(Error::Closed("it was asked to close".to_owned()));
        self.shared.inbox.end(End::Drain);
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let scrub = self.take_scrub();
        if let Some(writer) = writer {
            // The threads end after their last commit or read; waiting for that is not for a worker of the runtime.
            let _ = tokio::task::spawn_blocking(move || {
                drop(scrub);
                writer.join()
            })
            .await;
        }
    }

    async fn closed(&self) -> Error {
        loop {
            // Listens before it looks, so that no end between the two is missed.
            let closing = self.shared.memory().closing();
            if let Err(why) = self.health() {
                return why;
            }
            closing.await;
        }
    }

    fn health(&self) -> Result<(), Error> {
        self.shared.memory().check_open()
    }

    fn room(&self) -> Result<(), Error> {
        self.shared.room()
    }
}

/// A settlement before it goes to the writer.
enum Prepared {
    /// There was nothing to write.
    Done(State),
    Waits(Box<Settle>, oneshot::Receiver<Result<State, Error>>),
}

impl SqliteQueue {
    fn prepare(&self, token: LeaseToken, settlement: Settlement) -> Result<Prepared, Error> {
        let (now, monotonic) = (self.shared.clock.now(), self.shared.clock.monotonic());
        let started = {
            let mut memory = self.shared.memory();
            memory.check_open()?;
            let running = memory.held(token, monotonic)?;
            running.is_settling = true;
            Started::of(running)
        };
        if matches!(settlement, Settlement::Release) && started.is_only_in_memory() && self.release(token) {
            return Ok(Prepared::Done(State::Queued));
        }
        let (answer, answered) = oneshot::channel();
        let settle = Settle::new(token, &started, settlement, now, &self.shared.blobs, answer);
        match settle {
            Ok(settle) => Ok(Prepared::Waits(Box::new(settle), answered)),
            Err(error) => {
                // Nothing was settled, so the attempt goes on.
                if let Ok(running) = self.shared.memory().running.get_mut(&token.job).ok_or(()) {
                    running.is_settling = false;
                }
                Err(error)
            }
        }
    }

    /// A lease given back, of which the database knew nothing. False if a cancel came in between.
    fn release(&self, token: LeaseToken) -> bool {
        let now = self.shared.clock.now();
        let moved = {
            let mut memory = self.shared.memory();
            let running = memory.running.get(&token.job);
            if running.is_none_or(|running| running.is_cancelling || running.job.cancel_requested) {
                return false;
            }
            let Some(mut running) = memory.end(token.job) else { return false };
            let job = Arc::make_mut(&mut running.job);
            if record::release(job, running.started_before, now).is_err() {
                return false;
            }
            let moved = (job.id, job.function.clone(), job.state);
            memory.put_back(running.function, Ready { job: running.job, input: running.input });
            moved
        };
        self.shared.tell(&[moved]);
        true
    }
}

impl Drop for SqliteQueue {
    fn drop(&mut self) {
        self.end(End::Drain, "it was dropped");
    }
}

/// Where the database of a data directory is.
pub(crate) fn database(dir: &Path) -> PathBuf {
    dir.join(DATABASE_FILE)
}
