//! What a gateway has for workers that are other processes: its queue on a socket, calls as jobs, and its house kept.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kvern_core::FunctionName;
use kvern_gateway::{Condition, Conditions, Metrics, Workers};
use kvern_queue::{Clock, Queue, Retention};
use kvern_queue_socket::{Ended, Hears, Server, Socket, SocketError, Stop as Stopping};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::calls::{Declared, QueuedCalls};
use crate::exit::{Code, Stop};

/// While the last attempts end, their count is read this often.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// Of the time to stop, this much is left for what follows the last attempt.
const REST: Duration = Duration::from_secs(1);

/// The side that faces workers.
pub(super) struct Side {
    queue: Arc<dyn Queue>,
    server: Arc<Server>,
    socket: Socket,
    pub(super) calls: Arc<QueuedCalls>,
    declared: watch::Receiver<Declared>,
    leased: Arc<Notify>,
}

/// It serves.
pub(super) struct Serving {
    queue: Arc<dyn Queue>,
    calls: Arc<QueuedCalls>,
    stopping: Stopping,
    server: JoinHandle<()>,
    sweeper: JoinHandle<()>,
}

/// Counts what workers tell.
struct Counter {
    metrics: Arc<Metrics>,
    leased: Arc<Notify>,
}

// === impl Side ===

impl Side {
    /// Listens on the socket. Nobody is served yet.
    pub(super) async fn open(
        queue: &Arc<dyn Queue>,
        socket: &Path,
        data: &Path,
        declared: watch::Receiver<Declared>,
        metrics: &Arc<Metrics>,
        clock: Clock,
    ) -> Result<Self, Stop> {
        let leased = Arc::new(Notify::new());
        let counter = Counter { metrics: Arc::clone(metrics), leased: Arc::clone(&leased) };
        let calls = QueuedCalls::open(Arc::clone(queue), data, declared.clone(), clock).await;
        let calls = calls.map_err(|error| Stop::failed(format!("cannot work in {}: {error}", data.display())))?;
        let bound = Socket::bind(socket).map_err(|error| cannot_bind(&error))?;
        tracing::info!(queue = format!("unix:{}", socket.display()), "workers find the queue here");
        Ok(Self {
            server: Arc::new(Server::new(Arc::clone(queue), Arc::new(counter))),
            socket: bound,
            queue: Arc::clone(queue),
            calls: Arc::new(calls),
            declared,
            leased,
        })
    }

    /// How functions fare on the workers that are connected.
    pub(super) fn conditions(&self) -> Conditions {
        let server = Arc::clone(&self.server);
        Arc::new(move |function: &FunctionName| {
            let workers = server.workers();
            let mut versions = workers.iter().flat_map(|worker| &worker.functions);
            let version = versions.find(|(name, _)| name == function).map(|(_, version)| version.clone());
            let error = workers.is_empty().then(|| "no worker is connected: jobs are accepted and wait".to_owned());
            Condition { version, error, started: false }
        })
    }

    /// The workers that are connected.
    pub(super) fn workers(&self) -> Workers {
        let server = Arc::clone(&self.server);
        Arc::new(move || server.workers().into_iter().map(|worker| worker.name).collect())
    }

    pub(super) fn serve(self) -> Serving {
        let Self { queue, server, socket, calls, declared, leased } = self;
        let stopping = Stopping::default();
        let server = tokio::spawn(server.run(socket, stopping.clone()));
        let (swept, end) = (Arc::clone(&queue), stopping.end.clone());
        let sweeper = tokio::spawn(async move {
            kvern_worker::sweep(&*swept, || retention(&declared), &leased, &end).await;
        });
        Serving { queue, calls, stopping, server, sweeper }
    }
}

// === impl Serving ===

impl Serving {
    /// Gives no more leases, and waits until nothing runs any more or `drain` is almost over. Calls that have not ended by
    /// then are told.
    pub(super) async fn drain(&self, drain: Duration) {
        self.stopping.drain.cancel();
        let until = Instant::now() + drain.saturating_sub(REST.min(drain / 2));
        tokio::select! {
            // Both only wait.
            () = sleep_until(until) => {}
            () = nothing_runs(&*self.queue) => {}
        }
        self.calls.cut.cancel();
    }

    /// Ends. The queue is closed in between: what was settled by then is stored, and its worker hears so.
    pub(super) async fn end(self) {
        self.calls.end().await;
        self.queue.close().await;
        self.stopping.end.cancel();
        for task in [self.server, self.sweeper] {
            if let Err(error) = task.await {
                tracing::error!(%error, "a part of the server broke");
            }
        }
    }
}

async fn nothing_runs(queue: &dyn Queue) {
    // A queue that failed takes no end of theirs either.
    while queue.health().is_ok() && queue.stats().functions.iter().any(|(_, counts)| counts.running > 0) {
        sleep(LOOK_EVERY).await;
    }
}

fn retention(declared: &watch::Receiver<Declared>) -> Retention {
    declared.borrow().values().map(|function| (function.name.clone(), function.keep)).collect()
}

impl Hears for Counter {
    fn leased(&self) {
        self.leased.notify_one();
    }

    fn settled(&self, ended: &Ended<'_>) {
        let metrics = self.metrics.function(ended.function);
        metrics.observe_wait(ended.wait);
        metrics.observe_run(ended.run);
        metrics.finished(ended.outcome);
    }
}

fn cannot_bind(error: &SocketError) -> Stop {
    let code = match error {
        SocketError::TooLong { .. } => Code::Usage,
        SocketError::Taken { .. } | SocketError::NotASocket { .. } => Code::Conflict,
        SocketError::Io { .. } => Code::Failed,
    };
    let stop = Stop::new(code, error.to_string());
    let stop = match std::error::Error::source(error) {
        Some(source) => stop.hint(format!("the system says: {source}")),
        None => stop,
    };
    stop.hint("name another with --socket PATH, such as /run/kvern/queue.sock")
}
