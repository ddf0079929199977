//! Calls share the slots of jobs, and are bounded.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kvern_core::{FailureCode, State};
use kvern_runtime::fake::Act;
use kvern_runtime::{Body, Call, CallError, Fake, Invoke};
use tokio::time::Instant;

use crate::simulation::judge::Piecewise;
use crate::support::{World, call, function, pass, settings, until, whole};

#[tokio::test(start_paused = true)]
async fn a_call_gets_its_reply_whole() {
    let world = World::with(vec![function("hello", 1)]).await;
    let reply = world.call("hello", "abc").await.expect("a reply");
    assert_eq!((reply.content_type.as_str(), whole(&reply)), ("text/plain", b"abc".as_slice()));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_unknown_function_is_said_to_be_unknown() {
    let world = World::with(vec![function("hello", 1)]).await;
    assert!(matches!(world.call("stranger", "x").await, Err(CallError::UnknownFunction(_))));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_fails_is_told_why_and_never_repeated() {
    let world = World::with(vec![function("broken", 1)]).await;
    world.fake.always("broken", Act::crash("killed by signal 11"));
    let error = world.call("broken", "x").await.expect_err("a failure");
    assert!(matches!(&error, CallError::Failed(failure) if failure.code == FailureCode::Crash), "{error:?}");
    assert_eq!(world.fake.counts("broken").attempts, 1);
    world.fake.refuse_starts("broken", 1, "SyntaxError");
    let error = world.call("broken", "x").await.expect_err("a failure");
    assert!(matches!(&error, CallError::Failed(failure) if failure.code == FailureCode::CannotStart), "{error:?}");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn calls_and_jobs_share_the_slots() {
    let world = World::with(vec![function("shared", 2)]).await;
    world.fake.always("shared", Act::echo().after(Duration::from_millis(100)));
    let mut ids = Vec::new();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        ids.push(world.submit("shared", "x").await);
        let worker = Arc::clone(&world.worker);
        calls.spawn(async move { worker.call(call("shared", "x")).await.is_ok() });
    }
    while let Some(ok) = calls.join_next().await {
        assert!(ok.expect("no panic"));
    }
    for id in ids {
        assert_eq!(world.ends(id).await.state, State::Succeeded);
    }
    assert_eq!(world.fake.counts("shared").running_max, 2);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn calls_do_not_starve_jobs() {
    let world = World::with(vec![function("shared", 1)]).await;
    world.fake.always("shared", Act::echo().after(Duration::from_millis(20)));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let worker = Arc::clone(&world.worker);
        callers.spawn(async move { while worker.call(call("shared", "x")).await.is_ok() {} });
    }
    until("calls wait", || world.fake.counts("shared").attempts > 10).await;
    let id = world.submit("shared", "x").await;
    let begin = Instant::now();
    world.reaches(id, State::Succeeded).await;
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    callers.shutdown().await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn only_so_many_calls_wait_and_not_for_ever() {
    let settings = kvern_worker::Settings { calls_waiting_max: 2, ..settings() };
    let world = World::new(vec![function("busy", 1)], Fake::new(), settings).await;
    world.fake.always("busy", Act::echo().after(Duration::from_secs(8)));
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let worker = Arc::clone(&world.worker);
        calls.spawn(async move { worker.call(call("busy", "x")).await });
        pass(Duration::from_millis(10)).await;
    }
    let begin = Instant::now();
    let refused = world.call("busy", "x").await;
    assert!(matches!(refused, Err(CallError::Busy { .. })), "{refused:?}");
    assert_eq!(begin.elapsed(), Duration::ZERO);
    let mut answers = Vec::new();
    while let Some(answer) = calls.join_next().await {
        answers.push(answer.expect("no panic").is_ok());
    }
    // The patience of five seconds is over before the first call ends.
    assert_eq!(answers, [false, false, true]);
    assert_eq!(world.fake.counts("busy").attempts, 1);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_stops_the_attempt() {
    let world = World::with(vec![function("long", 1)]).await;
    world.fake.always("long", Act::hang());
    let worker = Arc::clone(&world.worker);
    let caller = tokio::spawn(async move {
        let _ = worker.call(call("long", "x")).await;
    });
    until("it runs", || world.fake.counts("long").running == 1).await;
    caller.abort();
    until("it is stopped", || world.fake.counts("long").alive == 0).await;
    assert_eq!(world.fake.counts("long").dropped, 1);
    world.stop().await;
}

async fn piecewise(pieces: usize, fails: bool) -> World {
    let fake = Fake::new();
    let runtime = Arc::new(Piecewise { pieces, pause: Duration::from_secs(1), fails, fake: fake.clone() });
    World::over(vec![function("stream", 1)], fake, runtime, settings()).await
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_comes_in_pieces_is_streamed() {
    let world = piecewise(3, false).await;
    let begin = Instant::now();
    let reply = world.call("stream", "x").await.expect("a reply");
    assert!(begin.elapsed() < Duration::from_millis(20), "{:?}", begin.elapsed());
    let Body::Stream(mut stream) = reply.body else { panic!("not a stream") };
    let mut all = Vec::new();
    while let Some(piece) = stream.next().await {
        all.extend_from_slice(&piece.expect("no error"));
    }
    assert_eq!(all, b"piece 0;piece 1;piece 2;");
    assert_eq!(begin.elapsed().as_secs(), 3);
    drop(stream);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_attempt_fails_ends_with_an_error() {
    let world = piecewise(2, true).await;
    let reply = world.call("stream", "x").await.expect("a reply");
    let Body::Stream(stream) = reply.body else { panic!("not a stream") };
    let pieces: Vec<bool> = stream.map(|piece| piece.is_ok()).collect().await;
    assert_eq!(pieces, [true, true, false]);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_drops_the_stream_stops_the_attempt() {
    let world = piecewise(1000, false).await;
    let reply = world.call("stream", "x").await.expect("a reply");
    until("it runs", || world.fake.counts("stream").alive == 1).await;
    drop(reply);
    until("it is stopped", || world.fake.counts("stream").alive == 0).await;
    world.stop().await;
}

#[tokio::test]
async fn a_large_streamed_input_goes_through_a_file_that_is_removed() {
    let dir = std::env::temp_dir().join(format!("kvern-worker-test-{}", std::process::id()));
    let settings = kvern_worker::Settings { scratch_dir: dir.clone(), ..settings() };
    let world = World::new(vec![function("hello", 1)], Fake::new(), settings).await;
    let pieces = (0..5).map(|n| Ok(bytes::Bytes::from(vec![n; 40 << 10])));
    let body = Body::Stream(Box::pin(futures_util::stream::iter(pieces)));
    let reply = world.worker.call(Call { body, ..call("hello", "") }).await.expect("a reply");
    let got = match reply.body {
        Body::Bytes(bytes) => bytes.to_vec(),
        Body::Stream(stream) => {
            stream.map(|piece| piece.expect("no error").to_vec()).collect::<Vec<_>>().await.concat()
        }
        Body::File(..) => panic!("not from here"),
    };
    assert_eq!(got, (0..5).flat_map(|n| vec![n; 40 << 10]).collect::<Vec<u8>>());
    let left = std::fs::read_dir(&dir).expect("the scratch directory").count();
    assert_eq!(left, 0);
    std::fs::remove_dir(&dir).expect("empty");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_streamed_input_over_the_limit_is_refused() {
    let world = World::with(vec![function("hello", 1)]).await;
    let pieces = (0..40).map(|n| Ok(bytes::Bytes::from(vec![n; 40 << 10])));
    let body = Body::Stream(Box::pin(futures_util::stream::iter(pieces)));
    let refused = world.worker.call(Call { body, ..call("hello", "") }).await;
    assert!(matches!(&refused, Err(CallError::Failed(f)) if f.code == FailureCode::BadInput), "{refused:?}");
    assert_eq!(world.fake.counts("hello").attempts, 0);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_call_is_told_as_it_was() {
    let world = World::with(vec![function("told", 4)]).await;
    assert!(world.call("told", "x").await.is_ok());
    world.fake.always("told", Act::fail(FailureCode::Exception, "no"));
    assert!(world.call("told", "x").await.is_err());
    world.fake.always("told", Act::hang());
    assert!(world.call("told", "x").await.is_err());
    let gone = tokio::time::timeout(Duration::from_secs(1), world.call("told", "x")).await;
    assert!(gone.is_err(), "the caller does not wait any longer");
    until("the abandoned call is told", || world.ears.count("call") == 4).await;
    let told =
        ["succeeded", "failed", "timed_out", "cancelled"].map(|end| world.ears.count(&format!("call told {end}")));
    assert_eq!(told, [1; 4]);
    world.stop().await;
}
