//! Who hears what the worker does: the metrics, the log, and in `kvern dev` the person at the terminal.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kvern_core::{Failure, FunctionName, JobId, Outcome};
use kvern_gateway::{Condition, Metrics};
use kvern_runtime::{FunctionVersion, Version};
use kvern_worker::{LoadError, Observer, Settled};

use crate::print::{self, Colour};

/// Passes on what the worker tells.
#[derive(Debug)]
pub(crate) struct Ears {
    metrics: Arc<Metrics>,
    conditions: Mutex<HashMap<FunctionName, Condition>>,
    lines: Lines,
}

/// What a person at the terminal sees of the jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lines {
    /// The log only: for `serve`.
    Log,
    /// One line per job, and the traces of failures: for `dev`.
    EachJob,
}

// === impl Ears ===

impl Ears {
    /// Ears that count in `metrics` and print `lines`.
    pub(crate) fn new(metrics: Arc<Metrics>, lines: Lines) -> Self {
        Self { metrics, conditions: Mutex::default(), lines }
    }

    /// How a function fares.
    pub(crate) fn condition(&self, function: &FunctionName) -> Condition {
        let conditions = self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        conditions.get(function).cloned().unwrap_or_default()
    }

    fn set(&self, function: &FunctionName, change: impl FnOnce(&mut Condition)) {
        let mut conditions = self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        change(conditions.entry(function.clone()).or_default());
    }
}

impl Observer for Ears {
    fn job_settled(&self, settled: &Settled<'_>) {
        let metrics = self.metrics.function(settled.function);
        metrics.observe_wait(settled.wait);
        metrics.observe_run(settled.run);
        metrics.finished(settled.outcome.map_or("interrupted", Outcome::as_str));
        if self.lines == Lines::EachJob {
            print_job(settled);
        }
    }

    fn settlement_failed(&self, job: JobId, error: &kvern_queue::Error) {
        tracing::warn!(%job, %error, "the end of an attempt was not stored");
    }

    fn call_finished(&self, function: &FunctionName, failure: Option<&Failure>, run: Duration) {
        let metrics = self.metrics.function(function);
        metrics.observe_run(run);
        metrics.finished(if failure.is_none() { "succeeded" } else { "failed" });
        if self.lines == Lines::EachJob {
            print_end(function, failure, run, "call");
        }
    }

    fn printed(&self, _function: &FunctionName, _job: Option<JobId>, bytes: &[u8]) {
        if self.lines == Lines::EachJob {
            for line in String::from_utf8_lossy(bytes).lines() {
                print::say(&print::paint(&format!("           │ {line}"), Colour::Dim));
            }
        }
    }

    fn instance_failed(&self, version: &FunctionVersion, failure: &Failure) {
        let function = &version.function.name;
        self.set(function, |condition| condition.error = Some(failure.to_string()));
        tracing::warn!(%function, version = %version.version, error = %failure, "an instance could not be started");
    }

    fn instance_started(&self, version: &FunctionVersion, pid: Option<u32>, cold_start: Duration) {
        let function = &version.function.name;
        self.set(function, |condition| condition.error = None);
        tracing::debug!(%function, version = %version.version, pid, cold_start_ms = cold_start.as_millis(), "instance started");
    }

    fn instance_died(&self, version: &FunctionVersion, pid: Option<u32>) {
        tracing::warn!(function = %version.function.name, version = %version.version, pid, "an instance died");
    }

    fn version_switched(&self, version: &FunctionVersion, old: Option<&Version>) {
        let function = &version.function.name;
        self.set(function, |condition| {
            *condition = Condition { version: Some(version.version.to_string()), error: None };
        });
        tracing::info!(%function, version = %version.version, "version ready");
        if self.lines == Lines::EachJob && old.is_some() {
            print::say(&print::paint(&format!("{} ~ {function} reloaded", now()), Colour::Accent));
        }
    }

    fn version_failed(&self, function: &FunctionName, error: &LoadError, serving: Option<&Version>) {
        self.set(function, |condition| condition.error = Some(error.to_string()));
        tracing::error!(%function, %error, serving = serving.map(ToString::to_string), "a version could not be made ready");
        if self.lines == Lines::EachJob {
            print::say(&print::paint(&format!("{} ✖ {function} cannot start: {error}", now()), Colour::Bad));
            let words = match error {
                LoadError::Start(failure) => failure.trace.as_deref(),
                LoadError::Prepare(error) => error.detail.as_deref(),
            };
            for line in words.into_iter().flat_map(str::lines) {
                print::say(&format!("           {line}"));
            }
            if serving.is_some() {
                print::say("           the version before goes on; save a better one");
            }
        }
    }

    fn step(&self, line: &str) {
        match self.lines {
            Lines::EachJob => print::say(&format!("  {line}")),
            Lines::Log => tracing::info!(step = line, "preparing"),
        }
    }
}

fn print_job(settled: &Settled<'_>) {
    let what = format!("job {}", settled.job);
    match settled.outcome {
        Some(outcome) => {
            print_end(settled.function, outcome.failure(), settled.run, &what);
            if outcome.failure().is_some() {
                print::say(&format!("           attempt {}, now {}", settled.attempt, settled.state));
            }
        }
        None => print::say(&format!("{} ↺ {} released  {what}", now(), settled.function)),
    }
}

fn print_end(function: &FunctionName, failure: Option<&Failure>, run: Duration, what: &str) {
    let took = format!("{:.1} ms", run.as_secs_f64() * 1000.0);
    let Some(failure) = failure else {
        print::say(&format!(
            "{} {} {function} {took}  {}",
            now(),
            print::paint("✔", Colour::Good),
            print::paint(what, Colour::Dim)
        ));
        return;
    };
    print::say(&format!(
        "{} {} {function} {took}  {}",
        now(),
        print::paint("✖", Colour::Bad),
        print::paint(what, Colour::Dim)
    ));
    print::say(&print::paint(&format!("           {failure}"), Colour::Bad));
    for line in failure.trace.iter().flat_map(|trace| trace.lines()) {
        print::say(&format!("           {line}"));
    }
}

/// The time of day, here.
pub(crate) fn now() -> String {
    jiff::Zoned::now().strftime("%H:%M:%S").to_string()
}
