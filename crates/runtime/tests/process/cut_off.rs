//! Attempts that are ended from outside: by whoever drops their run and stops the instance, or by their deadline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kvern_core::Outcome;
use kvern_runtime::conformance::{Collected, Kept, Run, Stage, context, until};
use kvern_runtime::{Context, Input, Instance, Log};

use crate::support::{Bench, GRACE, left, skip};

/// Holds a lock that a child in a session of its own holds too, and ignores TERM with it; or says that nobody else has it.
const LOCK: &str = "\
exec 9>>lock
flock -n 9 || { echo 'another attempt is still there' >&2; exit 3; }
read -r then
test \"$then\" = stay || { echo alone; exit; }
trap '' TERM
setsid sleep 1000 &
echo waiting >&2
while :; do sleep 1; done
";
/// Enough for what wins a race by chance to lose it.
const ROUNDS: usize = 10;

fn has_flock(test: &str) -> bool {
    let has = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|at| at.join("flock").exists());
    if !has {
        skip(test, "there is no program flock");
    }
    has
}

/// An instance whose run was dropped once the function had said `waiting`.
async fn cut_off(stage: &Stage, input: &'static str) -> Box<dyn Instance> {
    let mut instance = stage.start().await;
    let kept = Arc::new(Kept::default());
    let log: Arc<dyn Log> = Arc::<Kept>::clone(&kept);
    let (context, mut output) = (context(stage.function(), "text/plain"), Collected::default());
    tokio::select! {
        outcome = instance.run(&context, Input::Bytes(input.into()), &mut output, &log) => panic!("it ended: {outcome:?}"),
        () = kept.says("waiting\n") => {}
    }
    instance
}

/// Runs an attempt in an instance of its own, with this much time.
async fn run_for(stage: &Stage, input: &'static str, timeout: Duration) -> Run {
    let context = Context { timeout, ..context(stage.function(), "text/plain") };
    let mut instance = stage.start().await;
    let run = stage.run_with(instance.as_mut(), &context, Input::Bytes(input.into()), Collected::default()).await;
    instance.stop(Duration::from_secs(1)).await;
    run
}

/// Nobody holds the lock now, and the next attempt gets it.
async fn is_alone(stage: &Stage, round: usize) {
    let lock = std::fs::File::open(stage.function().home.join("lock")).expect("the first attempt has made it");
    assert!(lock.try_lock().is_ok(), "round {round}: something of the attempt is left");
    // Closing alone would leave it to a process that another test has just forked.
    lock.unlock().expect("unlocked");
    let run = run_for(stage, "go\n", Duration::from_secs(60)).await;
    assert_eq!(run.output.text(), "alone\n", "round {round}: {:?}, {}", run.outcome, run.log.text());
}

#[tokio::test]
async fn the_next_attempt_does_not_overlap_one_that_was_cut_off() {
    if !has_flock("the_next_attempt_does_not_overlap_one_that_was_cut_off") {
        return;
    }
    let bench = Bench::new();
    let stage = bench.stage(&bench.shell(LOCK)).await;
    for round in 0..ROUNDS {
        cut_off(&stage, "stay\n").await.stop(Duration::from_millis(20)).await;
        is_alone(&stage, round).await;
    }
}

#[tokio::test]
async fn the_next_attempt_does_not_overlap_one_that_was_late() {
    if !has_flock("the_next_attempt_does_not_overlap_one_that_was_late") {
        return;
    }
    let bench = Bench::with(|settings| settings.grace = Duration::from_millis(20));
    let stage = bench.stage(&bench.shell(LOCK)).await;
    let mut timeout = Duration::from_millis(200);
    for round in 0..ROUNDS {
        loop {
            let run = run_for(&stage, "stay\n", timeout).await;
            assert!(matches!(run.outcome, Outcome::TimedOut(_)), "{:?}", run.outcome);
            if run.log.text().contains("waiting") {
                break;
            }
            // A slow machine takes longer to get there.
            timeout *= 2;
        }
        is_alone(&stage, round).await;
    }
}

#[tokio::test]
async fn term_reaches_the_whole_group() {
    let bench = Bench::new();
    // What fills the pipe in its last moments is read by nobody, and hinders nobody.
    let function = bench.shell(
        "trap 'wait; head -c 200000 /dev/zero; head -c 200000 /dev/zero >&2; echo main >>ended; exit' TERM\n\
         (trap 'echo child >>ended; exit' TERM; echo waiting >&2; while :; do sleep 0.01; done) &\n\
         wait\n",
    );
    let stage = bench.stage(&function).await;
    let instance = cut_off(&stage, "").await;
    let began = Instant::now();
    instance.stop(GRACE * 10).await;
    assert!(began.elapsed() < GRACE * 10, "it ended at TERM: {:?}", began.elapsed());
    assert_eq!(left(&function), 0);
    let ended = std::fs::read_to_string(function.home.join("ended")).expect("the traps have run");
    assert_eq!(ended, "child\nmain\n");
}

#[tokio::test]
async fn term_is_sent_once() {
    let bench = Bench::with(|settings| settings.grace = GRACE * 100);
    let function = bench.shell("trap 'echo asked >>asked' TERM; until test -e go; do sleep 0.01; done");
    let stage = bench.stage(&function).await;
    let mut instance = stage.start().await;
    let asked = || std::fs::read_to_string(function.home.join("asked")).unwrap_or_default();
    let (mut context, mut output) = (context(&function, "text/plain"), Collected::default());
    context.timeout = Duration::from_millis(300);
    let log: Arc<dyn Log> = Arc::new(Kept::default());
    tokio::select! {
        outcome = instance.run(&context, Input::Bytes(Bytes::new()), &mut output, &log) => panic!("it ended: {outcome:?}"),
        () = until("it to be asked at its deadline", || async { !asked().is_empty() }) => {}
    }
    let going = async { std::fs::write(function.home.join("go"), "").expect("a file") };
    tokio::join!(instance.stop(GRACE * 100), going);
    assert_eq!(asked(), "asked\n");
}

#[tokio::test]
async fn an_attempt_can_be_cut_off_while_it_starts() {
    let bench = Bench::new();
    let function = bench.shell("echo running >&2; sleep 1000");
    let stage = bench.stage(&function).await;
    let context = context(&function, "text/plain");
    let log: Arc<dyn Log> = Arc::new(Kept::default());
    // From before the jail runs to when the process does.
    for millis in 0..ROUNDS as u64 {
        let mut instance = stage.start().await;
        let mut output = Collected::default();
        let run = instance.run(&context, Input::Bytes(Bytes::new()), &mut output, &log);
        assert!(tokio::time::timeout(Duration::from_millis(millis), run).await.is_err(), "it sleeps");
        instance.stop(GRACE).await;
        assert_eq!(left(&function), 0, "cut off after {millis} ms");
    }
}
