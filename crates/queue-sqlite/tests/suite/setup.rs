//! The one setup: a queue in a directory of its own, on a manual clock.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kvern_core::{Attempt, FunctionName, Job, JobId, Next, Outcome, State, UnixMs, limits};
use kvern_queue::{Ask, Clock, Idempotency, Leased, NewJob, Payload, Queue, Settlement, Want};
use kvern_queue_sqlite::{Bounds, Options, SqliteQueue};
use rusqlite::Connection;
use tempfile::TempDir;

/// Where the clock begins: 14 November 2023.
pub(crate) const EPOCH: UnixMs = UnixMs(1_700_000_000_000);

pub(crate) fn open(dir: &Path, clock: &Clock) -> Arc<SqliteQueue> {
    let options = Options { dir: dir.to_owned(), clock: clock.clone() };
    SqliteQueue::open_within(options, &bounds()).expect("the directory opens")
}

/// Runs of keys so small that a few keys go through all that is done to them.
pub(crate) fn bounds() -> Bounds {
    Bounds { run_keys: 8, ..Bounds::default() }
}

pub(crate) fn files_in(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("the directory can be read");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

/// A queue in a directory of its own.
pub(crate) struct Setup {
    pub(crate) queue: Arc<SqliteQueue>,
    pub(crate) clock: Clock,
    pub(crate) dir: TempDir,
}

impl Setup {
    pub(crate) fn new() -> Self {
        let (clock, dir) = (Clock::manual(EPOCH), TempDir::new().expect("a directory"));
        Self { queue: open(dir.path(), &clock), clock, dir }
    }

    /// Kills the queue and opens what it left behind.
    pub(crate) fn kill(self) -> Self {
        let Self { queue, clock, dir } = self;
        queue.crash();
        drop(queue);
        Self { queue: open(dir.path(), &clock), clock, dir }
    }

    /// Stops the queue in order, and gives its database to look at.
    pub(crate) async fn stop(self) -> (Connection, Clock, TempDir) {
        self.queue.close().await;
        let database = Connection::open(self.dir.path().join("queue.db")).expect("a database");
        (database, self.clock, self.dir)
    }

    pub(crate) async fn submit(&self, job: NewJob) -> JobId {
        self.queue.submit(job).await.expect("the job is accepted").id
    }

    pub(crate) async fn lease(&self, function: &str, most: usize) -> Vec<Leased> {
        let wants = vec![Want { function: name(function), slots: most }];
        let ask = Ask { worker: "tester".to_owned(), wants, max: most, wait: Duration::ZERO };
        self.queue.lease(ask).await.expect("an open queue leases")
    }

    pub(crate) async fn state(&self, id: JobId) -> State {
        self.queue.get(id).await.expect("the job is there").state
    }

    pub(crate) async fn succeed(&self, leased: Leased, result: Payload) {
        let settled = self.queue.settle(leased.lease, success(&leased.job, result)).await;
        assert_eq!(settled.expect("the lease stands"), State::Succeeded);
    }

    /// A payload that is large enough for a file.
    pub(crate) async fn staged(&self, byte: u8) -> Payload {
        let mut stage = self.queue.stage().await.expect("an open queue stages");
        let bytes = vec![byte; limits::INLINE_BYTES_MAX];
        stage.write(bytes.into()).await.expect("there is room");
        stage.write(Bytes::from_static(b"and one more")).await.expect("there is room");
        stage.finish().await.expect("it is whole")
    }
}

pub(crate) fn name(function: &str) -> FunctionName {
    function.parse().expect("a function name")
}

pub(crate) fn job(function: &str) -> NewJob {
    NewJob {
        function: name(function),
        input: Payload::Inline(Bytes::from_static(b"the very input")),
        content_type: Some("text/plain".to_owned()),
        idempotency: None,
        not_before: None,
        expires_at: None,
        priority: limits::PRIORITY_DEFAULT,
        tags: Vec::new(),
        max_queued: u64::MAX,
    }
}

/// A job with the key of this number.
pub(crate) fn keyed(function: &str, number: u64) -> NewJob {
    let half = |half: u8| u128::from(BuildHasherDefault::<DefaultHasher>::new().hash_one((number, half)));
    let key = (half(0) << 64 | half(1)).to_be_bytes();
    NewJob { idempotency: Some(Idempotency { key, body: [1; 16] }), ..job(function) }
}

pub(crate) fn success(job: &Job, result: Payload) -> Settlement {
    let started_at = job.started_at.expect("a leased job has started");
    let attempt = Attempt {
        number: job.tally.attempts + 1,
        outcome: "succeeded".to_owned(),
        started_at,
        finished_at: started_at,
        version: None,
        error: None,
    };
    let result = Some(("text/plain".to_owned(), result));
    Settlement::Finish { outcome: Outcome::Succeeded, next: Next::Succeed, result, attempt, log: Bytes::new() }
}

pub(crate) fn inline(bytes: &'static [u8]) -> Payload {
    Payload::Inline(Bytes::from_static(bytes))
}

/// Looks again and again until it is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    let looking = async {
        while !is_so().await {
            ticks.tick().await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(60), looking).await.is_err() {
        panic!("{what}: not within a minute");
    }
}
