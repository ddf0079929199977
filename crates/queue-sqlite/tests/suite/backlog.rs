//! Backlogs deeper than the window: order, fairness between due jobs and submits, and lists over all of it.

use std::time::Duration;

use kvern_core::State;
use kvern_queue::{Filter, NewJob, Queue, Settlement};
use tokio::task::JoinSet;

use crate::setup::{Setup, inline, job, until};

/// Deeper than two windows.
const DEEP: usize = 2500;

async fn fill(t: &Setup, count: usize, make: impl Fn(usize) -> NewJob) {
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
    fill(&t, DEEP, |at| NewJob { priority: (at % 3) as u8, ..job("f") }).await;
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
