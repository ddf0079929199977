//! Rules about how attempts and instances end.

use std::sync::Arc;
use std::time::Duration;

use kvern_core::Outcome;
use tokio::time::Instant;

use super::stage::{Collected, Kept, Stage, context, until};
use super::{Behaviour, Shown, Subject};
use crate::contract::{Input, Instance, Log};

/// What the contract allows beyond deadline and grace.
const SLACK: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_millis(700);

/// Rule 3.
pub(super) async fn an_attempt_ends_by_its_deadline(subject: Arc<dyn Subject>) -> Shown {
    let mut shown = Err("nothing hangs");
    for behaviour in [Behaviour::Hang, Behaviour::Stubborn, Behaviour::Family] {
        let stage = match Stage::of(subject.as_ref(), behaviour).await {
            Ok(stage) => stage,
            Err(reason) => {
                shown = shown.map_err(|_| reason);
                continue;
            }
        };
        shown = Ok(());
        let mut instance = stage.start().await;
        let mut context = context(stage.function(), "text/plain");
        context.timeout = TIMEOUT;
        let run = stage.run_with(instance.as_mut(), &context, Input::Bytes("x".into()), Collected::default()).await;
        let Outcome::TimedOut(failure) = &run.outcome else { panic!("{behaviour:?}: {:?}", run.outcome) };
        assert!(failure.message.contains("700ms"), "the timeout is named: {failure}");
        assert!(run.took >= TIMEOUT, "{behaviour:?} was stopped too early: {:?}", run.took);
        assert!(run.took <= TIMEOUT + subject.grace() + SLACK, "{behaviour:?} was stopped too late: {:?}", run.took);
        if behaviour == Behaviour::Hang {
            assert!(run.took <= TIMEOUT + SLACK, "what ends on TERM is not waited for: {:?}", run.took);
        }
        if subject.runtime().is_warm(&stage.version) {
            assert!(!instance.is_usable(), "an instance that was stopped is not used again");
        }
        instance.stop(subject.grace()).await;
        assert_eq!(subject.left(stage.function()), 0, "{behaviour:?}: something is left");
    }
    shown
}

/// Rule 4.
pub(super) async fn a_dropped_run_is_a_stopped_run(subject: Arc<dyn Subject>) -> Shown {
    let grace = subject.grace();
    for behaviour in [Behaviour::Hang, Behaviour::Family, Behaviour::Stubborn] {
        let stage = match Stage::of(subject.as_ref(), behaviour).await {
            Ok(stage) => stage,
            Err(_) if behaviour != Behaviour::Hang => continue,
            Err(reason) => return Err(reason),
        };
        let mut instance = cut_off(&stage).await;
        assert!(!instance.is_usable(), "{behaviour:?}: the instance of a dropped run is not used again");
        let began = Instant::now();
        instance.stop(grace).await;
        let (took, left) = (began.elapsed(), subject.left(stage.function()));
        assert_eq!(left, 0, "{behaviour:?}: something is left by a stop after a dropped run");
        assert!(took <= grace + SLACK, "{behaviour:?}: stop took {took:?}");
        let is_patient = behaviour != Behaviour::Stubborn || took >= grace;
        assert!(is_patient, "{behaviour:?}: it was killed before its grace was over, after {took:?}");

        drop(cut_off(&stage).await);
        until("a dropped instance has ended", || async { subject.left(stage.function()) == 0 }).await;
    }
    Ok(())
}

/// An instance with an attempt in it that had begun when its `run` was dropped.
async fn cut_off(stage: &Stage) -> Box<dyn Instance> {
    let mut instance = stage.start().await;
    let context = context(stage.function(), "text/plain");
    let mut output = Collected::default();
    let kept = Arc::new(Kept::default());
    let log: Arc<dyn Log> = Arc::<Kept>::clone(&kept);
    {
        let run = instance.run(&context, Input::Bytes("x".into()), &mut output, &log);
        tokio::select! {
            outcome = run => panic!("it should hang: {outcome:?}"),
            () = kept.says("waiting\n") => {}
        }
    }
    instance
}

/// Rule 5.
pub(super) async fn death_is_seen_at_once(subject: Arc<dyn Subject>) -> Shown {
    let stage = Stage::of(subject.as_ref(), Behaviour::Die).await?;
    let mut instance = stage.start().await;
    let run = stage.run(instance.as_mut(), "x").await;
    assert!(matches!(run.outcome, Outcome::Crashed(_)), "{:?}", run.outcome);
    assert!(run.took < Duration::from_secs(2), "seen only after {:?}", run.took);
    assert!(run.log.text().contains("dying"), "what it said is kept: {:?}", run.log.text());
    if subject.runtime().is_warm(&stage.version) {
        assert!(!instance.is_usable(), "a dead instance is not used again");
        until("the child is gone too", || async { subject.left(stage.function()) == 0 }).await;
        idle_death_is_seen(subject.as_ref()).await;
    }
    instance.stop(subject.grace()).await;
    assert_eq!(subject.left(stage.function()), 0, "something is left");
    Ok(())
}

async fn idle_death_is_seen(subject: &dyn Subject) {
    let Ok(stage) = Stage::of(subject, Behaviour::Echo).await else { return };
    let mut instance = stage.start().await;
    let Some(pid) = instance.pid().and_then(|pid| rustix::process::Pid::from_raw(pid.try_into().ok()?)) else { return };
    assert!(tokio::time::timeout(Duration::from_millis(50), instance.died()).await.is_err(), "it lives");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it lives");
    tokio::time::timeout(Duration::from_secs(2), instance.died()).await.expect("the death of an idle instance is seen");
    assert!(!instance.is_usable());
    instance.stop(subject.grace()).await;
}

/// Rule 8.
pub(super) async fn stop_is_bounded(subject: Arc<dyn Subject>) -> Shown {
    for behaviour in [Behaviour::Echo, Behaviour::Parent] {
        let stage = match Stage::of(subject.as_ref(), behaviour).await {
            Ok(stage) => stage,
            Err(_) if behaviour == Behaviour::Parent => continue,
            Err(reason) => return Err(reason),
        };
        let mut instance = stage.start().await;
        let run = stage.run(instance.as_mut(), "x").await;
        assert_eq!(run.outcome, Outcome::Succeeded);
        let began = Instant::now();
        instance.stop(subject.grace()).await;
        assert!(began.elapsed() <= subject.grace() + SLACK, "{behaviour:?}: stop took {:?}", began.elapsed());
        assert_eq!(subject.left(stage.function()), 0, "{behaviour:?}: something is left");
    }
    Ok(())
}
