//! Runs every rule on a subject and prints the table.

use std::any::Any;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{JoinError, LocalSet};

use super::{MAY_BE_UNSUPPORTED, RULES, Rule, Subject};

/// A rule that takes longer hangs.
const RULE_TIME_MAX: Duration = Duration::from_secs(120);

/// How a rule came out.
enum Verdict {
    Ok,
    Unsupported(&'static str),
    Failed(String),
}

/// Runs every rule on the subject and prints a line for each; `KVERN_RULES=15,18` runs those alone. Wants a runtime with
/// several threads, so that what runs at the same time does.
///
/// # Panics
/// If a rule is broken, hangs, or is declared unsupported without being one that may be.
pub async fn run(subject: Arc<dyn Subject>) {
    let mut failed = Vec::new();
    for rule in RULES.iter().filter(|rule| is_asked_for(rule)) {
        let began = Instant::now();
        let verdict = judge(rule, &subject).await;
        print_line(subject.name(), rule, &verdict, began.elapsed());
        if let Verdict::Failed(_) = verdict {
            failed.push(rule.number);
        }
    }
    assert!(failed.is_empty(), "{} breaks the rules {failed:?} of the Queue contract", subject.name());
}

fn is_asked_for(rule: &Rule) -> bool {
    let Ok(asked) = std::env::var("KVERN_RULES") else { return true };
    asked.split(',').any(|number| number == rule.number.to_string())
}

async fn judge(rule: &Rule, subject: &Arc<dyn Subject>) -> Verdict {
    if let Some((_, reason)) = subject.unsupported().iter().find(|(number, _)| *number == rule.number) {
        let may_be = MAY_BE_UNSUPPORTED.contains(&rule.number);
        return if may_be {
            Verdict::Unsupported(reason)
        } else {
            Verdict::Failed(format!("declared unsupported ({reason}), but every adapter must keep it"))
        };
    }
    // A task of its own, so that a panic ends this rule and no other.
    let tasks = LocalSet::new();
    let task = tasks.spawn_local((rule.run)(Arc::clone(subject)));
    match tokio::time::timeout(RULE_TIME_MAX, tasks.run_until(task)).await {
        Ok(Ok(())) => Verdict::Ok,
        Ok(Err(error)) => Verdict::Failed(message_of(error)),
        Err(_) => Verdict::Failed(format!("did not end within {RULE_TIME_MAX:?}")),
    }
}

fn message_of(error: JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else { return "was cancelled".to_owned() };
    let panic: &(dyn Any + Send) = &*panic;
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("panicked").to_owned()
}

/// Past the test harness, which keeps what a test that passed has printed: in CI the table is read.
fn print_line(subject: &str, rule: &Rule, verdict: &Verdict, took: Duration) {
    let (word, message) = match verdict {
        Verdict::Ok => ("ok", ""),
        Verdict::Unsupported(reason) => ("unsupported", *reason),
        Verdict::Failed(message) => ("FAILED", message.as_str()),
    };
    let took = took.as_millis();
    let line = format!("{subject:<10} {:>2}  {:<55} {took:>6} ms  {word}  {message}\n", rule.number, rule.name);
    let _ = std::io::stderr().write_all(line.as_bytes());
}
