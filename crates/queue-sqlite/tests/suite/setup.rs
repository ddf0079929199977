//! The one setup: a queue in a directory of its own, on a manual clock.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use kvern_core::UnixMs;
use kvern_queue::conformance::Subject;
use kvern_queue::{Clock, Queue};
use kvern_queue_sqlite::{Options, SqliteQueue};
use tempfile::TempDir;

/// Where the clock begins: 14 November 2023.
pub(crate) const EPOCH: UnixMs = UnixMs(1_700_000_000_000);

/// The embedded queue as a subject of the suites.
pub(crate) struct Sqlite {
    clock: Clock,
    current: Mutex<Option<(Arc<SqliteQueue>, TempDir)>>,
}

impl Sqlite {
    pub(crate) fn new() -> Self {
        Self { clock: Clock::manual(EPOCH), current: Mutex::new(None) }
    }

    fn keep(&self, dir: TempDir) -> Arc<dyn Queue> {
        let queue = open(dir.path(), &self.clock);
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
        self.keep(TempDir::new().expect("a directory"))
    }

    async fn reopen(&self, queue: Arc<dyn Queue>) -> Arc<dyn Queue> {
        drop(queue);
        let (old, dir) = self.current.lock().expect("no test panics here").take().expect("a queue is open");
        old.crash();
        drop(old);
        self.keep(dir)
    }

    fn clock(&self) -> Clock {
        self.clock.clone()
    }

    fn files(&self) -> Vec<PathBuf> {
        let current = self.current.lock().expect("no test panics here");
        current.as_ref().map(|(queue, _)| files_in(queue.blobs())).unwrap_or_default()
    }
}

pub(crate) fn open(dir: &Path, clock: &Clock) -> Arc<SqliteQueue> {
    let options = Options { dir: dir.to_owned(), clock: clock.clone() };
    SqliteQueue::open(options).expect("the directory opens")
}

pub(crate) fn files_in(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("the directory can be read");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}
