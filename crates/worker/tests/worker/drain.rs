//! The end of a worker.

use std::time::Duration;

use kvern_core::{Function, State};
use kvern_queue::Queue;
use kvern_runtime::CallError;
use kvern_runtime::fake::Act;
use tokio::time::Instant;

use crate::support::{World, function, settings, until};

#[tokio::test(start_paused = true)]
async fn a_drain_lets_running_attempts_finish() {
    let world = World::with(vec![function("long", 2)]).await;
    world.fake.always("long", Act::echo().after(Duration::from_secs(8)));
    let (one, two) = (world.submit("long", "1").await, world.submit("long", "2").await);
    until("both run", || world.fake.counts("long").running == 2).await;
    let (queue, fake) = (world.queue.clone(), world.fake.clone());
    let waiting = world.submit("long", "3").await;
    let drained = world.stop().await;
    assert_eq!((drained.finished, drained.released), (2, 0));
    for id in [one, two] {
        assert_eq!(queue.get(id).await.expect("there").state, State::Succeeded);
    }
    assert_eq!(queue.get(waiting).await.expect("there").state, State::Queued);
    assert_eq!(fake.counts("long").alive, 0);
}

#[tokio::test(start_paused = true)]
async fn a_drain_stops_and_releases_what_does_not_finish() {
    let world = World::with(vec![function("endless", 1)]).await;
    world.fake.always("endless", Act::hang());
    let mut patient = function("endless", 1);
    patient.timeout = Duration::from_secs(1000);
    world.worker.set_functions(vec![patient]).await;
    let id = world.submit("endless", "x").await;
    until("it runs", || world.fake.counts("endless").running == 1).await;
    let (queue, fake) = (world.queue.clone(), world.fake.clone());
    let begin = Instant::now();
    let drained = world.stop().await;
    assert_eq!((drained.finished, drained.released), (0, 1));
    let job = queue.get(id).await.expect("there");
    assert_eq!((job.state, job.tally.attempts), (State::Queued, 0));
    assert_eq!(fake.counts("endless").alive, 0);
    assert!(begin.elapsed() <= Duration::from_secs(20), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_drain_releases_jobs_whose_instance_still_starts() {
    let world = World::with(vec![function("slow", 1)]).await;
    world.fake.starts_take("slow", Duration::from_secs(60));
    let id = world.submit("slow", "x").await;
    world.reaches(id, State::Running).await;
    let queue = world.queue.clone();
    let begin = Instant::now();
    let drained = world.stop().await;
    assert_eq!(drained.released, 1);
    assert_eq!(queue.get(id).await.expect("there").state, State::Queued);
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_drain_without_work_is_quick() {
    let mut kept = function("kept", 2);
    kept.scale.min = 2;
    let world = World::with(vec![kept]).await;
    until("both stand ready", || world.fake.counts("kept").alive == 2).await;
    let fake = world.fake.clone();
    let begin = Instant::now();
    world.stop().await;
    assert!(begin.elapsed() < Duration::from_millis(100), "{:?}", begin.elapsed());
    assert_eq!((fake.counts("kept").alive, fake.counts("kept").stops), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_stopping_worker_refuses_calls_and_ends_those_that_hang() {
    let world = World::with(vec![function("endless", 1)]).await;
    world.fake.always("endless", Act::hang());
    let mut patient = function("endless", 1);
    patient.timeout = Duration::from_secs(1000);
    world.worker.set_functions(vec![patient]).await;
    let worker = world.worker.clone();
    let hanging = tokio::spawn(async move {
        use kvern_runtime::Invoke;
        let result = worker.call(crate::support::call("endless", "x")).await;
        drop(worker);
        result
    });
    until("it runs", || world.fake.counts("endless").running == 1).await;
    world.shutdown.cancel();
    tokio::task::yield_now().await;
    until("calls are refused", || true).await;
    let refused = world.call("endless", "x").await;
    assert!(matches!(refused, Err(CallError::Stopping)), "{refused:?}");
    let ended = hanging.await.expect("no panic");
    assert!(matches!(ended, Err(CallError::CutOff)), "{ended:?}");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_worst_drain_ends_within_its_time_and_says_what_it_left() {
    let functions =
        ["endless", "quick"].map(|name| Function { timeout: Duration::from_secs(1000), ..function(name, 1) });
    let world = World::with_slow_settlements(functions.into(), Duration::from_secs(60)).await;
    world.fake.always("endless", Act::hang());
    world.submit("endless", "x").await;
    world.submit("quick", "x").await;
    until("it runs", || world.fake.counts("endless").running == 1).await;
    until("its end is not stored yet", || world.fake.counts("quick").attempts == 1).await;
    let begin = Instant::now();
    let drained = world.stop_somehow().await;
    assert_eq!((drained.finished, drained.unsettled, drained.stuck), (0, 2, 0));
    assert!(!drained.is_clean());
    assert!(begin.elapsed() <= settings().drain_time, "{:?}", begin.elapsed());
}
