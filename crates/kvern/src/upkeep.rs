//! What `doctor`, `backup` and `restore` have in common: how they tell what they do and what they found.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::config;
use crate::exit::{Outcome, Stop};
use crate::print::{self, Colour, paint};
use crate::wire::kept::{Finding, Level, Progress, Report};

/// Whoever works longer than this says how far it is, and again after each such time.
const SILENT_MAX: Duration = Duration::from_secs(2);
/// What is larger than this takes a while, though nobody knows how long.
const LARGE_BYTES: u64 = 256 << 20;
/// Nicer than a server by this much: what is looked after must not slow down what works.
const NICER_BY: i32 = 10;

/// Tells a person how far a long work is.
#[derive(Debug)]
pub(crate) struct Told {
    last: Instant,
}

/// The data directory: as given, or the default one.
pub(crate) fn data_dir(given: Option<&PathBuf>) -> Result<PathBuf, Stop> {
    given.map_or_else(config::data_dir, |data| Ok(data.clone()))
}

/// Steps behind everyone who has work to do.
pub(crate) fn step_back() {
    // If that is not allowed it works all the same.
    let _ = rustix::process::setpriority_process(None, NICER_BY);
}

/// Findings as lines: what, and below it what to do.
pub(crate) fn print_findings(findings: &[Finding]) {
    for finding in findings {
        let level = match finding.level {
            Level::Damaged => paint("damaged", Colour::Bad),
            Level::Warning => "warning".to_owned(),
        };
        let whose = match (finding.job, &finding.function, finding.state) {
            (Some(job), Some(function), Some(state)) => format!("job {job} ({function}, {state}): "),
            (Some(job), ..) => format!("job {job}: "),
            _ => String::new(),
        };
        print::say(&format!("{level}  {whose}{}\n         {}", finding.what, finding.fix));
    }
}

/// Fails if something is damaged.
pub(crate) fn judge(damaged: u64, what_to_say: impl FnOnce(u64) -> Stop) -> Outcome {
    if damaged == 0 { Ok(()) } else { Err(what_to_say(damaged)) }
}

/// How much of this is damage.
pub(crate) fn damaged(findings: &[Finding]) -> u64 {
    findings.iter().filter(|finding| finding.level == Level::Damaged).count() as u64
}

/// How much damage was found at least: what is beyond the bound of a report may be damage or not.
pub(crate) fn damaged_of(report: &Report) -> u64 {
    damaged(&report.findings).max(u64::from(report.is_damaged))
}

/// A document with more in it.
pub(crate) fn with(mut document: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().into_iter().flatten() {
        document[key] = value.clone();
    }
    document
}

// === impl Told ===

impl Told {
    pub(crate) fn new() -> Self {
        Self { last: Instant::now() }
    }

    /// Hears how far it is.
    pub(crate) fn hear(&mut self, progress: Progress) {
        if let Some(line) = self.line(progress, Instant::now()) {
            print::say(&line);
        }
    }

    /// What is said now, if anything.
    fn line(&mut self, progress: Progress, now: Instant) -> Option<String> {
        let Progress { doing, done, of } = progress;
        let is_blind = done == 0 && of >= LARGE_BYTES;
        if !is_blind && now.duration_since(self.last) < SILENT_MAX {
            return None;
        }
        self.last = now;
        if done == 0 {
            return Some(format!("{doing} …"));
        }
        let percent = u128::from(done) * 100 / u128::from(of.max(1));
        Some(format!("{doing}: {} %", percent.min(100)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_work_is_silent_and_long_work_is_not() {
        let mut told = Told::new();
        let began = told.last;
        let progress = |done, of| Progress { doing: "copying", done, of };
        let mut at = |seconds, progress| told.line(progress, began + Duration::from_secs(seconds));
        assert_eq!(at(0, progress(0, 1 << 20)), None);
        assert_eq!(at(1, progress(1 << 19, 1 << 20)), None);
        assert_eq!(at(1, progress(0, 1 << 30)).as_deref(), Some("copying …"));
        assert_eq!(at(2, progress(1 << 28, 1 << 30)), None);
        assert_eq!(at(3, progress(1 << 29, 1 << 30)).as_deref(), Some("copying: 50 %"));
        assert_eq!(at(9, progress(1 << 31, 1 << 30)).as_deref(), Some("copying: 100 %"));
    }
}
