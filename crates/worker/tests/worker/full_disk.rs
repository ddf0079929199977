//! A queue that has no room for what attempts leave behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kvern_core::limits::{INLINE_BYTES_MAX, LEASE_TTL, SWEEP_EVERY};
use kvern_core::{FailureCode, State};
use kvern_queue::{Ask, Error, Queue, Want};
use kvern_runtime::fake::Act;
use kvern_runtime::{Body, Call, CallError, Invoke};
use tokio::time::Instant;

use crate::support::{World, call, function, pass, settings, until};

#[tokio::test(start_paused = true)]
async fn outcomes_without_room_are_kept_and_no_job_runs_twice() {
    let is_full = Arc::new(AtomicBool::new(true));
    let world = World::with_disk(vec![function("hello", 2)], &is_full).await;
    world.fake.always("hello", Act::echo().after(Duration::from_millis(20)));
    let mut ids = Vec::new();
    for _ in 0..40 {
        ids.push(world.submit("hello", "x").await);
    }
    // Many lives of a lease.
    pass(Duration::from_secs(90)).await;
    let begun = world.fake.counts("hello").attempts;
    assert!((1..=4).contains(&begun), "{begun} jobs began though no outcome could be stored");

    is_full.store(false, Ordering::Relaxed);
    for id in ids {
        let job = world.ends(id).await;
        assert_eq!((job.state, job.attempts.len(), job.tally.interruptions), (State::Succeeded, 1, 0));
    }
    assert_eq!(world.fake.counts("hello").attempts, 40);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_failed_for_good_ends_the_wait_for_room() {
    let is_full = Arc::new(AtomicBool::new(true));
    let world = World::with_disk(vec![function("hello", 1)], &is_full).await;
    world.fake.always("hello", Act::echo());
    world.submit("hello", "x").await;
    until("it ran", || world.fake.counts("hello").attempts == 1).await;
    pass(Duration::from_secs(20)).await;
    world.queue.close().await;
    is_full.store(false, Ordering::Relaxed);
    assert!(matches!(world.queue.closed().await, Error::Closed(_)));
    let drained = world.stop().await;
    assert_eq!((drained.finished, drained.unsettled), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_result_without_room_is_a_counted_attempt_and_the_next_waits_for_room() {
    let is_low = Arc::new(AtomicBool::new(true));
    let world = World::with_little_room(vec![function("large", 2), function("small", 1)], &is_low).await;
    world.fake.always("large", Act::echo());
    world.fake.always("small", Act::echo());
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(world.submit("large", vec![7; INLINE_BYTES_MAX + 1]).await);
    }
    until("one ran", || world.fake.counts("large").attempts > 0).await;
    pass(Duration::from_secs(90)).await;
    let begun = world.fake.counts("large").attempts;
    assert!((1..=3).contains(&begun), "{begun} attempts ran though no result could be stored");
    let small = world.submit("small", "x").await;
    assert_eq!(world.ends(small).await.state, State::Succeeded, "what fits goes on");

    is_low.store(false, Ordering::Relaxed);
    let mut failures = 0;
    for id in ids {
        let job = world.ends(id).await;
        assert_eq!(job.state, State::Succeeded);
        assert_eq!(job.attempts.len(), 1 + job.tally.failures as usize, "each run is told");
        assert!(job.attempts[0].error.as_ref().is_none_or(|error| error.contains("the function ran")), "{job:?}");
        failures += job.tally.failures;
    }
    assert_eq!(failures, begun);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn results_that_never_find_room_end_with_the_attempts() {
    let is_scarce = Arc::new(AtomicBool::new(true));
    let world = World::with_files(vec![function("large", 1)], &is_scarce).await;
    world.fake.always("large", Act::echo());
    let id = world.submit("large", vec![7; INLINE_BYTES_MAX + 1]).await;
    let job = world.ends(id).await;
    assert_eq!((job.state, job.attempts.len()), (State::Failed, 3));
    assert_eq!(job.error.map(|failure| failure.code), Some(FailureCode::ResultNotStored));
    assert_eq!(world.fake.counts("large").attempts, 3, "nothing ran uncounted");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn lost_leases_are_rescued_as_soon_as_there_is_room() {
    let is_full = Arc::new(AtomicBool::new(true));
    let world = World::with_disk(vec![function("hello", 1)], &is_full).await;
    let lost = world.submit("stranger", "x").await;
    let wants = vec![Want { function: "stranger".parse().expect("a name"), slots: 1 }];
    let ask = Ask { worker: "dead".to_owned(), wants, max: 1, wait: Duration::ZERO };
    assert_eq!(world.queue.lease(ask).await.expect("leased").len(), 1);
    pass(LEASE_TTL + Duration::from_secs(5)).await;
    assert_eq!(world.job(lost).await.state, State::Running, "nothing can be written");

    is_full.store(false, Ordering::Relaxed);
    let begin = Instant::now();
    world.reaches(lost, State::Queued).await;
    assert!(begin.elapsed() <= 2 * SWEEP_EVERY, "{:?}", begin.elapsed());
    world.stop().await;
}

/// A call whose input does not fit into memory.
fn large_call() -> Call {
    let pieces = (0..5).map(|n| Ok(bytes::Bytes::from(vec![n; INLINE_BYTES_MAX / 2])));
    Call { body: Body::Stream(Box::pin(futures_util::stream::iter(pieces))), ..call("hello", "") }
}

#[tokio::test(start_paused = true)]
async fn a_large_input_without_room_is_no_failure_of_the_function() {
    let is_full = Arc::new(AtomicBool::new(true));
    let world = World::with_disk(vec![function("hello", 1)], &is_full).await;
    let refused = world.worker.call(large_call()).await;
    assert!(matches!(refused, Err(CallError::NoSpace(_))), "{refused:?}");
    assert!(world.call("hello", "small").await.is_ok(), "what fits into memory needs no disk");
    assert_eq!(world.fake.counts("hello").attempts, 1);
    is_full.store(false, Ordering::Relaxed);
    assert!(world.worker.call(large_call()).await.is_ok());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_input_that_cannot_be_kept_is_no_failure_of_the_function() {
    let settings = kvern_worker::Settings { scratch_dir: "/dev/null/there-is-none".into(), ..settings() };
    let world = World::new(vec![function("hello", 1)], kvern_runtime::Fake::new(), settings).await;
    let refused = world.worker.call(large_call()).await;
    assert!(matches!(refused, Err(CallError::Broken(_))), "{refused:?}");
    assert_eq!(world.fake.counts("hello").attempts, 0);
    world.stop().await;
}
