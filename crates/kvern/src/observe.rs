//! Who hears what the worker does: the metrics, the log, and in `kvern dev` the person at the terminal.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kvern_core::{Failure, FunctionName, JobId, Outcome};
use kvern_gateway::{Condition, Metrics};
use kvern_runtime::{FunctionVersion, Version};
use kvern_worker::{LoadError, Loaded, Observer, Settled};

use crate::plain::plain;
use crate::print::{self, Colour};

/// Passes on what the worker tells.
#[derive(Debug)]
pub(crate) struct Ears {
    metrics: Arc<Metrics>,
    fares: Mutex<HashMap<FunctionName, Fare>>,
    /// What a reload is due to; said before the first thing that comes of it.
    cause: Mutex<Option<String>>,
    lines: Lines,
}

/// What is known of a function.
#[derive(Debug, Default)]
struct Fare {
    /// The version that takes jobs.
    version: Option<Version>,
    /// The version whose instance started last.
    started: Option<Version>,
    /// Why an instance of this version did not start.
    failed: Option<(Version, String)>,
    /// Why a newer version did not take over.
    refused: Option<String>,
    /// Whether the person knows that jobs wait for it though the manifest has it no more.
    is_missed: bool,
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
        Self { metrics, fares: Mutex::default(), cause: Mutex::default(), lines }
    }

    /// How a function fares.
    pub(crate) fn condition(&self, function: &FunctionName) -> Condition {
        let fares = self.fares.lock().unwrap_or_else(PoisonError::into_inner);
        fares.get(function).map(Fare::condition).unwrap_or_default()
    }

    /// A reload begins, due to what these words say; they are printed if anything comes of it.
    pub(crate) fn reload_begins(&self, cause: String) {
        *self.cause.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause);
    }

    /// Prints what the reload is due to, once.
    pub(crate) fn say_cause(&self) {
        let cause = self.cause.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(cause) = cause {
            print::say(&print::paint(&cause, Colour::Dim));
        }
    }

    /// A reload has ended: a version that is what it was before is no longer behind one that was refused.
    pub(crate) fn reload_ended(&self, loaded: &[Loaded]) {
        for Loaded { function, .. } in loaded.iter().filter(|loaded| loaded.result.is_ok()) {
            let was_refused = self.set(function, |fare| fare.refused.take()).is_some();
            if was_refused && self.lines == Lines::EachJob {
                self.say_cause();
                print::say(&print::paint(&format!("{} ~ {function} is as before", now()), Colour::Accent));
            }
        }
        // Nothing came of it: then there is nothing to say.
        self.cause.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Jobs wait for a function that the manifest does not have. In `dev` a person saves often, and is told once.
    pub(crate) fn removed(&self, function: &FunctionName, jobs: u64) {
        tracing::warn!(%function, jobs, "jobs wait for a function that is not in kvern.toml");
        let is_known = self.set(function, |fare| std::mem::replace(&mut fare.is_missed, true));
        if self.lines == Lines::EachJob && !is_known {
            self.say_cause();
            print::say(&format!("{} ! {jobs} jobs wait for {function}, which is not here any more", now()));
        }
    }

    fn set<T>(&self, function: &FunctionName, change: impl FnOnce(&mut Fare) -> T) -> T {
        let mut fares = self.fares.lock().unwrap_or_else(PoisonError::into_inner);
        change(fares.entry(function.clone()).or_default())
    }
}

// === impl Fare ===

impl Fare {
    fn condition(&self) -> Condition {
        let is_this = |version: &Version| self.version.as_ref().is_none_or(|this| this == version);
        let failed = self.failed.as_ref().filter(|(version, _)| is_this(version)).map(|(_, why)| why);
        Condition {
            version: self.version.as_ref().map(ToString::to_string),
            error: self.refused.as_ref().or(failed).cloned(),
            started: self.version.is_some() && self.version == self.started,
        }
    }
}

impl Observer for Ears {
    fn job_settled(&self, settled: &Settled<'_>) {
        // A job that was given back before anything ran was no attempt.
        if let Some(times) = settled.times {
            let metrics = self.metrics.function(settled.function);
            metrics.observe_wait(times.wait);
            metrics.observe_run(times.run);
            metrics.finished(settled.outcome.map_or("interrupted", Outcome::as_str));
        }
        if self.lines == Lines::EachJob {
            print_job(settled);
        }
    }

    fn settlement_failed(&self, job: JobId, error: &kvern_queue::Error) {
        tracing::warn!(%job, %error, "the end of an attempt was not stored");
    }

    fn call_finished(&self, function: &FunctionName, outcome: &Outcome, run: Duration) {
        let metrics = self.metrics.function(function);
        metrics.observe_run(run);
        metrics.finished(outcome.as_str());
        if self.lines == Lines::EachJob {
            print_end(function, outcome, run, "call");
        }
    }

    fn printed(&self, _function: &FunctionName, _job: Option<JobId>, bytes: &[u8]) {
        if self.lines == Lines::EachJob {
            for line in String::from_utf8_lossy(bytes).lines() {
                print::say(&print::paint(&format!("           │ {}", plain(line)), Colour::Dim));
            }
        }
    }

    fn instance_failed(&self, version: &FunctionVersion, failure: &Failure) {
        let function = &version.function.name;
        self.set(function, |fare| fare.failed = Some((version.version.clone(), failure.to_string())));
        tracing::warn!(%function, version = %version.version, error = %failure, "an instance could not be started");
    }

    fn instance_started(&self, version: &FunctionVersion, pid: Option<u32>, cold_start: Duration) {
        let function = &version.function.name;
        self.set(function, |fare| {
            fare.failed = None;
            fare.started = Some(version.version.clone());
        });
        tracing::debug!(%function, version = %version.version, pid, cold_start_ms = cold_start.as_millis(), "instance started");
    }

    fn instance_died(&self, version: &FunctionVersion, pid: Option<u32>) {
        tracing::warn!(function = %version.function.name, version = %version.version, pid, "an instance died");
    }

    fn version_switched(&self, version: &FunctionVersion, old: Option<&Version>) {
        let function = &version.function.name;
        let (was_refused, is_broken) = self.set(function, |fare| {
            fare.version = Some(version.version.clone());
            fare.is_missed = false;
            let was_refused = fare.refused.take().is_some();
            (was_refused, fare.condition().error.is_some())
        });
        tracing::info!(%function, version = %version.version, "version ready");
        // The first versions are what `dev` greets with.
        let is_news = old.is_some() || was_refused;
        if self.lines == Lines::EachJob && is_news && !is_broken {
            self.say_cause();
            print::say(&print::paint(&format!("{} ~ {function} reloaded", now()), Colour::Accent));
        }
    }

    fn version_failed(&self, function: &FunctionName, error: &LoadError, serving: Option<&Version>) {
        self.set(function, |fare| fare.refused = Some(error.to_string()));
        tracing::error!(%function, %error, serving = serving.map(ToString::to_string), "a version could not be made ready");
        if self.lines == Lines::EachJob {
            self.say_cause();
            let error_text = plain(&error.to_string());
            print::say(&print::paint(&format!("{} ✖ {function} cannot start: {error_text}", now()), Colour::Bad));
            let words = match error {
                LoadError::Start(failure) => failure.trace.as_deref(),
                LoadError::Prepare(error) => error.detail.as_deref(),
            };
            for line in words.into_iter().flat_map(str::lines) {
                print::say(&format!("           {}", plain(line)));
            }
            if serving.is_some() {
                print::say("           the version before goes on; save a better one");
            }
        }
    }

    fn step(&self, line: &str) {
        match self.lines {
            Lines::EachJob => {
                self.say_cause();
                print::say(&format!("  {}", plain(line)));
            }
            Lines::Log => tracing::info!(step = line, "preparing"),
        }
    }
}

fn print_job(settled: &Settled<'_>) {
    let what = format!("job {}", settled.job);
    match settled.outcome {
        Some(outcome) => {
            let run = settled.times.map_or(Duration::ZERO, |times| times.run);
            print_end(settled.function, outcome, run, &what);
            if outcome.failure().is_some() {
                print::say(&format!("           attempt {}, now {}", settled.attempt, settled.state));
            }
        }
        None => print::say(&format!("{} ↺ {} released  {what}", now(), settled.function)),
    }
}

fn print_end(function: &FunctionName, outcome: &Outcome, run: Duration, what: &str) {
    let took = format!("{:.1} ms", run.as_secs_f64() * 1000.0);
    let Some(failure) = outcome.failure() else {
        let mark = match outcome {
            Outcome::Cancelled => print::paint("-", Colour::Dim),
            _ => print::paint("✔", Colour::Good),
        };
        let what = if *outcome == Outcome::Cancelled { &format!("{what}, cancelled") } else { what };
        print::say(&format!("{} {mark} {function} {took}  {}", now(), print::paint(what, Colour::Dim)));
        return;
    };
    print::say(&format!(
        "{} {} {function} {took}  {}",
        now(),
        print::paint("✖", Colour::Bad),
        print::paint(what, Colour::Dim)
    ));
    print::say(&print::paint(&format!("           {}", plain(&failure.to_string())), Colour::Bad));
    for line in failure.trace.iter().flat_map(|trace| trace.lines()) {
        print::say(&format!("           {}", plain(line)));
    }
}

/// The time of day, here.
pub(crate) fn now() -> String {
    jiff::Zoned::now().strftime("%H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use kvern_core::{FailureCode, Function};
    use kvern_runtime::PrepareError;

    use super::*;

    fn version(name: &str) -> FunctionVersion {
        let manifest =
            crate::manifest::check("[functions.f]\nhandler = \"f.py\"\n", std::path::Path::new("kvern.toml"));
        let function: Function = manifest.expect("a manifest").functions.remove(0);
        FunctionVersion {
            function: Arc::new(function),
            version: Version(name.into()),
            code: PathBuf::new(),
            packages: None,
        }
    }

    fn ears() -> (Ears, FunctionName) {
        (Ears::new(Arc::new(Metrics::new()), Lines::Log), "f".parse().expect("a name"))
    }

    #[test]
    fn a_version_that_never_started_is_not_called_started() {
        let (ears, f) = ears();
        assert_eq!(ears.condition(&f), Condition::default());
        ears.version_switched(&version("1"), None);
        assert!(!ears.condition(&f).started);
        ears.instance_started(&version("1"), None, Duration::ZERO);
        assert!(ears.condition(&f).started);
        ears.version_switched(&version("2"), Some(&version("1").version));
        assert!(!ears.condition(&f).started, "the new version has not");
    }

    #[test]
    fn a_first_version_that_does_not_start_stays_broken_when_it_takes_over() {
        let (ears, f) = ears();
        let failure = Failure::new(FailureCode::CannotStart, "SyntaxError");
        ears.instance_failed(&version("1"), &failure);
        ears.version_failed(&f, &LoadError::Start(failure), None);
        ears.version_switched(&version("1"), None);
        assert!(ears.condition(&f).error.is_some_and(|error| error.contains("SyntaxError")));
        ears.version_switched(&version("2"), Some(&version("1").version));
        assert_eq!(ears.condition(&f).error, None);
    }

    #[test]
    fn a_save_taken_back_mends_the_function() {
        let (ears, f) = ears();
        ears.version_switched(&version("1"), None);
        let error =
            LoadError::Prepare(PrepareError { message: "no such file".to_owned(), detail: None, is_shortage: false });
        ears.version_failed(&f, &error, Some(&version("1").version));
        assert!(ears.condition(&f).error.is_some());
        ears.reload_ended(&[Loaded { function: f.clone(), result: Ok(version("1").version) }]);
        assert_eq!(ears.condition(&f).error, None);
    }
}
