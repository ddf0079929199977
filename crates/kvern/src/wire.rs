//! Puts the server together: only here and in the files below it are concrete adapters named.
//!
//! A server has up to three parts: a front that faces clients, a back that runs functions, and where these are two processes
//! a side that faces workers. The queue is in the process with the front, and the back of another process reaches it over a
//! socket.

use std::collections::HashMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kvern_core::{Function, FunctionName};
use kvern_gateway::{Conditions, Functions, HistogramReading, HistogramValues, Metrics};
use kvern_manifest::Manifest;
use kvern_queue::{Clock, Queue};
use kvern_queue_socket::{ConnectError, SocketQueue};
/// How jobs are kept on this disk, for the verbs that look after it.
pub(crate) use kvern_queue_sqlite as kept;
use kvern_queue_sqlite::{BOUNDS_US, BackupError, OpenError, SqliteQueue};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::calls::Declared;
use crate::exit::{Code, Outcome, Stop};
use crate::observe::{Ears, Lines};
use crate::reloads::End;

mod back;
mod front;
mod side;

use back::{Back, Refit, Work};
pub(crate) use front::Place;
use front::{Front, Others};
use side::Side;

/// What a server is started with.
pub(crate) struct Options {
    pub(crate) parts: Parts,
    pub(crate) data: PathBuf,
    pub(crate) manifest: Manifest,
    pub(crate) drain: Duration,
    pub(crate) lines: Lines,
}

/// What runs in this process.
pub(crate) enum Parts {
    /// Everything.
    All { place: Place, slots: usize },
    /// Front and side; workers find the queue on this socket.
    Gateway { place: Place, socket: PathBuf },
    /// The back, with the queue on this socket.
    Worker { queue: PathBuf, slots: usize },
}

/// A server that is wired and not yet serving.
pub(crate) struct Server {
    queue: Arc<dyn Queue>,
    front: Option<Front>,
    back: Option<Back>,
    side: Option<Side>,
    reloader: Reloader,
    drain: Duration,
    /// Of a data directory without a queue; a queue holds its own.
    _lock: Option<kept::Lock>,
}

/// Gives a running server another manifest.
#[derive(Clone)]
pub(crate) struct Reloader {
    /// None where the queue is another process's, who tells of its jobs.
    queue: Option<Arc<dyn Queue>>,
    declared: watch::Sender<Declared>,
    functions: Option<watch::Sender<Arc<Functions>>>,
    back: Option<Refit>,
    metrics: Arc<Metrics>,
    /// Who tells what comes of it.
    pub(crate) ears: Arc<Ears>,
}

/// Opens what the parts need and wires them.
pub(crate) async fn start(options: Options) -> Result<Server, Stop> {
    let data = std::path::absolute(&options.data)?;
    let metrics = Arc::new(Metrics::new());
    let ears = Arc::new(Ears::new(Arc::clone(&metrics), options.lines));
    let (declared, _) = watch::channel(by_name(&options.manifest.functions));
    let bare = Bare { data, metrics, ears, declared, clock: Clock::system(), manifest: options.manifest };
    match options.parts {
        Parts::All { place, slots } => all(bare, place, slots, options.drain).await,
        Parts::Gateway { place, socket } => gateway(bare, place, &socket, options.drain).await,
        Parts::Worker { queue, slots } => worker(bare, &queue, slots, options.drain).await,
    }
}

/// What every server has.
struct Bare {
    data: PathBuf,
    metrics: Arc<Metrics>,
    ears: Arc<Ears>,
    declared: watch::Sender<Declared>,
    clock: Clock,
    manifest: Manifest,
}

async fn all(bare: Bare, place: Place, slots: usize, drain: Duration) -> Result<Server, Stop> {
    let sqlite = open_queue(&bare.data, bare.clock.clone()).await?;
    let fsync = fsync_reading(&sqlite);
    let queue: Arc<dyn Queue> = sqlite;
    let functions = bare.manifest.functions.clone();
    let work = Work { slots, drain, has_queue: true };
    let back = Back::open(&queue, &bare.data, functions, work, bare.clock.clone(), &bare.ears).await?;
    tell_removed(&*queue, &bare.manifest, &bare.ears);
    let others = Others {
        queue: Arc::clone(&queue),
        invoke: Arc::clone(&back.worker) as _,
        conditions: conditions(&bare.ears),
        workers: None,
        clock: bare.clock.clone(),
        metrics: Arc::clone(&bare.metrics),
        fsync,
    };
    let front = Front::new(place, &bare.manifest.functions, others, slots, drain);
    let reloader = bare.reloader(Some(&queue), Some(&front), Some(&back));
    Ok(Server { queue, front: Some(front), back: Some(back), side: None, reloader, drain, _lock: None })
}

async fn gateway(bare: Bare, place: Place, socket: &Path, drain: Duration) -> Result<Server, Stop> {
    let sqlite = open_queue(&bare.data, bare.clock.clone()).await?;
    let fsync = fsync_reading(&sqlite);
    let queue: Arc<dyn Queue> = sqlite;
    let (declared, clock) = (bare.declared.subscribe(), bare.clock.clone());
    let side = Side::open(&queue, socket, &bare.data, declared, &bare.metrics, clock).await?;
    tell_removed(&*queue, &bare.manifest, &bare.ears);
    let others = Others {
        queue: Arc::clone(&queue),
        invoke: Arc::clone(&side.calls) as _,
        conditions: side.conditions(),
        workers: Some(side.workers()),
        clock: bare.clock.clone(),
        metrics: Arc::clone(&bare.metrics),
        fsync,
    };
    let front = Front::new(place, &bare.manifest.functions, others, 0, drain);
    let reloader = bare.reloader(Some(&queue), Some(&front), None);
    Ok(Server { queue, front: Some(front), back: None, side: Some(side), reloader, drain, _lock: None })
}

async fn worker(bare: Bare, socket: &Path, slots: usize, drain: Duration) -> Result<Server, Stop> {
    let lock = take_directory(&bare.data)?;
    crate::files::raise_for(slots);
    let queue = SocketQueue::open(socket).await.map_err(|error| cannot_connect(&error))?;
    let queue: Arc<dyn Queue> = queue;
    let functions = bare.manifest.functions.clone();
    let work = Work { slots, drain, has_queue: false };
    let back = Back::open(&queue, &bare.data, functions, work, bare.clock.clone(), &bare.ears).await?;
    let reloader = bare.reloader(None, None, Some(&back));
    Ok(Server { queue, front: None, back: Some(back), side: None, reloader, drain, _lock: Some(lock) })
}

// === impl Bare ===

impl Bare {
    fn reloader(self, queue: Option<&Arc<dyn Queue>>, front: Option<&Front>, back: Option<&Back>) -> Reloader {
        Reloader {
            queue: queue.map(Arc::clone),
            functions: front.map(Front::functions),
            back: back.map(|back| back.refit(&self.data)),
            declared: self.declared,
            metrics: self.metrics,
            ears: self.ears,
        }
    }
}

// === impl Server ===

impl Server {
    /// Where manifests go while it runs.
    pub(crate) fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// Waits until the functions are prepared, or could not be.
    pub(crate) fn ready(&mut self) -> impl Future<Output = ()> + use<> {
        let ready = self.back.as_mut().and_then(Back::ready);
        async move {
            if let Some(ready) = ready {
                let _ = ready.await;
            }
        }
    }

    /// Serves until `shutdown`, drains, and closes the queue. A queue that failed ends the server with an error.
    pub(crate) async fn run(self, shutdown: CancellationToken) -> Outcome {
        let worker = self.back.as_ref().map(|back| tokio::spawn(Arc::clone(&back.worker).run(shutdown.clone())));
        let gateway = self.front.map(|front| front.serve(shutdown.clone()));
        let side = self.side.map(Side::serve);
        let failure = watch_queue(&*self.queue, shutdown.clone()).await;
        // From here on nothing is accepted; all come back within the drain time.
        let side_drains = async {
            if let Some(side) = &side {
                side.drain(self.drain).await;
            }
        };
        let (gateway, worker, ()) = tokio::join!(joined(gateway), joined(worker), side_drains);
        if let Some(back) = &self.back {
            back.end();
        }
        match side {
            Some(side) => side.end().await,
            None => self.queue.close().await,
        }
        tell_end(worker.as_ref(), gateway.as_ref());
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
    pub(crate) async fn reload(&self, manifest: Manifest) -> End {
        if let Some(back) = &self.back {
            back.expect(&manifest.functions);
        }
        if let Some(queue) = &self.queue {
            tell_removed(&**queue, &manifest, &self.ears);
        }
        self.declared.send_replace(by_name(&manifest.functions));
        if let Some(functions) = &self.functions {
            functions.send_replace(Arc::new(Functions::new(manifest.functions.clone(), &self.metrics)));
        }
        let end = match &self.back {
            Some(back) => End::from(&back.take(manifest.functions, &self.ears).await[..]),
            None => End::declared(&manifest.functions),
        };
        tracing::info!(manifest = %manifest.path.display(), "reloaded");
        end
    }
}

fn by_name(functions: &[Function]) -> Declared {
    let named = functions.iter().map(|function| (function.name.clone(), function.clone()));
    Arc::new(named.collect::<HashMap<_, _>>())
}

/// What a part gave at its end; none for one that is not here, or that panicked, which was logged then.
async fn joined<T>(task: Option<tokio::task::JoinHandle<T>>) -> Option<T> {
    match task {
        Some(task) => task.await.ok(),
        None => None,
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

/// A worker's own directory: nobody else's while it lives, and no gateway's.
fn take_directory(data: &Path) -> Result<kept::Lock, Stop> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(data);
    made.map_err(|error| Stop::failed(format!("cannot work in {}: {error}", data.display())))?;
    if data.join(kept::DATABASE_FILE).exists() {
        let what = format!("{} is the data directory of a gateway: jobs are kept in it", data.display());
        return Err(Stop::usage(what).hint("a worker needs one of its own: name another with --data DIR"));
    }
    kept::Lock::take(data).map_err(|error| cannot_open(&error))
}

/// Why the queue of a gateway cannot be used.
fn cannot_connect(error: &ConnectError) -> Stop {
    match error {
        ConnectError::NotAllowed { .. } => Stop::new(Code::NotAllowed, error.to_string())
            .hint("the socket is for the user of the gateway and for root: run the worker as that user"),
        _ => Stop::usage(error.to_string()).hint("name the socket of a gateway with --queue unix:PATH"),
    }
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
