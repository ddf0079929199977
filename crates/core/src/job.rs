//! The record of a job: everything about it but its bytes.

use serde::{Deserialize, Serialize};

use crate::decide::Tally;
use crate::id::JobId;
use crate::name::FunctionName;
use crate::outcome::Failure;
use crate::state::State;
use crate::time::UnixMs;

/// One accepted piece of asynchronous work. Input, result and log are read apart, so a list never carries payloads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// The function that it names.
    pub function: FunctionName,
    /// Where it stands.
    pub state: State,
    /// When it was accepted.
    pub created_at: UnixMs,
    /// When it may run next; set while it is scheduled.
    pub due_at: Option<UnixMs>,
    /// Since when it can run, or from when on: when it was accepted or due, when another attempt was, when its last one was
    /// cut off, when somebody asked for another life of it. A release does not change it.
    pub ready_at: UnixMs,
    /// It fails if it has not started by then.
    pub expires_at: Option<UnixMs>,
    /// 0 (last) to 9 (first).
    pub priority: u8,
    /// Labels that the client gave.
    pub tags: Vec<(String, String)>,
    /// Content type of the input, as the client sent it.
    pub content_type: Option<String>,
    /// Size of the input, in bytes.
    pub input_bytes: u64,
    /// How often it was tried.
    pub tally: Tally,
    /// When the running or last attempt began.
    pub started_at: Option<UnixMs>,
    /// When it reached its final state.
    pub finished_at: Option<UnixMs>,
    /// The stored output, once it succeeded.
    pub result: Option<ResultInfo>,
    /// Why the last attempt failed; stays while later attempts wait, gone once the job succeeds.
    pub error: Option<Failure>,
    /// The attempts that ended, oldest first.
    pub attempts: Vec<Attempt>,
    /// Whether somebody asked to cancel it while it runs.
    pub cancel_requested: bool,
}

/// What is known of a result without reading it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultInfo {
    /// Content type that the function gave.
    pub content_type: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// One execution of a job, after it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its number, from 1.
    pub number: u32,
    /// How it ended: the word of [`crate::Outcome`], or `interrupted`.
    pub outcome: String,
    /// When it began.
    pub started_at: UnixMs,
    /// When it ended.
    pub finished_at: UnixMs,
    /// The version of the function that ran, as a short hash.
    pub version: Option<String>,
    /// Why it failed, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
