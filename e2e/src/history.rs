//! What clients asked and were told, for a judge that does not trust the server.
//!
//! A [`History`] holds every request from before it was sent, with its answer once that is there. A request without an
//! answer is *unknown*, which is not *failed*: it may have been done. The functions keep a log of their own, the
//! [`witness`]; [`check()`] compares both with what the server shows in the end.
//!
//! Read [`check`](mod@check) first: it says what is promised. [`Client`] asks a real server and keeps the history.

use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

pub mod check;
mod client;
#[cfg(test)]
mod tests;
mod violation;
pub mod witness;

pub use check::{Evidence, check};
pub use client::{Client, NOBODY_LISTENS, Submit};
pub use violation::Violation;
pub use witness::{End, Run};

/// Unix milliseconds of this machine's clock, which the server shares.
pub type Millis = u64;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// A submit. The note is in the job's input and its tag, so that the job can be told from all others. A submit with an
    /// `Idempotency-Key` that is sent again has the same note, any other has its own.
    Submit(u64),
    /// A cancel of a job.
    Cancel(String),
    /// A retry of a job.
    Retry(String),
    /// A look at the record of a job.
    Look(String),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The job with this id was accepted.
    Accepted(String),
    /// It was done, and this is the record after it.
    Shown(Record),
    /// It was not done.
    Refused(String),
    /// The answer was lost, or does not say: it may have been done or not.
    Unknown(String),
}

/// A request and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// What was asked.
    pub ask: Ask,
    /// When it was about to be sent.
    pub sent: Millis,
    /// What was answered; unknown as long as nothing was.
    pub told: Told,
    /// When that had come; never if nothing came.
    pub told_at: Millis,
}

/// What the server shows of a job, as far as the judge looks at it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Its id.
    pub id: String,
    /// Its state.
    pub state: String,
    /// The note in its tag, if it has one.
    pub note: Option<u64>,
    /// The running or last attempt.
    pub attempt: u64,
    /// When it reached its final state; empty before.
    pub finished_at: String,
    /// The attempts that ended: number and outcome.
    pub attempts: Vec<(u64, String)>,
}

/// Requests and answers in the order in which they were sent. Shared by all threads of a client.
#[derive(Debug, Default)]
pub struct History(Mutex<Vec<Asked>>);

/// The place of a request in the history.
#[derive(Debug)]
#[must_use = "the answer is to be recorded"]
pub struct Ticket(usize);

// === impl Asked ===

impl Asked {
    /// Whether it may have been done.
    #[must_use]
    pub fn may_be_done(&self) -> bool {
        !matches!(self.told, Told::Refused(_))
    }
}

// === impl Record ===

impl Record {
    /// From the JSON of the API.
    ///
    /// # Panics
    /// If it is not the record of a job.
    #[must_use]
    pub fn read(job: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("no number: {job}"));
        let attempts = job["attempts"].as_array().unwrap_or_else(|| panic!("no record of a job: {job}"));
        Self {
            id: text(&job["id"]),
            state: text(&job["state"]),
            note: job["tags"]["note"].as_str().and_then(|note| note.parse().ok()),
            attempt: number(&job["attempt"]),
            finished_at: text(&job["finished_at"]),
            attempts: attempts.iter().map(|a| (number(&a["number"]), text(&a["outcome"]))).collect(),
        }
    }

    /// Whether it has reached a final state.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self.state.as_str(), "succeeded" | "failed" | "cancelled")
    }

    /// What may never change while it is final.
    #[must_use]
    pub fn outcome(&self) -> (&str, u64, &str) {
        (&self.state, self.attempt, &self.finished_at)
    }
}

// === impl History ===

impl History {
    /// Records a request that is about to be sent.
    ///
    /// # Panics
    /// If another thread panicked here, as all of these.
    pub fn asks(&self, ask: Ask) -> Ticket {
        let told = Told::Unknown("no answer".to_owned());
        let mut asked = self.0.lock().expect("the history");
        asked.push(Asked { ask, sent: now(), told, told_at: Millis::MAX });
        Ticket(asked.len() - 1)
    }

    /// Records its answer.
    ///
    /// # Panics
    /// See [`History::asks`].
    pub fn told(&self, ticket: &Ticket, told: Told) {
        let asked = &mut self.0.lock().expect("the history")[ticket.0];
        // Without an answer it may be done at any time from here.
        asked.told_at = if matches!(told, Told::Unknown(_)) { Millis::MAX } else { now() };
        asked.told = told;
    }

    /// How many requests there were so far.
    ///
    /// # Panics
    /// See [`History::asks`].
    #[must_use]
    pub fn requests(&self) -> usize {
        self.0.lock().expect("the history").len()
    }

    /// Everything so far.
    ///
    /// # Panics
    /// See [`History::asks`].
    #[must_use]
    pub fn all(&self) -> Vec<Asked> {
        self.0.lock().expect("the history").clone()
    }
}

/// The time of this machine's clock.
///
/// # Panics
/// Before 1970.
#[must_use]
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    Millis::try_from(since.as_millis()).expect("a clock before the year 500,000,000")
}
