//! The record of a job: everything about it but its bytes.

use serde::{Deserialize, Serialize};

use crate::decide::Tally;
use crate::id::JobId;
use crate::name::FunctionName;
use crate::outcome::Failure;
use crate::retry::RetryPolicy;
use crate::state::State;
use crate::time::UnixMs;

/// The tag of a job that is a call: somebody waits for it, so it has one attempt and is erased when it ends. Its key has a
/// colon, which no tag of a client has.
pub const CALL_TAG: &str = "kvern:call";

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

// === impl Job ===

impl Job {
    /// Whether somebody waits for it as for a call.
    #[must_use]
    pub fn is_call(&self) -> bool {
        self.tags.iter().any(|(key, _)| key == CALL_TAG)
    }

    /// The number of its attempt: of the running one, else of the last; 0 before the first.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.tally.attempts + u32::from(self.state == State::Running)
    }

    /// The number of the last attempt that it gets if all from here fail; of a job that is over, what its last attempt
    /// could have known.
    #[must_use]
    pub fn attempts_max(&self, policy: &RetryPolicy) -> u32 {
        let told = if self.state.is_final() { self.tally_before_last() } else { self.tally };
        told.attempts_max(policy)
    }

    fn tally_before_last(&self) -> Tally {
        let Tally { attempts, failures, .. } = self.tally;
        let was_failure =
            self.attempts.last().is_some_and(|last| matches!(last.outcome.as_str(), "failed" | "timed_out"));
        match (attempts, failures) {
            (0, _) => self.tally,
            // It was of an earlier life, and this life ended before it ran.
            (_, 0) if was_failure => self.tally,
            _ => Tally { attempts: attempts - 1, failures: failures - u32::from(was_failure), ..self.tally },
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A job with these attempts, each named by its outcome.
    fn job(state: State, outcomes: &[&str]) -> Job {
        let attempts = outcomes.iter().zip(1..).map(|(outcome, number)| Attempt {
            number,
            outcome: (*outcome).to_owned(),
            started_at: UnixMs(0),
            finished_at: UnixMs(0),
            version: None,
            error: None,
        });
        let count = |wanted: &str| outcomes.iter().filter(|outcome| **outcome == wanted).count() as u32;
        Job {
            id: "01890a5d-ac96-774b-bcce-b302099a8057".parse().expect("an id"),
            function: "f".parse().expect("a name"),
            state,
            created_at: UnixMs(0),
            ready_at: UnixMs(0),
            due_at: None,
            expires_at: None,
            priority: 5,
            tags: Vec::new(),
            content_type: None,
            input_bytes: 0,
            tally: Tally {
                attempts: outcomes.len() as u32,
                failures: count("failed"),
                strikes: count("crashed"),
                interruptions: count("interrupted"),
            },
            started_at: None,
            finished_at: None,
            result: None,
            error: None,
            attempts: attempts.collect(),
            cancel_requested: false,
        }
    }

    #[test]
    fn an_attempt_is_never_beyond_the_last() {
        let policy = RetryPolicy { attempts: 3, ..RetryPolicy::default() };
        let told = |state, outcomes: &[&str]| {
            let job = job(state, outcomes);
            (job.attempt(), job.attempts_max(&policy))
        };
        assert_eq!(told(State::Queued, &[]), (0, 3));
        assert_eq!(told(State::Running, &[]), (1, 3));
        assert_eq!(told(State::Scheduled, &["failed"]), (1, 3));
        assert_eq!(told(State::Running, &["failed", "failed"]), (3, 3));
        assert_eq!(told(State::Failed, &["failed", "failed", "failed"]), (3, 3));
        assert_eq!(told(State::Succeeded, &["succeeded"]), (1, 3));
        assert_eq!(told(State::Cancelled, &[]), (0, 3));
        assert_eq!(told(State::Cancelled, &["failed", "cancelled"]), (2, 3));
        assert_eq!(told(State::Running, &["interrupted", "failed"]), (3, 4));
        assert_eq!(
            told(State::Failed, &["crashed", "crashed", "crashed"]),
            (3, 5),
            "the last could not know of its end"
        );
    }

    #[test]
    fn another_life_has_attempts_of_its_own() {
        let policy = RetryPolicy { attempts: 3, ..RetryPolicy::default() };
        let again = |state, attempts: &[&str]| {
            let mut job = job(state, attempts);
            job.tally.failures -= 3;
            (job.attempt(), job.attempts_max(&policy))
        };
        let dead = ["failed", "failed", "failed"];
        assert_eq!(again(State::Queued, &dead), (3, 6));
        assert_eq!(again(State::Running, &dead), (4, 6));
        assert_eq!(again(State::Cancelled, &dead), (3, 6));
        assert_eq!(again(State::Succeeded, &["failed", "failed", "failed", "succeeded"]), (4, 6));
        assert_eq!(again(State::Failed, &[dead, dead].concat()), (6, 6));
    }
}
