//! What is compared: answers in which the ids, which differ, are replaced by the order of acceptance.

use std::fmt::Debug;

use kvern_core::id::Sequence;
use kvern_core::{Job, JobId, State, UnixMs};
use proptest::test_runner::TestCaseError;

use super::operation::Operation;
use crate::error::Error;
use crate::job::Submitted;

/// The ids of one queue, in the order of acceptance.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<JobId>);

/// Where the two queues differ.
#[derive(Debug)]
pub(super) struct Difference(String);

// === impl Names ===

impl Names {
    /// The ids so far.
    pub(super) fn ids(&self) -> &[JobId] {
        &self.0
    }

    pub(super) fn add(&mut self, id: JobId) {
        self.0.push(id);
    }

    /// Forgets all but the first so many.
    pub(super) fn keep(&mut self, count: usize) {
        self.0.truncate(count);
    }

    /// The same name for the same job on either queue; an id that was never given out stays as it is.
    pub(super) fn common(&self, id: JobId) -> JobId {
        let at = self.0.iter().position(|known| *known == id);
        at.map_or(id, |at| JobId::new(Sequence::from_bits(at as u64 + 1), 0))
    }

    /// A record as it is compared: due jobs are as good as queued.
    pub(super) fn job(&self, mut job: Job, now: UnixMs) -> Job {
        if crate::record::is_due(&job, now) {
            (job.state, job.due_at) = (State::Queued, None);
        }
        job.id = self.common(job.id);
        job
    }

    pub(super) fn submitted(&self, submitted: Submitted) -> Submitted {
        Submitted { id: self.common(submitted.id), ..submitted }
    }

    /// The kind of an error, with what a caller acts on.
    pub(super) fn error(&self, error: &Error) -> String {
        match error {
            Error::Full { function, limit } => format!("full: {function}, {limit}"),
            Error::KeyReused(id) => format!("key reused: {}", self.common(*id)),
            Error::UnknownJob(id) => format!("unknown job: {}", self.common(*id)),
            Error::WrongState { id, state } => format!("wrong state: {}, {state}", self.common(*id)),
            Error::StaleLease(id) => format!("stale lease: {}", self.common(*id)),
            Error::BadCursor => "bad cursor".to_owned(),
            Error::NoSpace(_) => "no space".to_owned(),
            Error::Closed(_) => "closed".to_owned(),
            other => format!("not expected here: {other:?}"),
        }
    }
}

// === impl Difference ===

impl Difference {
    /// Neither of two histories fits.
    pub(super) fn and(self, other: &Self) -> Self {
        Self(format!("{}\n and, if the last step was not kept: {}", self.0, other.0))
    }

    /// With the step at which it was seen.
    pub(super) fn at(self, step: usize, operation: &Operation) -> TestCaseError {
        TestCaseError::fail(format!("at step {step}, {operation:?}: {}", self.0))
    }
}

impl From<Difference> for TestCaseError {
    fn from(difference: Difference) -> Self {
        Self::fail(format!("at the end: {}", difference.0))
    }
}

/// Holds what the model shows against what the subject shows.
pub(super) fn same<T: PartialEq + Debug>(what: &str, model: &T, subject: &T) -> Result<(), Difference> {
    if model == subject {
        return Ok(());
    }
    Err(Difference(format!("{what}\n  model:   {model:?}\n  subject: {subject:?}")))
}
