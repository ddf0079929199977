//! Backlogs deeper than the window: order, fairness between due jobs and submits, and lists over all of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kvern_core::State;
use kvern_queue::{Ask, Filter, NewJob, Queue, Settlement, Want};
use kvern_queue_sqlite::SqliteQueue;
use tokio::task::JoinSet;

use crate::setup::{Setup, inline, job, name, until};

/// Deeper than two windows.
pub(crate) const DEEP: usize = 2500;
/// As many as may well wait for one moment.
const FLOOD: usize = 100_000;
/// They come due in some 200 steps. In one single step there would be one submit between them, or two.
const SUBMITS_BETWEEN: usize = 40;

pub(crate) async fn fill(t: &Setup, count: usize, make: impl Fn(usize) -> NewJob) {
    let mut submits = JoinSet::new();
    for at in 0..count {
        let (queue, job) = (Arc::clone(&t.queue), make(at));
        submits.spawn(async move { queue.submit(job).await.map(drop) });
    }
    for submitted in submits.join_all().await {
        submitted.expect("there is room");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deep_backlog_is_leased_in_order_to_the_last_job() {
    let t = Setup::new();
    fill(&t, DEEP, |at| NewJob { priority: 3 + (at % 3) as u8, ..job("f") }).await;
    let mut places = Vec::new();
    while places.len() < DEEP {
        // In pieces that fit neither the window nor a page; a tenth is given back and comes again in its place.
        let mut leased = t.lease("f", 37).await;
        assert!(!leased.is_empty(), "after {} of {DEEP} jobs", places.len());
        for back in leased.split_off(leased.len() - leased.len() / 10) {
            t.queue.settle(back.lease, Settlement::Release).await.expect("the lease stands");
        }
        for one in leased {
            places.push((9 - one.job.priority, one.job.id));
            t.succeed(one, inline(b"")).await;
        }
    }
    assert!(places.is_sorted());
    assert!(t.lease("f", 1).await.is_empty());
    assert_eq!(t.queue.stats().functions[0].1.succeeded, DEEP as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn arrivals_go_when_their_jobs_have_moved_also_around_one_that_runs_long() {
    let t = Setup::new();
    let first = t.submit(job("f")).await;
    let long = t.lease("f", 1).await.pop().expect("a lease");
    let arrivals = async || {
        let database = rusqlite::Connection::open(t.dir.path().join("queue.db")).expect("opens");
        let count = "SELECT count(*), ifnull(min(first), 0) FROM arrivals";
        database.query_row(count, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))).expect("counts")
    };
    let held = arrivals().await;
    t.clock.advance(2 * kvern_queue::record::INTERRUPTION_COUNTS_AFTER);
    for _ in 0..5 {
        // Each in a commit of its own.
        for _ in 0..100 {
            t.submit(job("f")).await;
        }
        t.queue.renew(&[long.lease.token()]).await.expect("it stands");
        for leased in t.lease("f", 100).await {
            t.succeed(leased, inline(b"")).await;
        }
    }
    let (count, oldest) = arrivals().await;
    assert!(count < 150 && oldest != held.1, "{count} of 501 arrivals are left");
    let t = t.kill();
    assert_eq!(t.lease("f", 2).await.iter().map(|leased| leased.job.id).collect::<Vec<_>>(), [first]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_urgent_job_overtakes_a_deep_backlog() {
    let t = Setup::new();
    fill(&t, DEEP, |_| job("f")).await;
    let urgent = t.submit(NewJob { priority: 9, ..job("f") }).await;
    assert_eq!(t.lease("f", 1).await[0].job.id, urgent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deep_backlog_outlives_a_kill_and_is_listed_whole() {
    let t = Setup::new();
    fill(&t, DEEP, |_| job("f")).await;
    let t = t.kill();
    let running = t.lease("f", 5).await.len();
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let page = t.queue.list(&Filter::default(), cursor.as_ref(), 300).await.expect("lists");
        seen.extend(page.jobs.iter().map(|job| job.id));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), DEEP);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), DEEP, "each job once");
    let states = vec![State::Running];
    let page = t.queue.list(&Filter { states, ..Filter::default() }, None, 100).await.expect("lists");
    assert_eq!(page.jobs.len(), running);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_due_at_once_do_not_hold_up_submits() {
    let t = Setup::new();
    let due_at = t.clock.now().after(Duration::from_secs(60));
    fill(&t, DEEP, |_| NewJob { not_before: Some(due_at), ..job("f") }).await;
    t.clock.advance(Duration::from_secs(60));
    // One lease wakes the writer, which queues the jobs a few hundred at a time.
    assert!(!t.lease("f", 1).await.is_empty());
    t.submit(job("other")).await;
    assert_eq!(t.lease("other", 1).await.len(), 1);
    until("all are queued", async || t.queue.stats().functions[0].1.scheduled == 0).await;
    assert_eq!(t.queue.stats().functions[0].1.queued, DEEP as u64 - 1);
}

/// Submits one job of a function after the other until told to stop. Gives what `look` saw after each.
pub(crate) async fn submit_on_and_on<T>(
    queue: Arc<SqliteQueue>,
    function: &str,
    stop: Arc<AtomicBool>,
    look: impl Fn() -> T,
) -> Vec<T> {
    let mut seen = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        queue.submit(job(function)).await.expect("there is room");
        seen.push(look());
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_jobs_due_at_once_all_start_and_hold_up_no_submit() {
    let t = Setup::new();
    let due_at = t.clock.now().after(Duration::from_secs(60));
    fill(&t, FLOOD, |_| NewJob { not_before: Some(due_at), ..job("f") }).await;
    let (queue, stop) = (Arc::clone(&t.queue), Arc::new(AtomicBool::new(false)));
    let looked_at = Arc::clone(&queue);
    let waits_for_its_time =
        move || looked_at.stats().functions.iter().find(|f| f.0 == name("f")).map(|f| f.1.scheduled);
    let submits = tokio::spawn(submit_on_and_on(queue, "other", Arc::clone(&stop), waits_for_its_time));

    t.clock.advance(Duration::from_secs(60));
    let mut started = 0;
    while started < FLOOD {
        let wants = vec![Want { function: name("f"), slots: 512 }];
        let ask = Ask { worker: "tester".to_owned(), wants, max: 512, wait: Duration::from_secs(60) };
        let leased = t.queue.lease(ask).await.expect("it is open");
        assert!(!leased.is_empty(), "only {started} of {FLOOD} started");
        started += leased.len();
    }
    stop.store(true, Ordering::SeqCst);
    let left = submits.await.expect("no panic");
    assert_eq!(started, FLOOD);
    // While they were queued, a step at a time, submits came between the steps.
    let between = left.iter().flatten().filter(|left| (1..FLOOD as u64).contains(*left)).count();
    assert!(between >= SUBMITS_BETWEEN, "{between} of {} submits were acknowledged while jobs came due", left.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn large_inputs_keep_the_window_small_and_starve_nobody() {
    let t = Setup::new();
    let large = bytes::Bytes::from(vec![7; 60 << 10]);
    // Three times what all windows may hold.
    let input = kvern_queue::Payload::Inline(large);
    fill(&t, 400, |_| NewJob { input: input.clone(), ..job("large") }).await;
    t.submit(job("small")).await;
    assert_eq!(t.lease("small", 1).await.len(), 1);
    let mut count = 0;
    while count < 400 {
        let leased = t.lease("large", 50).await;
        assert!(!leased.is_empty());
        count += leased.len();
    }
}
