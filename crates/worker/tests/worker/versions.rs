//! New versions take over from old ones, or do not.

use std::time::Duration;

use kvern_core::State;
use kvern_runtime::Fake;
use kvern_runtime::fake::Act;
use kvern_worker::LoadError;

use crate::support::{World, changed, function, pass, settings, until, whole};

#[tokio::test(start_paused = true)]
async fn a_new_version_is_ready_before_the_old_one_goes() {
    let world = World::with(vec![function("hello", 1)]).await;
    let id = world.submit("hello", "x").await;
    let old = world.ends(id).await.attempts[0].version.clone();
    world.fake.starts_take("hello", Duration::from_secs(2));
    world.fake.always("hello", Act::echo().after(Duration::from_secs(3)));
    let running = world.submit("hello", "x").await;
    until("it runs", || world.fake.counts("hello").running == 1).await;

    world.worker.set_functions(vec![changed(function("hello", 1), "new")]).await;
    assert_eq!(world.fake.counts("hello").alive, 2, "the old one still has its attempt");
    let needed = || world.worker.versions_in_use().len();
    assert_eq!(needed(), 2, "its code stays as long");
    let next = world.submit("hello", "x").await;
    assert_eq!(world.ends(running).await.attempts[0].version, old);
    let new = world.ends(next).await.attempts[0].version.clone();
    assert_ne!(new, old);
    assert_eq!(world.fake.counts("hello").alive, 1);
    assert_eq!(world.fake.counts("hello").running_max, 1, "both versions share the slots");
    assert_eq!(needed(), 1, "nothing runs from the old one");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_version_that_does_not_start_leaves_the_old_one_serving() {
    let world = World::with(vec![function("hello", 1)]).await;
    let id = world.submit("hello", "x").await;
    let old = world.ends(id).await.attempts[0].version.clone();
    world.fake.refuse_starts("hello", 1, "SyntaxError");
    let loaded = world.worker.set_functions(vec![changed(function("hello", 1), "bad")]).await;
    assert!(matches!(&loaded[0].result, Err(LoadError::Start(failure)) if failure.message == "SyntaxError"));
    assert_eq!(world.ears.count("failed hello: SyntaxError; old serves"), 1);
    let id = world.submit("hello", "x").await;
    assert_eq!(world.ends(id).await.attempts[0].version, old);

    let loaded = world.worker.set_functions(vec![changed(function("hello", 1), "good")]).await;
    assert!(loaded[0].result.is_ok());
    let id = world.submit("hello", "x").await;
    assert_ne!(world.ends(id).await.attempts[0].version, old);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_version_that_cannot_be_prepared_leaves_the_old_one_serving() {
    let world = World::with(vec![function("hello", 1)]).await;
    world.fake.refuse_prepare("hello", Some("no such requirement"));
    let loaded = world.worker.set_functions(vec![changed(function("hello", 1), "bad")]).await;
    assert!(matches!(&loaded[0].result, Err(LoadError::Prepare(error)) if error.message == "no such requirement"));
    let id = world.submit("hello", "x").await;
    assert_eq!(world.ends(id).await.state, State::Succeeded);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_function_that_is_repaired_runs() {
    let fake = Fake::new();
    fake.refuse_prepare("hello", Some("a file is missing"));
    let world = World::new(vec![function("hello", 1)], fake, settings()).await;
    let id = world.submit("hello", "x").await;
    world.reaches(id, State::Scheduled).await;
    world.fake.refuse_prepare("hello", None);
    world.worker.set_functions(vec![function("hello", 1)]).await;
    assert_eq!(world.ends(id).await.state, State::Succeeded);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_same_version_keeps_its_instances() {
    let world = World::with(vec![function("hello", 1)]).await;
    let id = world.submit("hello", "x").await;
    world.ends(id).await;
    world.worker.set_functions(vec![function("hello", 1)]).await;
    let id = world.submit("hello", "x").await;
    world.ends(id).await;
    assert_eq!(world.fake.counts("hello").starts, 1);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_function_that_is_removed_takes_no_more_jobs() {
    let world = World::with(vec![function("hello", 1), function("old", 1)]).await;
    world.fake.always("old", Act::echo().after(Duration::from_secs(3)));
    let running = world.submit("old", "x").await;
    until("it runs", || world.fake.counts("old").running == 1).await;
    world.worker.set_functions(vec![function("hello", 1)]).await;
    let waiting = world.submit("old", "x").await;
    assert_eq!(world.ends(running).await.state, State::Succeeded);
    pass(Duration::from_secs(5)).await;
    assert_eq!(world.job(waiting).await.state, State::Queued);
    assert_eq!(world.fake.counts("old").alive, 0);

    world.worker.set_functions(vec![function("hello", 1), function("old", 1)]).await;
    assert_eq!(world.ends(waiting).await.state, State::Succeeded);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_function_that_comes_back_shares_its_slots_with_what_still_runs() {
    let world = World::with(vec![function("old", 1)]).await;
    world.fake.always("old", Act::echo().after(Duration::from_secs(3)));
    let running = world.submit("old", "x").await;
    until("it runs", || world.fake.counts("old").running == 1).await;
    world.worker.set_functions(vec![]).await;
    world.worker.set_functions(vec![function("old", 1)]).await;
    let next = world.submit("old", "x").await;
    world.ends(running).await;
    world.ends(next).await;
    assert_eq!(world.fake.counts("old").running_max, 1);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_a_function_that_is_expected() {
    let world = World::with(vec![]).await;
    let hello = [function("hello", 1)];
    world.worker.expect(&hello);
    // The call comes first.
    let (reply, loaded) = tokio::join!(world.call("hello", "early"), world.worker.set_functions(hello.to_vec()));
    assert_eq!(whole(&reply.expect("a reply")), b"early");
    assert_eq!(loaded.len(), 1);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_the_first_version() {
    let world = World::with(vec![]).await;
    let slow = std::sync::Arc::clone(&world.worker);
    world.fake.starts_take("hello", Duration::from_secs(1));
    let mut hello = function("hello", 1);
    hello.scale.min = 1;
    let loading = tokio::spawn(async move { slow.set_functions(vec![hello]).await.len() });
    tokio::task::yield_now().await;
    let reply = world.call("hello", "early").await.expect("a reply");
    assert_eq!(whole(&reply), b"early");
    assert_eq!(loading.await.expect("no panic"), 1);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn jobs_wait_while_there_is_no_room_for_the_code() {
    let world = World::with(Vec::new()).await;
    world.fake.lack_room_to_prepare("hello");
    let loaded = world.worker.set_functions(vec![function("hello", 1)]).await;
    assert!(matches!(&loaded[0].result, Err(LoadError::Prepare(error)) if error.is_shortage));
    let id = world.submit("hello", "x").await;
    until("it is tried again", || world.fake.counts("hello").prepares > 3).await;
    assert_eq!((world.job(id).await.state, world.job(id).await.tally.attempts), (State::Queued, 0));
    assert_eq!(world.ears.count("failed hello: a full disk; none"), 1, "it is said once");

    world.fake.refuse_prepare("hello", None);
    let job = world.ends(id).await;
    assert_eq!((job.state, job.attempts.len()), (State::Succeeded, 1));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_takes_over_from_one_that_waits_for_room() {
    let world = World::with(Vec::new()).await;
    world.fake.lack_room_to_prepare("hello");
    world.worker.set_functions(vec![function("hello", 1)]).await;
    world.fake.refuse_prepare("hello", Some("no such file"));
    world.worker.set_functions(vec![changed(function("hello", 1), "new")]).await;
    let prepares = world.fake.counts("hello").prepares;
    pass(Duration::from_secs(60)).await;
    assert_eq!(world.fake.counts("hello").prepares, prepares, "the first reload does not go on");
    let id = world.submit("hello", "x").await;
    assert_eq!(world.ends(id).await.error.map(|failure| failure.message), Some("no such file".to_owned()));
    world.stop().await;
}
