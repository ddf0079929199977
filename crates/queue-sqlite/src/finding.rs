//! Findings: what a check has to say, each with what to do about it.

use kvern_core::{FunctionName, JobId, State};
use serde::Serialize;

use crate::checksum::{Looked, Part};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something that was stored is lost or wrong.
    Damaged,
    /// Nothing is lost; somebody should know.
    Warning,
}

/// One thing that a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// A stable word for it.
    pub code: &'static str,
    /// The job concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// Its function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionName>,
    /// Its state; queued for one that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// What was found.
    pub what: String,
    /// What to do.
    pub fix: &'static str,
}

const FIX_RECORD: &str = "stop the server, keep a copy of its data directory, and restore the last backup";
const FIX_WAITING: &str =
    "the server fails this job with reason `damaged` by itself; submit it again where it came from";
const FIX_ENDED: &str = "the job has ended and its outcome stands; only a retry would need the input, and would fail";
const FIX_RESULT: &str = "submit the job again where it came from, or look into the last backup";

impl Finding {
    /// About no job in particular.
    pub(crate) fn new(level: Level, code: &'static str, what: impl Into<String>, fix: &'static str) -> Self {
        Self { level, code, job: None, function: None, state: None, what: what.into(), fix }
    }

    /// What is damaged of a job.
    pub(crate) fn of_job(looked: &Looked) -> impl Iterator<Item = Self> {
        looked.damaged.iter().map(|(part, what)| {
            let is_final = looked.state.is_some_and(State::is_final);
            let (code, whose, fix) = match part {
                Part::Record => ("record", "the record", FIX_RECORD),
                Part::Input if is_final => ("input", "the input", FIX_ENDED),
                Part::Input => ("input", "the input", FIX_WAITING),
                Part::Result => ("result", "the result", FIX_RESULT),
            };
            let (job, function, state) = (looked.id, looked.function.clone(), looked.state);
            Self { level: Level::Damaged, code, job, function, state, what: format!("{whose} is damaged: {what}"), fix }
        })
    }
}
