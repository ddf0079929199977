//! How many instances there are, and what happens to those that die.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kvern_core::{FailureCode, JobId, State};
use kvern_runtime::fake::Act;
use kvern_runtime::{CallError, Fake};
use tokio::time::Instant;

use crate::support::{World, function, pass, settings, until};

async fn submit_many(world: &World, function: &str, count: usize) -> Vec<JobId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(world.submit(function, "x").await);
    }
    ids
}

#[tokio::test(start_paused = true)]
async fn work_scales_up_to_max_and_idleness_down_to_zero() {
    let mut wide = function("wide", 8);
    wide.scale.max = 4;
    let world = World::with(vec![wide]).await;
    world.fake.always("wide", Act::echo().after(Duration::from_secs(2)));
    for id in submit_many(&world, "wide", 12).await {
        world.reaches(id, State::Succeeded).await;
    }
    let counts = world.fake.counts("wide");
    assert_eq!((counts.starts, counts.running_max, counts.alive), (4, 4, 4));
    pass(Duration::from_secs(61)).await;
    assert_eq!(world.fake.counts("wide").alive, 0);
    let again = world.submit("wide", "x").await;
    world.reaches(again, State::Succeeded).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn short_jobs_do_not_start_instances_that_they_do_not_need() {
    let world = World::with(vec![function("quick", 8)]).await;
    world.fake.starts_take("quick", Duration::from_millis(80));
    world.fake.always("quick", Act::echo().after(Duration::from_micros(10)));
    let first = world.submit("quick", "x").await;
    world.ends(first).await;
    for id in submit_many(&world, "quick", 8).await {
        world.ends(id).await;
    }
    assert_eq!(world.fake.counts("quick").starts, 1);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn min_instances_stand_ready_and_are_replaced() {
    let mut kept = function("kept", 4);
    kept.scale.min = 2;
    let world = World::with(vec![kept]).await;
    until("two stand ready", || world.fake.counts("kept").alive == 2).await;
    pass(Duration::from_secs(600)).await;
    assert_eq!((world.fake.counts("kept").alive, world.fake.counts("kept").starts), (2, 2));
    world.fake.kill_instances("kept");
    let begin = Instant::now();
    until("two new ones", || world.fake.counts("kept").starts == 4).await;
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn instances_that_keep_dying_are_replaced_ever_more_rarely() {
    let mut frail = function("frail", 1);
    frail.scale.min = 1;
    let world = World::with(vec![frail]).await;
    let fake = world.fake.clone();
    let killer = tokio::spawn(async move {
        loop {
            pass(Duration::from_millis(10)).await;
            fake.kill_instances("frail");
        }
    });
    pass(Duration::from_secs(120)).await;
    let starts = world.fake.counts("frail").starts;
    assert!((8..20).contains(&starts), "{starts}");
    killer.abort();
    // Work does not wait for the pause.
    let id = world.submit("frail", "x").await;
    let begin = Instant::now();
    world.reaches(id, State::Succeeded).await;
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_death_without_min_costs_nothing() {
    let world = World::with(vec![function("hello", 1)]).await;
    let id = world.submit("hello", "x").await;
    world.ends(id).await;
    world.fake.kill_instances("hello");
    until("it is noticed", || world.ears.count("died") == 1).await;
    pass(Duration::from_secs(10)).await;
    assert_eq!((world.fake.counts("hello").starts, world.fake.counts("hello").alive), (1, 0));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_warm_instances_each_attempt_starts_its_own() {
    let world = World::with(vec![]).await;
    world.fake.set_warm("exec", false);
    world.fake.always("exec", Act::echo().after(Duration::from_millis(50)));
    world.worker.set_functions(vec![function("exec", 3)]).await;
    for id in submit_many(&world, "exec", 9).await {
        world.reaches(id, State::Succeeded).await;
    }
    let counts = world.fake.counts("exec");
    assert_eq!((counts.starts, counts.running_max, counts.alive), (9, 3, 0));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_failing_start_does_not_fail_jobs_that_a_live_instance_can_take() {
    let world = World::with(vec![function("mixed", 2)]).await;
    world.fake.always("mixed", Act::echo().after(Duration::from_secs(1)));
    let first = world.submit("mixed", "x").await;
    until("it runs", || world.fake.counts("mixed").running == 1).await;
    world.fake.refuse_starts("mixed", u32::MAX, "no memory");
    let second = world.submit("mixed", "x").await;
    assert_eq!(world.ends(first).await.state, State::Succeeded);
    let job = world.ends(second).await;
    assert_eq!((job.state, job.attempts.len()), (State::Succeeded, 1));
    // Starts were tried, but not every few milliseconds.
    assert!(world.fake.counts("mixed").refused < 8, "{:?}", world.fake.counts("mixed"));
    world.stop().await;
}

/// The job waits for room as long as it takes, and then runs as if nothing had been.
async fn waits_for_room(world: &World, give_room: impl FnOnce()) {
    let begin = Instant::now();
    let ids = submit_many(world, "roomy", 8).await;
    pass(Duration::from_secs(60)).await;
    for id in &ids {
        let job = world.job(*id).await;
        assert_eq!((job.tally.attempts, job.error), (0, None));
    }
    assert!(world.ears.count("released roomy not run") > 0, "they were given back");
    assert_eq!(world.ears.count("released roomy after a run"), 0, "no measurement of what did not happen");
    give_room();
    for id in ids {
        let job = world.reaches(id, State::Succeeded).await;
        assert_eq!((job.tally.attempts, job.tally.failures), (1, 0));
    }
    assert!(begin.elapsed() < Duration::from_secs(65), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_start_without_room_costs_no_attempt() {
    let world = World::with(vec![function("roomy", 4)]).await;
    world.fake.leave_no_room("roomy", u32::MAX);
    waits_for_room(&world, || world.fake.leave_no_room("roomy", 0)).await;
    let refused = world.fake.counts("roomy").refused;
    assert!(refused < 300, "{refused} starts were tried in a minute");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_attempt_without_room_costs_no_attempt() {
    for warm in [true, false] {
        let fake = Fake::new();
        fake.set_warm("roomy", warm);
        let world = World::new(vec![function("roomy", 4)], fake, settings()).await;
        let tried = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&tried);
        world.fake.on("roomy", move |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
            Act::fail(FailureCode::NoRoom, "too many open files")
        });
        waits_for_room(&world, || world.fake.always("roomy", Act::echo())).await;
        let tried = tried.load(Ordering::Relaxed);
        assert!((10..300).contains(&tried), "{tried} attempts were tried in a minute");
        world.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_without_room_may_come_back() {
    for warm in [true, false] {
        let fake = Fake::new();
        fake.set_warm("roomy", warm);
        let world = World::new(vec![function("roomy", 4)], fake, settings()).await;
        world.fake.leave_no_room("roomy", 1);
        let refused = world.call("roomy", "x").await;
        assert!(matches!(refused, Err(CallError::NoRoom { .. })), "{refused:?}");
        assert!(world.call("roomy", "x").await.is_ok());
        world.stop().await;
    }
}
