//! The embedded queue behind the socket.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use kvern_core::UnixMs;
use kvern_queue::conformance::Subject;
use kvern_queue::{Clock, Queue};
use kvern_queue_sqlite::{Options, SqliteQueue};
use tempfile::TempDir;

/// The queue given last, and its directory.
pub(crate) struct Sqlite {
    clock: Clock,
    current: Mutex<Option<(Arc<SqliteQueue>, TempDir)>>,
}

// === impl Sqlite ===

impl Sqlite {
    pub(crate) fn new() -> Self {
        Self { clock: Clock::manual(UnixMs(1_700_000_000_000)), current: Mutex::default() }
    }

    fn open_in(&self, dir: TempDir) -> Arc<dyn Queue> {
        let options = Options { dir: dir.path().to_owned(), clock: self.clock.clone() };
        let queue = SqliteQueue::open(options).expect("the directory opens");
        *self.current.lock().expect("no test panics here") = Some((Arc::clone(&queue), dir));
        queue
    }
}

#[async_trait]
impl Subject for Sqlite {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    async fn open(&self) -> Arc<dyn Queue> {
        self.open_in(TempDir::new().expect("a directory"))
    }

    async fn reopen(&self, queue: Arc<dyn Queue>) -> Arc<dyn Queue> {
        drop(queue);
        let (old, dir) = self.current.lock().expect("no test panics here").take().expect("a queue is open");
        old.crash();
        self.open_in(dir)
    }

    fn clock(&self) -> Clock {
        self.clock.clone()
    }

    fn files(&self) -> Vec<PathBuf> {
        let current = self.current.lock().expect("no test panics here");
        let Some((queue, _)) = current.as_ref() else { return Vec::new() };
        let entries = std::fs::read_dir(queue.blobs()).expect("the directory can be read");
        entries.map(|entry| entry.expect("an entry").path()).collect()
    }
}
