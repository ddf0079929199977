//! Retention of a large past: it goes in small steps between which submits are acknowledged, and its room is used again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use kvern_core::Keep;
use kvern_queue::Queue;
use rusqlite::Connection;
use tokio::task::JoinSet;

use crate::backlog::{fill, submit_on_and_on};
use crate::setup::{Setup, inline, job, name, success};

const JOBS: usize = 100_000;
/// Jobs of a step, as many as the worker's sweeper asks for.
const STEP: usize = 256;
/// Between two acknowledged submits lies at most this part of all steps, on whatever machine.
const PART: usize = 10;
/// The file may grow by this part of itself when as much comes as went: pages that are filled in another way.
const GROWTH: usize = 25;
const FOR_EVER: Duration = Duration::from_secs(u64::MAX / 1000);

/// So many jobs that have succeeded.
async fn succeed_many(t: &Setup, count: usize) {
    fill(t, count, |_| job("f")).await;
    let mut done = 0;
    while done < count {
        let mut settled = JoinSet::new();
        for leased in t.lease("f", 512).await {
            let (queue, success) = (Arc::clone(&t.queue), success(&leased.job, inline(b"done")));
            settled.spawn(async move { queue.settle(leased.lease, success).await });
        }
        assert!(!settled.is_empty(), "only {done} of {count} could be leased");
        for settled in settled.join_all().await {
            settled.expect("the lease stands");
            done += 1;
        }
    }
}

/// Sweeps until nothing is left to be forgotten, while submits go on. Gives how many were forgotten.
async fn forget(t: &Setup, keep: Keep) -> usize {
    let (stop, steps) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let done = Arc::clone(&steps);
    let look = move || done.load(Ordering::SeqCst);
    let submits = tokio::spawn(submit_on_and_on(Arc::clone(&t.queue), "other", Arc::clone(&stop), look));
    let retention = vec![(name("f"), keep)];
    let mut forgotten = 0;
    loop {
        let swept = t.queue.sweep(&retention, STEP).await.expect("it is open");
        assert!(swept.forgotten <= STEP, "{} in one step", swept.forgotten);
        forgotten += swept.forgotten;
        let all = steps.fetch_add(1, Ordering::SeqCst) + 1;
        if !swept.more {
            stop.store(true, Ordering::SeqCst);
            let seen = submits.await.expect("no panic");
            assert_acknowledged_all_the_while(&seen, all);
            return forgotten;
        }
    }
}

/// `seen` are the steps that were done at each acknowledgement.
fn assert_acknowledged_all_the_while(seen: &[usize], steps: usize) {
    let moments: Vec<usize> = [0].into_iter().chain(seen.iter().copied()).chain([steps]).collect();
    let gap = moments.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or(steps);
    assert!(gap <= steps / PART, "nothing was acknowledged during {gap} of {steps} steps; {} in all", seen.len());
}

/// Pages of the database.
fn pages(t: &Setup) -> usize {
    let database = Connection::open(t.dir.path().join("queue.db")).expect("a database");
    let pages = database.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0)).expect("counts");
    usize::try_from(pages).expect("a count")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_past_is_forgotten_without_a_pause_and_its_room_is_used_again() {
    let t = Setup::new();
    succeed_many(&t, JOBS).await;
    let full = pages(&t);
    t.clock.advance(Duration::from_secs(10));
    let by_age = Keep { succeeded: Duration::from_secs(5), failed: FOR_EVER, ..Keep::default() };
    assert_eq!(forget(&t, by_age).await, JOBS);

    succeed_many(&t, JOBS).await;
    let again = pages(&t);
    assert!(again <= full + full / GROWTH, "{full} pages were enough, and now there are {again}");
    let by_size = Keep { succeeded: FOR_EVER, failed: FOR_EVER, bytes: 0 };
    assert_eq!(forget(&t, by_size).await, JOBS);
}
