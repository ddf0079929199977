//! Backlogs deeper than the window: order, fairness between due jobs and submits, and lists over all of it.

use std::time::Duration;

use kvern_core::State;
use kvern_queue::{Filter, NewJob, Queue, Settlement};
use tokio::task::JoinSet;

use crate::setup::{Setup, inline, job, until};

/// Deeper than two windows.
pub(crate) const DEEP: usize = 2500;

pub(crate) async fn fill(t: &Setup, count: usize, make: impl Fn(usize) -> NewJob) {
    let mut submits = JoinSet::new();
    for at in 0..count {
        let (queue, job) = (std::sync::Arc::clone(&t.queue), make(at));
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
