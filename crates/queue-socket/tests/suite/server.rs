//! A server that can be killed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kvern_queue::Queue;
use kvern_queue_socket::{Hears, Server, Socket, Stop, Unheard};
use tokio::runtime::Runtime;

/// The longest that anything which should come soon may take.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// A server in a runtime of its own.
pub(crate) struct Served {
    pub(crate) server: Arc<Server>,
    pub(crate) stop: Stop,
    path: PathBuf,
    runtime: Option<Runtime>,
}

// === impl Served ===

impl Served {
    pub(crate) fn start(queue: Arc<dyn Queue>, path: &Path) -> Self {
        Self::heard(queue, path, Arc::new(Unheard))
    }

    pub(crate) fn heard(queue: Arc<dyn Queue>, path: &Path, hears: Arc<dyn Hears>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let (server, stop) = (Arc::new(Server::new(queue, hears)), Stop::default());
        let socket = {
            let _inside = runtime.enter();
            Socket::bind(path).expect("it listens")
        };
        runtime.spawn(Arc::clone(&server).run(socket, stop.clone()));
        Self { server, stop, path: path.to_owned(), runtime: Some(runtime) }
    }

    /// Ends it as a kill does, and leaves a stale socket.
    pub(crate) async fn kill(mut self) {
        // What it leaves behind is a socket that nobody listens on.
        let left = self.path.with_extension("left");
        std::fs::rename(&self.path, &left).expect("the socket is there");
        let runtime = self.runtime.take().expect("it runs");
        let ended = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(SOON)).await;
        ended.expect("no panic");
        std::fs::rename(&left, &self.path).expect("it was left");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Looks again and again until it is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    let looking = async {
        while !is_so() {
            ticks.tick().await;
        }
    };
    if tokio::time::timeout(SOON, looking).await.is_err() {
        panic!("{what}: not within {SOON:?}");
    }
}
