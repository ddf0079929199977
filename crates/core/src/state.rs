//! The life of a job: one enum, one transition function. Drawn in `docs/states.md`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Waits for a time: its own `not_before`, or the backoff after a failed attempt. The queue moves it on when the
    /// time has come. A crash changes nothing: it is stored.
    Scheduled,
    /// Waits for a free slot. A worker's lease moves it on. A crash changes nothing: it is stored.
    Queued,
    /// An attempt runs under a lease. The settlement moves it on. If the server or the worker dies, the lease ends and
    /// the job is queued again; that is neither a retry nor a strike.
    Running,
    /// Finished with a result, kept for `keep.succeeded`. The sweep forgets it.
    Succeeded,
    /// The dead letter: failed for good, kept for `keep.failed`. A person's retry queues it again.
    Failed,
    /// Cancelled by a person or a client, kept as long as a dead letter. A retry queues it again.
    Cancelled,
}

/// What can happen to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Move {
    /// Its time has come.
    Due,
    /// A worker took the lease.
    Leased,
    /// The lease ended without an outcome: released in a drain, or its holder is lost.
    Released,
    /// The attempt succeeded.
    Succeeded,
    /// The attempt failed and another follows later.
    RetryLater,
    /// The attempt crashed and another follows at once.
    RetryNow,
    /// The job failed for good: the last attempt, too many strikes, expired, damaged.
    GaveUp,
    /// The job was cancelled.
    Cancelled,
    /// A person asked for another life of a finished job.
    Redriven,
}

/// A move that the state does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forbidden {
    /// Where the job stands.
    pub from: State,
    /// What was tried.
    pub by: Move,
}

// === impl State ===

impl State {
    /// All states, in the order of a job's life.
    pub const ALL: [Self; 6] =
        [Self::Scheduled, Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// The state after `by`, or why there is none. The only place where states change.
    ///
    /// # Errors
    /// [`Forbidden`] if a job in this state cannot move so.
    pub fn after(self, by: Move) -> Result<Self, Forbidden> {
        use State::{Cancelled, Failed, Queued, Running, Scheduled, Succeeded};
        match (self, by) {
            (Scheduled, Move::Due) => Ok(Queued),
            (Queued, Move::Leased) => Ok(Running),
            (Running, Move::Released | Move::RetryNow) => Ok(Queued),
            (Running, Move::RetryLater) => Ok(Scheduled),
            (Running, Move::Succeeded) => Ok(Succeeded),
            (Scheduled | Queued | Running, Move::GaveUp) => Ok(Failed),
            (Scheduled | Queued | Running, Move::Cancelled) => Ok(Cancelled),
            (Failed | Cancelled, Move::Redriven) => Ok(Queued),
            (from, by) => Err(Forbidden { from, by }),
        }
    }

    /// Whether nothing more will happen by itself.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// The word for it, the same everywhere.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for State {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or(())
    }
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a job that is {} cannot be moved by {:?}", self.from, self.by)
    }
}

impl std::error::Error for Forbidden {}

#[cfg(test)]
mod tests {
    use super::*;

    const MOVES: [Move; 9] = [
        Move::Due,
        Move::Leased,
        Move::Released,
        Move::Succeeded,
        Move::RetryLater,
        Move::RetryNow,
        Move::GaveUp,
        Move::Cancelled,
        Move::Redriven,
    ];

    #[test]
    fn a_final_state_is_left_only_by_a_person() {
        for state in State::ALL.into_iter().filter(|s| s.is_final()) {
            for by in MOVES {
                let allowed = state.after(by).is_ok();
                assert_eq!(allowed, by == Move::Redriven && state != State::Succeeded, "{state} {by:?}");
            }
        }
    }

    #[test]
    fn only_a_running_job_succeeds() {
        for state in State::ALL {
            assert_eq!(state.after(Move::Succeeded).is_ok(), state == State::Running);
        }
    }

    #[test]
    fn every_waiting_job_can_be_cancelled_or_given_up() {
        for state in State::ALL.into_iter().filter(|s| !s.is_final()) {
            assert_eq!(state.after(Move::Cancelled), Ok(State::Cancelled));
            assert_eq!(state.after(Move::GaveUp), Ok(State::Failed));
        }
    }

    #[test]
    fn words_read_back() {
        for state in State::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
    }
}
