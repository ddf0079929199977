//! How many instances there are, and what happens to those that die.

use std::time::Duration;

use kvern_core::{JobId, State};
use kvern_runtime::fake::Act;
use tokio::time::Instant;

use crate::support::{World, function, pass, until};

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
