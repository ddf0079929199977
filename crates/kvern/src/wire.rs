//! Puts the server together: the only file that names concrete adapters.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kvern_core::FunctionName;
use kvern_gateway::{Conditions, Functions, HistogramReading, HistogramValues, Metrics};
use kvern_manifest::Manifest;
use kvern_queue::{Clock, Queue};
/// How jobs are kept on this disk, for the verbs that look after it.
pub(crate) use kvern_queue_sqlite as kept;
use kvern_queue_sqlite::{BOUNDS_US, BackupError, OpenError, SqliteQueue};
use kvern_runtime::{ProcessRuntime, prepare, process};
use kvern_worker::{Loaded, Worker};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::exit::{Code, Outcome, Stop};
use crate::observe::{Ears, Lines};

/// What a server is started with.
pub(crate) struct Options {
    pub(crate) listener: TcpListener,
    pub(crate) data: PathBuf,
    pub(crate) manifest: Manifest,
    pub(crate) gateway: kvern_gateway::Settings,
    pub(crate) slots: usize,
    pub(crate) drain: Duration,
    pub(crate) lines: Lines,
}

/// A server that is wired and not yet serving.
pub(crate) struct Server {
    data: PathBuf,
    listener: TcpListener,
    gateway: kvern_gateway::Parts,
    queue: Arc<dyn Queue>,
    worker: Arc<Worker>,
    functions: watch::Sender<Arc<Functions>>,
    metrics: Arc<Metrics>,
    ears: Arc<Ears>,
    prepared: JoinHandle<()>,
    ready: Option<oneshot::Receiver<()>>,
}

/// Gives a running server another manifest.
#[derive(Clone)]
pub(crate) struct Reloader {
    data: PathBuf,
    queue: Arc<dyn Queue>,
    worker: Arc<Worker>,
    functions: watch::Sender<Arc<Functions>>,
    metrics: Arc<Metrics>,
    /// Who tells what comes of it.
    pub(crate) ears: Arc<Ears>,
}

/// Opens the queue, cleans up after a server that died, and begins to prepare the functions.
pub(crate) async fn start(options: Options) -> Result<Server, Stop> {
    let clock = Clock::system();
    let data = std::path::absolute(&options.data)?;
    let sqlite = open_queue(&data, clock.clone()).await?;
    let fsync = fsync_reading(&sqlite);
    let queue: Arc<dyn Queue> = sqlite;
    let runtime = open_runtime(&data).await?;
    let metrics = Arc::new(Metrics::new());
    let ears = Arc::new(Ears::new(Arc::clone(&metrics), options.lines));
    let worker = Arc::new(Worker::new(kvern_worker::Parts {
        queue: Arc::clone(&queue),
        runtime,
        clock: clock.clone(),
        name: format!("worker-{}", std::process::id()),
        settings: kvern_worker::Settings {
            slots: options.slots,
            drain_time: options.drain,
            scratch_dir: process::scratch(&data),
            ..kvern_worker::Settings::default()
        },
        observer: Arc::clone(&ears) as _,
    }));
    tell_removed(&*queue, &options.manifest, &ears);
    // Before the gateway serves: a call may come before the first version is prepared.
    worker.expect(&options.manifest.functions);
    let first = Functions::new(options.manifest.functions.clone(), &metrics);
    let (functions, receiver) = watch::channel(Arc::new(first));
    let gateway = kvern_gateway::Parts {
        queue: Arc::clone(&queue),
        invoke: Arc::clone(&worker) as _,
        functions: receiver,
        conditions: conditions(&ears),
        clock,
        settings: kvern_gateway::Settings {
            limits: crate::files::fit(
                kvern_gateway::Limits { drain: options.drain, ..options.gateway.limits },
                options.slots,
            ),
            ..options.gateway
        },
        metrics: Arc::clone(&metrics),
        fsync: Some(fsync),
        extra: console(&queue, &functions),
    };
    let (tell_ready, ready) = oneshot::channel();
    let (preparing, store) = (Arc::clone(&worker), data.clone());
    let prepared = tokio::spawn(async move {
        preparing.set_functions(options.manifest.functions).await;
        // Only `dev` waits for this.
        let _ = tell_ready.send(());
        forget_old(store, &preparing).await;
    });
    Ok(Server {
        data,
        listener: options.listener,
        gateway,
        queue,
        worker,
        functions,
        metrics,
        ears,
        prepared,
        ready: Some(ready),
    })
}

// === impl Server ===

impl Server {
    /// Where manifests go while it runs.
    pub(crate) fn reloader(&self) -> Reloader {
        Reloader {
            data: self.data.clone(),
            queue: Arc::clone(&self.queue),
            worker: Arc::clone(&self.worker),
            functions: self.functions.clone(),
            metrics: Arc::clone(&self.metrics),
            ears: Arc::clone(&self.ears),
        }
    }

    /// Waits until the functions are prepared, or could not be.
    pub(crate) fn ready(&mut self) -> impl Future<Output = ()> + use<> {
        let ready = self.ready.take();
        async move {
            if let Some(ready) = ready {
                let _ = ready.await;
            }
        }
    }

    /// Serves until `shutdown`, drains, and closes the queue. A queue that failed ends the server with an error.
    pub(crate) async fn run(self, shutdown: CancellationToken) -> Outcome {
        let worker = tokio::spawn(Arc::clone(&self.worker).run(shutdown.clone()));
        let gateway = tokio::spawn(kvern_gateway::run(self.listener, self.gateway, shutdown.clone()));
        let failure = watch_queue(&*self.queue, shutdown.clone()).await;
        // From here on nothing is accepted; both come back within the drain time.
        let (gateway, worker) = tokio::join!(gateway, worker);
        self.prepared.abort();
        self.queue.close().await;
        tell_end(worker.as_ref().ok(), gateway.as_ref().ok());
        match failure {
            None => Ok(()),
            Some(error) => Err(Stop::failed(format!("the queue failed: {error}"))
                .hint("what was acknowledged is on disk; look at the disk, then start again")),
        }
    }
}

// === impl Reloader ===

impl Reloader {
    /// Takes over another manifest: the gateway at once, each function when its new version is ready.
    pub(crate) async fn reload(&self, manifest: Manifest) -> Vec<Loaded> {
        self.worker.expect(&manifest.functions);
        tell_removed(&*self.queue, &manifest, &self.ears);
        let functions = Functions::new(manifest.functions.clone(), &self.metrics);
        self.functions.send_replace(Arc::new(functions));
        let loaded = self.worker.set_functions(manifest.functions).await;
        self.ears.reload_ended(&loaded);
        forget_old(self.data.clone(), &self.worker).await;
        tracing::info!(manifest = %manifest.path.display(), "reloaded");
        loaded
    }
}

/// Removes the copies and packages that nothing needs: otherwise each save would leave a copy of its function. What is
/// in use is asked after the versions have switched; another reload that begins now holds its own store.
async fn forget_old(data: PathBuf, worker: &Worker) {
    let in_use = worker.versions_in_use();
    let forgotten = tokio::task::spawn_blocking(move || prepare::forget_old(&data, &in_use)).await;
    match forgotten.unwrap_or_else(|panicked| Err(std::io::Error::other(panicked))) {
        Ok(0) => {}
        Ok(versions) => tracing::debug!(versions, "old versions are forgotten"),
        Err(error) => {
            tracing::warn!(%error, "old versions of functions cannot be removed; the next reload tries again");
        }
    }
}

/// Jobs of a function that is in the manifest no more wait for ever, and it may have been a slip.
fn tell_removed(queue: &dyn Queue, manifest: &Manifest, ears: &Ears) {
    for (function, counts) in queue.stats().functions {
        let waiting = counts.scheduled + counts.queued + counts.running;
        if waiting > 0 && manifest.function(function.as_str()).is_none() {
            ears.removed(&function, waiting);
        }
    }
}

/// Says how the drain went; none for a part that panicked, which was logged then.
fn tell_end(worker: Option<&kvern_worker::Drained>, gateway: Option<&kvern_gateway::Drained>) {
    let unsettled = worker.map_or(0, |worker| worker.unsettled);
    let stuck = worker.map_or(0, |worker| worker.stuck);
    let cut_off = gateway.map_or(0, |gateway| gateway.cut_off);
    if unsettled + stuck + cut_off > 0 {
        tracing::warn!(
            outcomes_lost = unsettled,
            instances_stuck = stuck,
            requests_cut_off = cut_off,
            "the time to stop was too short for all: jobs whose outcomes are lost run again at the next start; --drain \
             gives more time"
        );
    }
    tracing::info!(?worker, ?gateway, "stopped");
}

/// Waits for the stop signal, or for the end of a queue that failed: then the rest must stop too.
async fn watch_queue(queue: &dyn Queue, shutdown: CancellationToken) -> Option<kvern_queue::Error> {
    // Both may be dropped: neither holds anything.
    let error = tokio::select! {
        () = shutdown.cancelled() => return None,
        error = queue.closed() => error,
    };
    tracing::error!(%error, "the queue failed; stopping");
    shutdown.cancel();
    Some(error)
}

async fn open_queue(data: &Path, clock: Clock) -> Result<Arc<SqliteQueue>, Stop> {
    let options = kvern_queue_sqlite::Options { dir: data.to_owned(), clock };
    let opened = tokio::task::spawn_blocking(move || SqliteQueue::open(options)).await;
    opened.map_err(|panicked| Stop::failed(panicked.to_string()))?.map_err(|error| cannot_open(&error))
}

/// Why the data directory cannot be used.
pub(crate) fn cannot_open(error: &OpenError) -> Stop {
    let code = match error {
        OpenError::Newer { .. } => Code::Usage,
        OpenError::InUse { .. }
        | OpenError::Foreign { .. }
        | OpenError::Backup { .. }
        | OpenError::Unfinished { .. } => Code::Conflict,
        _ => Code::Failed,
    };
    with_source(Stop::new(code, error.to_string()), error)
}

/// Why a data directory or a backup cannot be checked, copied or restored.
pub(crate) fn cannot_keep(error: &BackupError) -> Stop {
    let code = match error {
        BackupError::Open(error) => return cannot_open(error),
        BackupError::NoData { .. } | BackupError::NoBackup { .. } => Code::NotFound,
        BackupError::NotEmpty { .. } => Code::Conflict,
        BackupError::Inside { .. } | BackupError::Newer { .. } => Code::Usage,
        BackupError::NotAllowed { .. } => Code::NotAllowed,
        _ => Code::Failed,
    };
    with_source(Stop::new(code, error.to_string()), error)
}

fn with_source(stop: Stop, error: &dyn std::error::Error) -> Stop {
    match error.source() {
        Some(source) => stop.hint(format!("the system says: {source}")),
        None => stop,
    }
}

async fn open_runtime(data: &Path) -> Result<Arc<ProcessRuntime>, Stop> {
    let tools = prepare::Settings::new(data.to_owned());
    let cannot = |error: std::io::Error| Stop::failed(format!("cannot work in {}: {error}", data.display()));
    let runtime = ProcessRuntime::new(process::Settings::new(tools)).map_err(cannot)?;
    runtime.clean_up_leftovers().await;
    prepare::clean_up(data).map_err(cannot)?;
    Ok(Arc::new(runtime))
}

fn fsync_reading(queue: &Arc<SqliteQueue>) -> HistogramReading {
    let queue = Arc::clone(queue);
    Arc::new(move || {
        let stats = queue.commits();
        let bounds = BOUNDS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
        HistogramValues {
            buckets: bounds.zip(stats.buckets).collect(),
            sum: stats.took.as_secs_f64(),
            count: stats.commits,
        }
    })
}

fn conditions(ears: &Arc<Ears>) -> Conditions {
    let ears = Arc::clone(ears);
    Arc::new(move |function: &FunctionName| ears.condition(function))
}

fn console(queue: &Arc<dyn Queue>, functions: &watch::Sender<Arc<Functions>>) -> axum::Router {
    let functions = functions.subscribe();
    kvern_console::router(kvern_console::Parts {
        queue: Arc::clone(queue),
        render: Arc::new(move |job| kvern_gateway::job_json(job, &functions.borrow())),
    })
}
