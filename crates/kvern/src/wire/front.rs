//! The half that faces clients: the gateway, with the functions as the manifest declares them.

use std::sync::Arc;
use std::time::Duration;

use kvern_core::Function;
use kvern_gateway::{Conditions, Functions, HistogramReading, Metrics, Workers};
use kvern_queue::{Clock, Queue};
use kvern_runtime::Invoke;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Where it listens, and its settings.
pub(crate) struct Place {
    pub(crate) listener: TcpListener,
    pub(crate) settings: kvern_gateway::Settings,
}

/// A gateway that is wired and not yet serving.
pub(super) struct Front {
    listener: TcpListener,
    parts: kvern_gateway::Parts,
    functions: watch::Sender<Arc<Functions>>,
}

/// What the gateway asks others.
pub(super) struct Others {
    pub(super) queue: Arc<dyn Queue>,
    pub(super) invoke: Arc<dyn Invoke>,
    pub(super) conditions: Conditions,
    pub(super) workers: Option<Workers>,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) fsync: HistogramReading,
}

// === impl Front ===

impl Front {
    /// `slots` of functions run in this process.
    pub(super) fn new(place: Place, functions: &[Function], others: Others, slots: usize, drain: Duration) -> Self {
        let Place { listener, settings } = place;
        let Others { queue, invoke, conditions, workers, clock, metrics, fsync } = others;
        let first = Functions::new(functions.to_vec(), &metrics);
        let (functions, receiver) = watch::channel(Arc::new(first));
        let limits = kvern_gateway::Limits { drain, ..settings.limits };
        let parts = kvern_gateway::Parts {
            extra: console(&queue, &functions),
            queue,
            invoke,
            functions: receiver,
            conditions,
            workers,
            clock,
            settings: kvern_gateway::Settings { limits: crate::files::fit(limits, slots), ..settings },
            metrics,
            fsync: Some(fsync),
        };
        Self { listener, parts, functions }
    }

    /// Where a reload puts functions.
    pub(super) fn functions(&self) -> watch::Sender<Arc<Functions>> {
        self.functions.clone()
    }

    pub(super) fn serve(self, shutdown: CancellationToken) -> JoinHandle<kvern_gateway::Drained> {
        tokio::spawn(kvern_gateway::run(self.listener, self.parts, shutdown))
    }
}

fn console(queue: &Arc<dyn Queue>, functions: &watch::Sender<Arc<Functions>>) -> axum::Router {
    let functions = functions.subscribe();
    kvern_console::router(kvern_console::Parts {
        queue: Arc::clone(queue),
        render: Arc::new(move |job| kvern_gateway::job_json(job, &functions.borrow())),
    })
}
