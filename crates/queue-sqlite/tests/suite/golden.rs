//! Golden directories: what earlier schemas left behind opens, and everything in it is found.
//!
//! `tests/golden/schema-N/` holds one, made by [`make`] when N was the newest: `UPDATE_GOLDEN=1 cargo test -p
//! kvern-queue-sqlite --test suite golden` makes that of the newest schema anew. Those of older ones are never touched.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use kvern_core::{Failure, FailureCode, Job, Next, Outcome, State, limits};
use kvern_queue::{Cursor, Error, Filter, Idempotency, NewJob, Payload, Queue, Settlement};
use kvern_queue_sqlite::{SCHEMA, check};
use tempfile::TempDir;

use crate::setup::{EPOCH, Setup, files_in, inline, job, name, open, success, until};

const UPDATE: &str = "UPDATE_GOLDEN";
const KEY: Idempotency = Idempotency { key: [7; 16], body: [8; 16] };
const LOG: &[u8] = b"what the job said\n";

fn golden(schema: i64) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/schema-{schema}"))
}

fn tagged(tag: &str) -> NewJob {
    NewJob { tags: vec![("kind".to_owned(), tag.to_owned())], ..job("f") }
}

/// A job of each kind, with its kind as tag; and one that ran when the server died.
async fn make() -> Setup {
    let t = Setup::new();
    t.submit(NewJob { priority: 9, ..tagged("succeeded") }).await;
    t.succeed(t.lease("f", 1).await.remove(0), inline(b"forty-two")).await;
    t.submit(NewJob { input: t.staged(1).await, ..tagged("files") }).await;
    let result = t.staged(2).await;
    t.succeed(t.lease("f", 1).await.remove(0), result).await;
    t.submit(tagged("failed")).await;
    let leased = t.lease("f", 1).await.remove(0);
    let settlement = failure(&leased.job);
    assert_eq!(t.queue.settle(leased.lease, settlement).await.expect("it stands"), State::Failed);
    let cancelled = t.submit(tagged("cancelled")).await;
    t.queue.cancel(cancelled).await.expect("it waits");
    t.submit(NewJob { not_before: Some(EPOCH.after(Duration::from_secs(3600))), ..tagged("scheduled") }).await;
    t.submit(NewJob { expires_at: Some(EPOCH.after(Duration::from_secs(7200))), ..tagged("expiring") }).await;
    t.submit(NewJob { idempotency: Some(KEY), priority: 0, ..tagged("keyed") }).await;
    for _ in 0..3 {
        t.submit(tagged("queued")).await;
    }
    t.submit(NewJob { function: name("held"), ..tagged("paused") }).await;
    t.queue.pause(&name("held"), true).await.expect("it is open");
    t.submit(NewJob { function: name("g"), ..tagged("ran") }).await;
    let _cut_off = t.lease("g", 1).await;
    t
}

fn failure(job: &Job) -> Settlement {
    let why = Failure::new(FailureCode::Exception, "no such customer");
    match success(job, inline(b"")) {
        Settlement::Finish { attempt, .. } => Settlement::Finish {
            outcome: Outcome::Failed(why.clone()),
            next: Next::Fail,
            result: None,
            attempt: kvern_core::Attempt { outcome: "failed".to_owned(), error: Some(why.message), ..attempt },
            log: Bytes::from_static(LOG),
        },
        Settlement::Release => unreachable!("a success is none"),
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for path in files_in(from) {
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else if path.metadata().expect("there").len() > 0 {
            std::fs::copy(&path, &target).expect("a copy");
        }
    }
}

/// Makes that of the newest schema anew.
async fn renew() {
    // A life after the one that was cut off, as most directories have it.
    let t = make().await.kill();
    let (database, _, dir) = t.stop().await;
    database.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(())).expect("one file is enough");
    drop(database);
    let golden = golden(SCHEMA);
    let _ = std::fs::remove_dir_all(&golden);
    for name in ["queue.db", "blobs"] {
        let (from, to) = (dir.path().join(name), golden.join(name));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::create_dir_all(&golden).expect("a directory");
            std::fs::copy(from, to).expect("a copy");
        }
    }
}

#[tokio::test]
async fn what_older_versions_left_opens_and_everything_is_found() {
    if std::env::var_os(UPDATE).is_some() {
        renew().await;
    }
    for schema in 1..=SCHEMA {
        let dir = TempDir::new().expect("a directory");
        copy(&golden(schema), dir.path());
        let clock = kvern_queue::Clock::manual(EPOCH.after(Duration::from_secs(60)));
        let t = Setup { queue: open(dir.path(), &clock), clock, dir };
        everything_is_there(&t).await;
        let report = check(t.dir.path(), &mut |_| {}).expect("it can be looked at");
        assert_eq!((report.findings.as_slice(), report.schema), (&[][..], SCHEMA));
        everything_goes_on(&t).await;
    }
}

async fn all(t: &Setup) -> Vec<Job> {
    t.queue.list(&Filter::default(), None::<&Cursor>, 100).await.expect("a page").jobs
}

async fn one(t: &Setup, tag: &str) -> Job {
    let mut jobs = all(t).await;
    jobs.retain(|job| job.tags.iter().any(|(_, kind)| kind == tag));
    assert_eq!(jobs.len(), 1, "{tag}");
    jobs.remove(0)
}

async fn everything_is_there(t: &Setup) {
    let jobs = all(t).await;
    let in_state = |state: State| jobs.iter().filter(|job| job.state == state).count();
    let counts = [State::Scheduled, State::Queued, State::Succeeded, State::Failed, State::Cancelled].map(in_state);
    assert_eq!(counts, [1, 7, 2, 1, 1]);
    for job in &jobs {
        let stored = t.queue.input(job.id).await.expect("its input is whole");
        if let Payload::Blob(blob) = stored.payload {
            blob.verify().await.expect("its file is whole");
        }
    }
    let done = one(t, "succeeded").await;
    assert_eq!((done.priority, done.attempts.len(), done.tally.attempts), (9, 1, 1));
    assert_eq!(t.queue.result(done.id).await.expect("whole").expect("a result").payload, inline(b"forty-two"));
    let Some(Payload::Blob(large)) =
        t.queue.result(one(t, "files").await.id).await.expect("there").map(|it| it.payload)
    else {
        panic!("it is large enough for a file")
    };
    large.verify().await.expect("its file is whole");
    let failed = one(t, "failed").await;
    assert_eq!(failed.error.expect("it says why").message, "no such customer");
    assert_eq!(&t.queue.read_log(failed.id, 0, 100).await.expect("a log")[..], LOG);
    assert_eq!(one(t, "cancelled").await.state, State::Cancelled);
    assert_eq!(one(t, "scheduled").await.due_at, Some(EPOCH.after(Duration::from_secs(3600))));
    assert_eq!(one(t, "expiring").await.expires_at, Some(EPOCH.after(Duration::from_secs(7200))));
    let keyed = one(t, "keyed").await;
    let twin = t.queue.submit(NewJob { idempotency: Some(KEY), ..job("f") }).await.expect("a twin");
    assert_eq!((twin.id, twin.duplicate), (keyed.id, true));
    let other = Idempotency { body: [9; 16], ..KEY };
    let reused = t.queue.submit(NewJob { idempotency: Some(other), ..job("f") }).await;
    assert!(matches!(reused, Err(Error::KeyReused(id)) if id == keyed.id));
    assert!(t.queue.stats().functions.iter().any(|(function, stats)| *function == name("held") && stats.paused));
}

/// Old jobs run, new ones come behind them, and what is over goes.
async fn everything_goes_on(t: &Setup) {
    let newest = all(t).await.iter().map(|job| job.id).max().expect("some");
    let new = t.submit(job("f")).await;
    assert!(new > newest);
    let leased = t.lease("f", 20).await;
    let order: Vec<_> = leased.iter().map(|leased| leased.job.id).collect();
    assert_eq!((order.len(), order[4]), (6, new), "the lowest priority is behind even it: {order:?}");
    for leased in leased {
        t.succeed(leased, inline(b"late")).await;
    }
    t.succeed(t.lease("g", 1).await.remove(0), inline(b"again")).await;
    t.clock.advance(Duration::from_secs(3600));
    t.queue.sweep(&Vec::new(), 100).await.expect("sweeps");
    assert_eq!(one(t, "scheduled").await.state, State::Queued);
    t.succeed(t.lease("f", 1).await.remove(0), inline(b"due")).await;
    t.clock.advance(limits::KEEP_FAILED_DEFAULT);
    let swept = t.queue.sweep(&Vec::new(), 100).await.expect("sweeps");
    assert_eq!((swept.forgotten, all(t).await.len()), (12, 1), "all but the paused one");
    until("their files go", async || files_in(t.queue.blobs()).is_empty()).await;
}
