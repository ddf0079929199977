//! Functions that behave badly, and what is said of them; and the shims, case by case.

mod arguments;
mod cut_off;
mod exceptions;
mod exec;
mod forks;
mod hostile;
mod life;
mod memory;
mod node;
mod oldest;
mod protocol;
mod results;
mod starts;
#[path = "../support/mod.rs"]
mod support;

use bytes::Bytes;
use kvern_core::{Failure, FailureCode, Function, Outcome};
use kvern_runtime::Input;
use kvern_runtime::conformance::{Collected, Run, context};

use support::Bench;

/// Starts the function, runs one attempt with this input, and stops it.
async fn run(bench: &Bench, function: &Function, content_type: &str, input: &str) -> Run {
    let stage = bench.stage(function).await;
    let mut instance = stage.start().await;
    let mut context = context(function, content_type);
    if content_type.is_empty() {
        context.content_type = None;
    }
    let input = Input::Bytes(Bytes::copy_from_slice(input.as_bytes()));
    let run = stage.run_with(instance.as_mut(), &context, input, Collected::default()).await;
    instance.stop(support::GRACE).await;
    support::nothing_left(function).await;
    run
}

/// The same with JSON; the output as text.
async fn call(bench: &Bench, function: &Function, input: &str) -> String {
    let run = run(bench, function, "application/json", input).await;
    assert_eq!(run.outcome, Outcome::Succeeded, "log: {}", run.log.text());
    run.output.text()
}

/// The same; the failure, which must have this code.
async fn fails(bench: &Bench, function: &Function, input: &str, code: FailureCode) -> Failure {
    let run = run(bench, function, "application/json", input).await;
    let failure = run.outcome.failure().unwrap_or_else(|| panic!("it succeeded with {}", run.output.text())).clone();
    assert_eq!(failure.code, code, "{failure}: {:?}", failure.trace);
    assert_eq!(is_crash(code), matches!(run.outcome, Outcome::Crashed(_)), "{:?}", run.outcome);
    failure
}

fn is_crash(code: FailureCode) -> bool {
    matches!(code, FailureCode::Crash | FailureCode::OutOfMemory | FailureCode::ProtocolError)
}

/// The failure of a start that must fail.
async fn start_fails(bench: &Bench, function: &Function) -> Failure {
    let error = bench.stage(function).await.try_start().await.err().expect("it cannot start");
    support::nothing_left(function).await;
    assert_eq!(error.0.code, FailureCode::CannotStart, "{error}");
    error.0
}
