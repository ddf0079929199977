//! The half that runs functions: the worker with its runtime, in a data directory of this process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kvern_core::Function;
use kvern_queue::{Clock, Queue};
use kvern_runtime::{ProcessRuntime, prepare, process};
use kvern_worker::{Loaded, Worker};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::exit::Stop;
use crate::observe::Ears;

/// A worker that is wired and not yet leasing.
pub(super) struct Back {
    pub(super) worker: Arc<Worker>,
    prepared: JoinHandle<()>,
    ready: Option<oneshot::Receiver<()>>,
}

/// How it works.
pub(super) struct Work {
    pub(super) slots: usize,
    pub(super) drain: Duration,
    /// Whether the queue is in this process.
    pub(super) has_queue: bool,
}

/// Takes over the functions of other manifests.
#[derive(Clone)]
pub(super) struct Refit {
    data: PathBuf,
    worker: Arc<Worker>,
}

// === impl Back ===

impl Back {
    /// Cleans up after a server that died, and begins to prepare the functions.
    pub(super) async fn open(
        queue: &Arc<dyn Queue>,
        data: &Path,
        functions: Vec<Function>,
        work: Work,
        clock: Clock,
        ears: &Arc<Ears>,
    ) -> Result<Self, Stop> {
        let worker = Arc::new(Worker::new(kvern_worker::Parts {
            queue: Arc::clone(queue),
            runtime: open_runtime(data).await?,
            clock,
            name: format!("worker-{}", std::process::id()),
            settings: kvern_worker::Settings {
                slots: work.slots,
                drain_time: work.drain,
                scratch_dir: process::scratch(data),
                sweeps: work.has_queue,
                ..kvern_worker::Settings::default()
            },
            observer: Arc::clone(ears) as _,
        }));
        // Before the gateway serves: a call may come before the first version is prepared.
        worker.expect(&functions);
        let (tell_ready, ready) = oneshot::channel();
        let (preparing, store) = (Arc::clone(&worker), data.to_owned());
        let prepared = tokio::spawn(async move {
            preparing.set_functions(functions).await;
            // Only `dev` waits for this.
            let _ = tell_ready.send(());
            forget_old(store, &preparing).await;
        });
        Ok(Self { worker, prepared, ready: Some(ready) })
    }

    pub(super) fn refit(&self, data: &Path) -> Refit {
        Refit { data: data.to_owned(), worker: Arc::clone(&self.worker) }
    }

    /// What ends when the functions are prepared, or could not be.
    pub(super) fn ready(&mut self) -> Option<oneshot::Receiver<()>> {
        self.ready.take()
    }

    /// No function is prepared any more.
    pub(super) fn end(&self) {
        self.prepared.abort();
    }
}

// === impl Refit ===

impl Refit {
    /// Calls of these functions wait from now on, instead of being refused.
    pub(super) fn expect(&self, functions: &[Function]) {
        self.worker.expect(functions);
    }

    /// Each function switches when its new version is ready.
    pub(super) async fn take(&self, functions: Vec<Function>, ears: &Ears) -> Vec<Loaded> {
        let loaded = self.worker.set_functions(functions).await;
        ears.reload_ended(&loaded);
        forget_old(self.data.clone(), &self.worker).await;
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

async fn open_runtime(data: &Path) -> Result<Arc<ProcessRuntime>, Stop> {
    let tools = prepare::Settings::new(data.to_owned());
    let cannot = |error: std::io::Error| Stop::failed(format!("cannot work in {}: {error}", data.display()));
    let runtime = ProcessRuntime::new(process::Settings::new(tools)).map_err(cannot)?;
    runtime.clean_up_leftovers().await;
    prepare::clean_up(data).map_err(cannot)?;
    Ok(Arc::new(runtime))
}
