//! Rules about logs, versions, errors and the environment.

use std::sync::Arc;
use std::time::Duration;

use kvern_core::{FailureCode, Outcome};

use super::stage::{Stage, context, until};
use super::{Behaviour, Shown, Subject};

/// What the function prints in rule 7: many times what a pipe holds.
const FLOOD_BYTES: u64 = 20 << 20;
/// More than any start takes at once in rule 13.
const PIECES_MAX: u32 = 64;
/// What every function may find in its environment, beside its own `env`.
const VARIABLES: [&str; 10] = [
    "PATH",
    "HOME",
    "LANG",
    "TMPDIR",
    "KVERN_JOB_ID",
    "KVERN_FUNCTION",
    "KVERN_ATTEMPT",
    "KVERN_ATTEMPTS_MAX",
    "KVERN_DEADLINE_MS",
    "KVERN_CONTENT_TYPE",
];

/// Rule 7.
pub(super) async fn logs_never_block_the_function(subject: Arc<dyn Subject>) -> Shown {
    let stage = Stage::of(subject.as_ref(), Behaviour::Flood).await?;
    let run = stage.run_once(&FLOOD_BYTES.to_string()).await;
    assert_eq!(run.outcome, Outcome::Succeeded);
    assert_eq!(run.log.len(), FLOOD_BYTES, "all that was printed before the result is in the log");
    Ok(())
}

/// Rule 9.
pub(super) async fn instances_are_of_one_version(subject: Arc<dyn Subject>) -> Shown {
    let one = Stage::of(subject.as_ref(), Behaviour::SaysOne).await?;
    assert_eq!(one.run_once("x").await.output.text().trim(), "one");
    let again = Stage::prepare(subject.runtime(), one.function()).await.expect("it can be prepared again");
    assert_eq!(again.version.version, one.version.version, "the same code is the same version");
    subject.say_two(one.function());
    assert_eq!(one.run_once("x").await.output.text().trim(), "one", "a version does not change with the files");
    let two = Stage::prepare(subject.runtime(), one.function()).await.expect("it can be prepared again");
    assert_ne!(two.version.version, one.version.version, "other code is another version");
    assert_eq!(two.run_once("x").await.output.text().trim(), "two");
    assert_eq!(one.run_once("x").await.output.text().trim(), "one");
    Ok(())
}

/// Rule 13. Every piece that starting takes is once the one that is missing.
pub(super) async fn no_room_is_nobodys_fault(subject: Arc<dyn Subject>) -> Shown {
    let stage = Stage::of(subject.as_ref(), Behaviour::Echo).await?;
    assert_eq!(stage.run_once("before").await.outcome, Outcome::Succeeded);
    for pieces in 0..PIECES_MAX {
        let guard = subject.leave_room(stage.function(), pieces)?;
        let code = match stage.try_start().await {
            Ok(mut instance) => {
                let run = stage.run(instance.as_mut(), "x").await;
                instance.stop(Duration::from_secs(1)).await;
                run.outcome.failure().map(|failure| failure.code)
            }
            Err(error) => Some(error.0.code),
        };
        drop(guard);
        until("nothing is left of it", || async { subject.left(stage.function()) == 0 }).await;
        match code {
            None if pieces > 0 => return Ok(()),
            code => assert_eq!(code, Some(FailureCode::NoRoom), "with room for {pieces}"),
        }
    }
    panic!("{PIECES_MAX} pieces are not enough");
}

/// Rule 10.
pub(super) async fn a_start_that_fails_says_why(subject: Arc<dyn Subject>) -> Shown {
    let stage = Stage::of(subject.as_ref(), Behaviour::CannotStart).await?;
    subject.spoil(stage.function());
    let error = stage.try_start().await.err().expect("it cannot start");
    let said = format!("{} {}", error.0.message, error.0.trace.unwrap_or_default());
    assert!(said.contains("because"), "the reason is named: {said}");
    until("nothing is left of it", || async { subject.left(stage.function()) == 0 }).await;
    Ok(())
}

/// Rule 11.
pub(super) async fn environment_is_only_what_is_declared(subject: Arc<dyn Subject>) -> Shown {
    let stage = Stage::of(subject.as_ref(), Behaviour::Environment).await?;
    let run = stage.run_once("x").await;
    assert_eq!(run.outcome, Outcome::Succeeded);
    let text = run.output.text();
    let context = context(stage.function(), "text/plain");
    let job = format!("KVERN_JOB_ID={}", context.job.expect("it is of a job"));
    let attempt = ["KVERN_ATTEMPT=1", "KVERN_ATTEMPTS_MAX=5", "KVERN_CONTENT_TYPE=text/plain", job.as_str()];
    for line in attempt {
        assert!(text.lines().any(|given| given == line), "{line} is missing in {text}");
    }
    let declared = stage.function().env.iter();
    for (name, value) in declared.clone() {
        assert!(text.lines().any(|given| given == format!("{name}={value}")), "{name} is missing in {text}");
    }
    for line in text.lines() {
        let name = line.split_once('=').map_or(line, |(name, _)| name);
        let is_known = VARIABLES.contains(&name)
            || subject.extra_variables().contains(&name)
            || declared.clone().any(|(declared, _)| declared == name);
        assert!(is_known, "nobody declared {name}");
    }
    Ok(())
}
