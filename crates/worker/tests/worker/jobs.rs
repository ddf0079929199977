//! One job, from lease to settlement.

use std::sync::Arc;
use std::time::Duration;

use kvern_core::limits::{
    INLINE_BYTES_MAX, LOG_HEAD_BYTES_MAX, LOG_TAIL_BYTES_MAX, RESCUED_WITHIN, SETTLEMENTS_UNSYNCED_MAX,
    WORKER_LISTED_FOR,
};
use kvern_core::{FailureCode, State};
use kvern_queue::{Ask, Queue, Want};
use kvern_runtime::fake::Act;
use kvern_runtime::{Fake, Input};
use tokio::time::Instant;

use crate::support::{World, changed, function, pass, settings, until};

#[tokio::test(start_paused = true)]
async fn a_job_runs_and_its_result_and_log_are_stored() {
    let world = World::with(vec![function("hello", 1)]).await;
    world.fake.always("hello", Act::echo().printing("one line\n"));
    let id = world.submit("hello", "abc").await;
    let job = world.reaches(id, State::Succeeded).await;
    let result = world.queue.result(id).await.expect("stored").expect("there");
    assert_eq!(result.content_type.as_deref(), Some("text/plain"));
    assert_eq!(result.payload, bytes::Bytes::from("abc").into());
    assert_eq!(world.log(id).await, "one line\n");
    assert_eq!(job.attempts.len(), 1);
    assert!(job.attempts[0].version.is_some());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_instance_dies_runs_again_within_a_second() {
    let world = World::with(vec![function("fragile", 1)]).await;
    world.fake.on("fragile", |context, _| match context.attempt {
        1 => Act::crash("killed").after(Duration::from_secs(3)),
        _ => Act::echo(),
    });
    let id = world.submit("fragile", "x").await;
    world.reaches(id, State::Running).await;
    until("the crash", || world.ears.count("died") == 1).await;
    let died = Instant::now();
    let job = world.reaches(id, State::Succeeded).await;
    assert!(died.elapsed() < Duration::from_secs(1), "{:?}", died.elapsed());
    assert_eq!((job.tally.strikes, job.tally.failures), (1, 0));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_last_attempt_knows_that_it_is_the_last() {
    let world = World::with(vec![function("told", 1)]).await;
    world.fake.on("told", |context, _| match (context.attempt, context.attempt == context.attempts_max) {
        (1, false) => Act::crash("killed"),
        (_, false) => Act::fail(FailureCode::Exception, "not the last"),
        (_, true) => Act::fail(FailureCode::Exception, "the last"),
    });
    let id = world.submit("told", "x").await;
    let job = world.ends(id).await;
    let error = job.error.expect("it failed").message;
    assert_eq!((job.state, job.tally.attempts, error.as_str()), (State::Failed, 4, "the last"));
    let id = world.queue.retry(id).await.expect("a dead letter").id;
    let job = world.ends(id).await;
    let error = job.error.expect("it failed").message;
    assert_eq!((job.tally.attempts, error.as_str()), (7, "the last"), "a life of its own");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_crashed_job_runs_again_before_the_jobs_behind_it() {
    let world = World::with_slow_settlements(vec![function("fragile", 1)], Duration::from_millis(200)).await;
    world.fake.on("fragile", |context, input| match (context.attempt, input) {
        (1, Input::Bytes(bytes)) if bytes == "first" => Act::crash("killed"),
        (_, Input::Bytes(bytes)) if bytes == "first" => Act::echo(),
        _ => Act::echo().after(Duration::from_secs(60)),
    });
    let first = world.submit("fragile", "first").await;
    world.submit("fragile", "long").await;
    until("the crash", || world.ears.count("died") == 1).await;
    let died = Instant::now();
    world.reaches(first, State::Succeeded).await;
    assert!(died.elapsed() < Duration::from_secs(1), "{:?}", died.elapsed());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn three_strikes_make_a_dead_letter() {
    let world = World::with(vec![function("poison", 2)]).await;
    world.fake.always("poison", Act::crash("killed by signal 11"));
    let id = world.submit("poison", "x").await;
    let job = world.ends(id).await;
    assert_eq!((job.state, job.tally.strikes, job.attempts.len()), (State::Failed, 3, 3));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_waits_and_is_tried_again() {
    let world = World::with(vec![function("flaky", 1)]).await;
    world.fake.on("flaky", |context, _| match context.attempt {
        1 => Act::fail(FailureCode::Exception, "not yet"),
        _ => Act::echo(),
    });
    let begin = Instant::now();
    let id = world.submit("flaky", "x").await;
    let waiting = world.reaches(id, State::Scheduled).await;
    assert_eq!(waiting.error.map(|failure| failure.message), Some("not yet".to_owned()));
    world.reaches(id, State::Succeeded).await;
    assert!(begin.elapsed() >= Duration::from_secs(1));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_function_that_cannot_start_fails_its_job_with_its_own_words() {
    let world = World::with(vec![function("broken", 1)]).await;
    world.fake.refuse_starts("broken", u32::MAX, "SyntaxError: invalid syntax");
    let id = world.submit("broken", "x").await;
    let job = world.ends(id).await;
    let failure = job.error.expect("an error");
    assert_eq!((failure.code, failure.message.as_str()), (FailureCode::CannotStart, "SyntaxError: invalid syntax"));
    assert_eq!(job.tally.failures, 3);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_function_that_cannot_be_prepared_fails_its_jobs_with_the_reason() {
    let fake = Fake::new();
    fake.refuse_prepare("broken", Some("no python on PATH"));
    let world = World::new(vec![function("broken", 1)], fake, settings()).await;
    let id = world.submit("broken", "x").await;
    let failure = world.ends(id).await.error.expect("an error");
    assert_eq!((failure.code, failure.message.as_str()), (FailureCode::CannotStart, "no python on PATH"));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_function_that_cannot_start_does_not_use_up_its_backlog() {
    let world = World::with(vec![function("broken", 4)]).await;
    world.fake.refuse_starts("broken", u32::MAX, "SyntaxError");
    for _ in 0..100 {
        world.submit("broken", "x").await;
    }
    pass(Duration::from_secs(60)).await;
    let stats = world.queue.stats();
    let failed = stats.functions[0].1.failed;
    assert!((1..20).contains(&failed), "{failed}");

    // A good version goes on with the rest at once.
    world.fake.refuse_starts("broken", 0, "");
    world.worker.set_functions(vec![changed(function("broken", 4), "good")]).await;
    let begin = Instant::now();
    until("the rest runs", || world.queue.stats().functions[0].1.queued == 0).await;
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_function_that_was_never_prepared_does_not_use_up_its_backlog() {
    let fake = Fake::new();
    fake.refuse_prepare("broken", Some("no python on PATH"));
    let world = World::new(vec![function("broken", 4)], fake, settings()).await;
    for _ in 0..100 {
        world.submit("broken", "x").await;
    }
    pass(Duration::from_secs(60)).await;
    let failed = world.queue.stats().functions[0].1.failed;
    assert!((1..20).contains(&failed), "{failed}");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_until_its_settlement_is_stored() {
    let world = World::with_slow_settlements(vec![function("hello", 1)], Duration::from_secs(25)).await;
    let id = world.submit("hello", "x").await;
    let job = world.ends(id).await;
    assert_eq!((job.state, job.tally.interruptions, job.attempts.len()), (State::Succeeded, 0, 1));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_slot_is_free_before_its_settlement_is_stored_but_not_for_ever() {
    let world = World::with_slow_settlements(vec![function("hello", 1)], Duration::from_secs(5)).await;
    for _ in 0..SETTLEMENTS_UNSYNCED_MAX + 50 {
        world.submit("hello", "x").await;
    }
    pass(Duration::from_secs(4)).await;
    // One more waits with its output for a permit.
    assert_eq!(world.fake.counts("hello").attempts as usize, SETTLEMENTS_UNSYNCED_MAX + 1);
    until("all are stored", || world.queue.stats().functions[0].1.succeeded as usize == SETTLEMENTS_UNSYNCED_MAX + 50)
        .await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_of_an_unknown_function_stays_queued() {
    let world = World::with(vec![function("hello", 1)]).await;
    let id = world.submit("stranger", "x").await;
    pass(Duration::from_secs(20)).await;
    assert_eq!(world.job(id).await.state, State::Queued);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_cancel_reaches_a_running_attempt_within_a_second() {
    let world = World::with(vec![function("long", 1)]).await;
    world.fake.always("long", Act::hang());
    let id = world.submit("long", "x").await;
    until("it runs", || world.fake.counts("long").running == 1).await;
    pass(Duration::from_millis(1700)).await;
    world.queue.cancel(id).await.expect("marked");
    let asked = Instant::now();
    world.reaches(id, State::Cancelled).await;
    assert!(asked.elapsed() <= Duration::from_secs(1), "{:?}", asked.elapsed());
    assert_eq!((world.fake.counts("long").dropped, world.fake.counts("long").alive), (1, 0));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_cancel_reaches_a_job_whose_instance_still_starts() {
    let world = World::with(vec![function("slow", 1)]).await;
    world.fake.starts_take("slow", Duration::from_secs(60));
    let id = world.submit("slow", "x").await;
    world.reaches(id, State::Running).await;
    world.queue.cancel(id).await.expect("marked");
    let asked = Instant::now();
    world.reaches(id, State::Cancelled).await;
    assert!(asked.elapsed() <= Duration::from_secs(1), "{:?}", asked.elapsed());
    assert_eq!(world.fake.counts("slow").attempts, 0);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_attempt_whose_lease_is_over_is_stopped_and_its_outcome_dropped() {
    let world = World::with(vec![function("long", 2)]).await;
    world.fake.on("long", |context, _| if context.attempt == 1 { Act::hang() } else { Act::echo() });
    let id = world.submit("long", "x").await;
    until("it runs", || world.fake.counts("long").running == 1).await;
    pass(Duration::from_secs(2)).await;
    world.queue.reboot();
    let job = world.ends(id).await;
    until("the first attempt is stopped", || world.fake.counts("long").dropped == 1).await;
    assert_eq!((job.state, job.tally.interruptions), (State::Succeeded, 1));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_long_job_keeps_its_lease() {
    let mut long = function("long", 1);
    long.timeout = Duration::from_secs(100);
    let world = World::with(vec![long]).await;
    world.fake.always("long", Act::echo().after(Duration::from_secs(90)));
    let id = world.submit("long", "x").await;
    let job = world.ends(id).await;
    assert_eq!((job.state, job.attempts.len()), (State::Succeeded, 1));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_the_runtime_does_not_end_times_out_all_the_same() {
    let fake = Fake::new();
    let deaf = Arc::new(crate::simulation::judge::Deaf(fake.clone()));
    let world = World::over(vec![function("long", 1)], fake, deaf, settings()).await;
    world.fake.always("long", Act::hang());
    let id = world.submit("long", "x").await;
    let job = world.reaches(id, State::Scheduled).await;
    assert_eq!(job.error.map(|failure| failure.code), Some(FailureCode::Timeout));
    world.queue.cancel(id).await.expect("cancelled");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_large_result_is_staged_and_a_larger_one_refused() {
    let mut big = function("big", 1);
    big.max_output = 3 * INLINE_BYTES_MAX as u64;
    let world = World::with(vec![big]).await;
    let large = vec![b'x'; 2 * INLINE_BYTES_MAX];
    let id = world.submit("big", large.clone()).await;
    world.reaches(id, State::Succeeded).await;
    let result = world.queue.result(id).await.expect("stored").expect("there");
    assert_eq!(result.payload.len(), large.len() as u64);

    let id = world.submit("big", vec![b'x'; 4 * INLINE_BYTES_MAX]).await;
    let job = world.reaches(id, State::Failed).await;
    assert_eq!(job.error.map(|failure| failure.code), Some(FailureCode::ResultTooLarge));
    assert_eq!(job.attempts.len(), 1);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_log_can_be_followed_while_the_attempt_runs() {
    let world = World::with(vec![function("long", 1)]).await;
    world.fake.always("long", Act::echo().printing("begun\n").after(Duration::from_secs(5)));
    let id = world.submit("long", "x").await;
    until("it runs", || world.fake.counts("long").running == 1).await;
    pass(Duration::from_millis(300)).await;
    assert_eq!(world.log(id).await, "begun\n");
    world.ends(id).await;
    assert_eq!(world.log(id).await, "begun\n");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_log_is_bounded_and_says_what_was_dropped() {
    let world = World::with(vec![function("loud", 1)]).await;
    let megabytes = vec![b'x'; 8 << 20];
    world.fake.always("loud", Act::echo().printing(megabytes));
    let id = world.submit("loud", "x").await;
    world.ends(id).await;
    let log = world.log(id).await;
    assert!(log.len() < LOG_HEAD_BYTES_MAX + LOG_TAIL_BYTES_MAX + 100, "{}", log.len());
    let dropped = (8 << 20) - LOG_HEAD_BYTES_MAX - LOG_TAIL_BYTES_MAX;
    assert!(log.contains(&format!("[kvern: {dropped} bytes of this log were dropped here]")));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_ours_releases_the_job() {
    let fake = Fake::new();
    let panicking = Arc::new(crate::simulation::judge::Panicking::new(fake.clone(), 1));
    let world = World::over(vec![function("hello", 1)], fake, panicking, settings()).await;
    let id = world.submit("hello", "x").await;
    let job = world.ends(id).await;
    // The attempt that panicked left no trace in the record.
    assert_eq!((job.state, job.attempts.len(), job.tally.strikes), (State::Succeeded, 1, 0));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_worker_announces_its_versions_and_sweeps() {
    let world = World::with(vec![function("hello", 1)]).await;
    pass(2 * WORKER_LISTED_FOR).await;
    let workers = world.queue.workers().await.expect("open");
    assert_eq!(workers.len(), 1);
    assert_eq!(workers[0].functions, world.worker.versions());
    let id = world.submit("hello", "x").await;
    world.ends(id).await;
    pass(Duration::from_secs(3600 + 70)).await;
    assert!(world.queue.get(id).await.is_err(), "a job is forgotten after its keep");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn functions_share_a_worker_whose_slots_are_all_wanted() {
    let settings = kvern_worker::Settings { slots: 2, ..settings() };
    let world = World::new(vec![function("many", 8), function("few", 8)], Fake::new(), settings).await;
    let work = Act::echo().after(Duration::from_millis(100));
    world.fake.always("many", work.clone());
    world.fake.always("few", work);
    for _ in 0..200 {
        world.submit("many", "x").await;
    }
    let mut few = Vec::new();
    for _ in 0..10 {
        few.push(world.submit("few", "x").await);
    }
    let begin = Instant::now();
    for id in few {
        world.ends(id).await;
    }
    // Ten jobs with every other slot: about a second, where waiting for all of the others would take ten.
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    assert!(world.fake.counts("many").running + world.fake.counts("few").running <= 2);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_and_its_attempt_begin_at_the_same_time() {
    let world = World::with(vec![function("slow", 1)]).await;
    world.fake.starts_take("slow", Duration::from_millis(300));
    let id = world.submit("slow", "x").await;
    let job = world.reaches(id, State::Succeeded).await;
    assert_eq!(job.started_at, job.attempts.last().map(|attempt| attempt.started_at));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_job_of_a_lost_worker_runs_again_in_time() {
    let world = World::with(vec![function("other", 1)]).await;
    let id = world.submit("lost", "x").await;
    let wants = vec![Want { function: "lost".parse().expect("a name"), slots: 1 }];
    let ask = Ask { worker: "lost".to_owned(), wants, max: 1, wait: Duration::ZERO };
    let leased = world.queue.lease(ask).await.expect("a lease");
    assert_eq!(leased.len(), 1, "and nobody renews it");
    let begin = Instant::now();
    world.worker.set_functions(vec![function("other", 1), function("lost", 1)]).await;
    world.reaches(id, State::Succeeded).await;
    assert!(begin.elapsed() <= RESCUED_WITHIN, "{:?}", begin.elapsed());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_wait_begins_when_the_job_can_run() {
    let world = World::with(vec![function("hello", 1)]).await;
    let first = world.submit("hello", "x").await;
    let delay = Duration::from_secs(3600);
    let due_at = world.ends(first).await.created_at.after(delay);
    world.fake.on("hello", |context, _| match context.attempt {
        1 => Act::fail(FailureCode::Exception, "not yet"),
        2 => Act::fail(FailureCode::Permanent, "never"),
        _ => Act::echo(),
    });
    let late = world.submit_at("hello", "x", Some(due_at)).await;
    pass(delay).await;
    assert_eq!(world.ends(late).await.state, State::Failed);
    pass(delay).await;
    world.queue.retry(late).await.expect("a dead letter");
    world.reaches(late, State::Succeeded).await;
    let waits = world.ears.waits.lock().expect("no panic").clone();
    assert_eq!(waits.len(), 4);
    assert!(waits.iter().all(|wait| *wait < Duration::from_secs(1)), "{waits:?}");
    world.stop().await;
}
