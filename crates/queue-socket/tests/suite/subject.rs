//! A queue behind a socket as a subject of the suites: a restart kills server and queue, and the client stays.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use kvern_queue::conformance::Subject;
use kvern_queue::{Clock, Queue};
use kvern_queue_socket::SocketQueue;
use tempfile::TempDir;

use crate::server::{Served, until};

/// The other subject, over a socket.
pub(crate) struct OverSocket {
    name: &'static str,
    behind: Arc<dyn Subject>,
    current: Mutex<Option<Current>>,
}

/// The server given last, and what is at its two ends.
struct Current {
    served: Served,
    queue: Arc<dyn Queue>,
    client: Arc<SocketQueue>,
    dir: TempDir,
}

// === impl OverSocket ===

impl OverSocket {
    pub(crate) fn new(name: &'static str, behind: impl Subject) -> Self {
        Self { name, behind: Arc::new(behind), current: Mutex::default() }
    }

    fn put(&self, current: Option<Current>) -> Option<Current> {
        std::mem::replace(&mut *self.current.lock().expect("no test panics here"), current)
    }
}

fn socket(dir: &TempDir) -> PathBuf {
    dir.path().join("queue.sock")
}

async fn client(path: &Path) -> Arc<SocketQueue> {
    SocketQueue::open(path).await.expect("it connects")
}

#[async_trait]
impl Subject for OverSocket {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn open(&self) -> Arc<dyn Queue> {
        let dir = TempDir::new().expect("a directory");
        let queue = self.behind.open().await;
        let served = Served::start(Arc::clone(&queue), &socket(&dir));
        let client = client(&socket(&dir)).await;
        let given = Arc::clone(&client);
        self.put(Some(Current { served, queue, client, dir }));
        given
    }

    async fn reopen(&self, given: Arc<dyn Queue>) -> Arc<dyn Queue> {
        let Current { served, queue, client: before, dir } = self.put(None).expect("a server runs");
        let life = before.connected();
        served.kill().await;
        let queue = self.behind.reopen(queue).await;
        let served = Served::start(Arc::clone(&queue), &socket(&dir));
        let (client, given): (_, Arc<dyn Queue>) = if before.health().is_err() {
            let client = client(&socket(&dir)).await;
            (Arc::clone(&client), client)
        } else {
            until("the client connects again", || before.connected().is_some_and(|now| Some(now) != life)).await;
            (before, given)
        };
        self.put(Some(Current { served, queue, client, dir }));
        given
    }

    fn set_full(&self, is_full: bool) -> bool {
        self.behind.set_full(is_full)
    }

    fn clock(&self) -> Clock {
        self.behind.clock()
    }

    fn files(&self) -> Vec<PathBuf> {
        self.behind.files()
    }
}
