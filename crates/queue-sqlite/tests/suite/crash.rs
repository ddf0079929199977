//! Kills: what was acknowledged is there, and the counts are those of the rows.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kvern_core::{JobId, State};
use kvern_queue::{Clock, Error, Filter, Queue, Settlement};
use kvern_queue_sqlite::SqliteQueue;
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::setup::{EPOCH, Setup, inline, job, keyed, open, success};

/// The keys of all clients differ.
static NEXT_KEY: AtomicU64 = AtomicU64::new(0);

/// What clients and workers heard.
#[derive(Default)]
struct Heard {
    accepted: Vec<JobId>,
    /// Numbers of keys, and the jobs that they made.
    keys: Vec<(u64, JobId)>,
    settled: Vec<JobId>,
    cancelled: Vec<JobId>,
}

/// Eight clients submit and sometimes cancel, eight workers settle and sometimes release, until told to stop or refused.
async fn work(queue: &Arc<SqliteQueue>, stop: &Arc<AtomicBool>) -> Heard {
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let (client, told) = (Arc::clone(queue), Arc::clone(stop));
        tasks.spawn(async move { submit_some(&client, &told).await });
        let (worker, told) = (Arc::clone(queue), Arc::clone(stop));
        tasks.spawn(async move { settle_some(&worker, &told).await });
    }
    let mut heard = Heard::default();
    for one in tasks.join_all().await {
        heard.accepted.extend(one.accepted);
        heard.keys.extend(one.keys);
        heard.settled.extend(one.settled);
        heard.cancelled.extend(one.cancelled);
    }
    heard
}

async fn submit_some(queue: &SqliteQueue, stop: &AtomicBool) -> Heard {
    let mut heard = Heard::default();
    while !stop.load(Ordering::SeqCst) {
        let key = NEXT_KEY.fetch_add(1, Ordering::Relaxed);
        match queue.submit(keyed("f", key)).await {
            Ok(submitted) => {
                heard.accepted.push(submitted.id);
                heard.keys.push((key, submitted.id));
            }
            Err(Error::Closed(_) | Error::Unknown(_)) => break,
            Err(error) => panic!("{error}"),
        }
        if heard.accepted.len() % 5 == 0 {
            let id = heard.accepted[heard.accepted.len() - 3];
            heard.cancelled.extend(queue.cancel(id).await.is_ok().then_some(id));
        }
    }
    heard
}

async fn settle_some(queue: &SqliteQueue, stop: &AtomicBool) -> Heard {
    let mut heard = Heard::default();
    while !stop.load(Ordering::SeqCst) {
        let wants = vec![kvern_queue::Want { function: crate::setup::name("f"), slots: 4 }];
        let wait = std::time::Duration::from_millis(5);
        let ask = kvern_queue::Ask { worker: "w".to_owned(), wants, max: 4, wait };
        let Ok(leased) = queue.lease(ask).await else { break };
        for (at, one) in leased.into_iter().enumerate() {
            if at == 1 {
                let _ = queue.settle(one.lease, Settlement::Release).await;
                continue;
            }
            let (id, settlement) = (one.job.id, success(&one.job, inline(b"done")));
            if queue.settle(one.lease, settlement).await.is_ok() {
                heard.settled.push(id);
            }
        }
    }
    heard
}

async fn check(queue: &SqliteQueue, heard: &Heard) {
    for (key, id) in &heard.keys {
        let twin = queue.submit(keyed("f", *key)).await.expect("a twin");
        assert_eq!((twin.id, twin.duplicate), (*id, true), "key {key}");
    }
    for id in &heard.accepted {
        let job = queue.get(*id).await.expect("an acknowledged job is there");
        assert!(matches!(job.state, State::Queued | State::Succeeded | State::Cancelled), "{job:?}");
    }
    for id in &heard.cancelled {
        let job = queue.get(*id).await.expect("it is there");
        assert!(matches!(job.state, State::Succeeded | State::Cancelled), "a cancel that was acknowledged: {job:?}");
    }
    for id in &heard.settled {
        assert_eq!(queue.get(*id).await.expect("it is there").state, State::Succeeded);
        assert!(queue.result(*id).await.expect("it is there").is_some(), "an outcome is stored whole");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_under_load_loses_nothing_that_was_acknowledged() {
    let mut t = Setup::new();
    for _ in 0..5 {
        let stop = Arc::new(AtomicBool::new(false));
        let (queue, working) = (Arc::clone(&t.queue), Arc::clone(&stop));
        let load = tokio::spawn(async move { work(&queue, &working).await });
        let commits = t.queue.commits().commits;
        crate::setup::until("commits of every kind", async || t.queue.commits().commits > commits + 300).await;
        let queue = Arc::clone(&t.queue);
        tokio::task::spawn_blocking(move || queue.crash()).await.expect("it dies");
        let heard = load.await.expect("the load ends");
        assert!(!heard.accepted.is_empty() && !heard.settled.is_empty() && !heard.cancelled.is_empty());
        t = t.kill();
        check(&t.queue, &heard).await;
    }
    let stats = t.queue.stats().functions[0].1;
    let (database, _clock, _dir) = t.stop().await;
    assert_eq!(counted(&database), stats.queued + stats.succeeded + stats.cancelled);
    let marks: i64 = database.query_row("SELECT count(*) FROM cancels", [], |row| row.get(0)).expect("counts");
    assert_eq!(marks, 0, "no mark outlives its attempt");
    assert_counts_are_right(&database);
    assert_eq!(nowhere(&database), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_a_live_queue_open_elsewhere_with_all_that_was_acknowledged() {
    let t = Setup::new();
    let stop = Arc::new(AtomicBool::new(false));
    let mut acknowledged = Vec::new();
    for _ in 0..400 {
        acknowledged.push(t.submit(job("f")).await);
    }
    let (queue, working) = (Arc::clone(&t.queue), Arc::clone(&stop));
    let load = tokio::spawn(async move { work(&queue, &working).await });
    // As a power cut would find it: first the database, then its log, while both are written.
    let copy = TempDir::new().expect("a directory");
    copy_files(t.dir.path(), copy.path());
    stop.store(true, Ordering::SeqCst);
    load.await.expect("the load ends");

    let opened = open(copy.path(), &Clock::manual(EPOCH));
    for id in acknowledged {
        opened.get(id).await.expect("an acknowledged job is in the copy");
    }
}

fn copy_files(from: &Path, to: &Path) {
    for name in ["queue.db", "queue.db-wal"] {
        std::fs::copy(from.join(name), to.join(name)).expect("copies");
    }
}

#[tokio::test]
async fn a_torn_log_loses_no_more_than_its_end() {
    let t = Setup::new();
    let path = t.dir.path().join("queue.db-wal");
    let length = || path.metadata().expect("the log").len() as usize;
    // A log that is begun anew is overwritten at first. Once it grows, its length after an answer is what must be left of
    // it for the job to be left.
    let before = length();
    while length() == before {
        t.submit(job("g")).await;
    }
    let (mut ids, mut ends) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        ids.push(t.submit(job("f")).await);
        ends.push(length());
    }
    t.queue.crash();
    let log = std::fs::read(&path).expect("the log");
    let spread = || (0..log.len()).step_by(log.len() / 40);
    let around_ends = ends.iter().flat_map(|end| [end - 1, *end, end + 1]).filter(|at| *at <= log.len());
    let cut = spread().chain(around_ends).map(|at| (at, log[..at].to_vec()));
    let flipped = spread().map(|at| {
        let mut bytes = log.clone();
        bytes[at] ^= 0x10;
        (at, bytes)
    });
    for (at, torn) in cut.chain(flipped) {
        let copy = TempDir::new().expect("a directory");
        std::fs::copy(t.dir.path().join("queue.db"), copy.path().join("queue.db")).expect("copies");
        std::fs::write(copy.path().join("queue.db-wal"), torn).expect("writes");
        let opened = open(copy.path(), &Clock::manual(EPOCH));
        let filter = Filter { function: Some(crate::setup::name("f")), ..Filter::default() };
        let page = opened.list(&filter, None, 500).await.expect("lists");
        let mut left: Vec<JobId> = page.jobs.iter().map(|job| job.id).collect();
        left.reverse();
        let whole = ends.partition_point(|end| *end <= at);
        assert_eq!(left, ids[..whole], "torn at {at} of {}", log.len());
        for id in left {
            opened.input(id).await.expect("its input is whole");
        }
    }
}

#[tokio::test]
async fn ids_go_on_after_the_newest_jobs_were_forgotten() {
    let t = Setup::new();
    let before = t.submit(job("f")).await;
    for leased in t.lease("f", 1).await {
        t.succeed(leased, inline(b"")).await;
    }
    let week = std::time::Duration::from_secs(7 * 24 * 3600);
    t.clock.advance(week);
    assert_eq!(t.queue.sweep(&Vec::new(), 10).await.expect("sweeps").forgotten, 1);
    t.clock.jump_to(EPOCH);
    let t = t.kill();
    assert!(t.submit(job("f")).await > before);
}

fn counted(database: &Connection) -> u64 {
    let counted = database.query_row("SELECT count(*) FROM jobs", [], |row| row.get::<_, i64>(0));
    counted.expect("counts").unsigned_abs()
}

/// Jobs that are neither in the index nor in an arrival of their function: nothing would ever run them.
fn nowhere(database: &Connection) -> u64 {
    let sql = "SELECT count(*) FROM jobs WHERE rank = 9 AND NOT EXISTS (SELECT 1 FROM arrivals \
         WHERE arrivals.function = jobs.function AND seq BETWEEN first AND last)";
    database.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("counts").unsigned_abs()
}

/// The maintained counts are what counting would give.
fn assert_counts_are_right(database: &Connection) {
    let sql = "SELECT name, scheduled + queued + succeeded + failed + cancelled, \
         (SELECT count(*) FROM jobs WHERE function = functions.id), \
         queued, (SELECT count(*) FROM jobs WHERE function = functions.id AND rank BETWEEN 9 AND 19) FROM functions";
    let mut statement = database.prepare(sql).expect("prepares");
    let mut rows = statement.query([]).expect("counts");
    while let Some(row) = rows.next().expect("counts") {
        let numbers: Vec<i64> = (1..5).map(|at| row.get(at).expect("a number")).collect();
        assert_eq!((numbers[0], numbers[2]), (numbers[1], numbers[3]), "{:?}", row.get::<_, String>(0));
    }
}
