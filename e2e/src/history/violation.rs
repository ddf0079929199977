//! What the judge may find, in words.

use std::fmt;

/// What is wrong. Jobs are named by their ids.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Violation {
    /// Accepted, and not there.
    Lost(String),
    /// There, and no submit that could have made it.
    Nobodys(String),
    /// One submit made several jobs.
    Doubled {
        /// The note of the submit.
        note: u64,
        /// The jobs.
        jobs: Vec<String>,
    },
    /// An acknowledged cancel, and it ended otherwise.
    CancelLost(String),
    /// An acknowledged retry, and it shows the outcome of before.
    RetryLost(String),
    /// An outcome changed, or went.
    TwoOutcomes {
        /// The job.
        job: String,
        /// What it was.
        first: String,
        /// What it was later.
        then: String,
    },
    /// It ran after its outcome had been shown.
    RanAfterItsEnd(String),
    /// It succeeded without a run that did.
    NeverSucceeded(String),
    /// Its result is not that of a run of it that succeeded.
    WrongResult(String),
    /// An attempt ran again, and nothing had cut it off.
    RanTwice {
        /// The job.
        job: String,
        /// The attempt.
        attempt: u64,
    },
    /// An attempt ended, another one began, and the record does not say how the first one ended.
    OffTheRecord {
        /// The job.
        job: String,
        /// The attempt.
        attempt: u64,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(job) => write!(f, "lost: {job} was accepted and is not there"),
            Self::Nobodys(job) => write!(f, "{job} is there, and nobody submitted it"),
            Self::Doubled { note, jobs } => write!(f, "submit {note} made several jobs: {}", jobs.join(", ")),
            Self::CancelLost(job) => write!(f, "the cancel of {job} was acknowledged and does not hold"),
            Self::RetryLost(job) => write!(f, "the retry of {job} was acknowledged and did nothing"),
            Self::TwoOutcomes { job, first, then } => write!(f, "two outcomes: {job} was {first}, then {then}"),
            Self::RanAfterItsEnd(job) => write!(f, "{job} ran after its outcome was shown"),
            Self::NeverSucceeded(job) => write!(f, "{job} succeeded, and no run of its attempt did"),
            Self::WrongResult(job) => write!(f, "{job} has a result that no successful run of it gave"),
            Self::RanTwice { job, attempt } => {
                write!(f, "attempt {attempt} of {job} ran again, and no kill cut it off")
            }
            Self::OffTheRecord { job, attempt } => write!(f, "attempt {attempt} of {job} is not on record"),
        }
    }
}
