//! How a state and a priority are stored: one small integer that sorts ready jobs first, the highest priority first.
//!
//! Every rank takes one byte in a row (SQLite stores 0 and 1 in none), so a move never changes the size of a row.

use kvern_core::State;
use kvern_core::limits::{PRIORITY_DEFAULT, PRIORITY_MAX};

/// Where a stored job stands. Sorts in the order of leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Rank(u8);

/// Queued with the default priority, and unmoved since it was accepted: not in the index, which has all above.
const FRESH: u8 = 9;
const QUEUED_FIRST: u8 = 10;
const QUEUED_LAST: u8 = QUEUED_FIRST + PRIORITY_MAX;
const SCHEDULED: u8 = 30;
const SUCCEEDED: u8 = 40;
const FAILED: u8 = 50;
const CANCELLED: u8 = 60;

const _: () = assert!(FRESH > 1 && FRESH < QUEUED_FIRST && QUEUED_LAST < SCHEDULED && CANCELLED < 128);

/// A condition that every look into the index must name, or SQLite reads the whole table instead.
macro_rules! in_index {
    () => {
        "rank > 9"
    };
}
pub(crate) use in_index;

impl Rank {
    /// The rank of a job in this state; a running job is stored as queued.
    pub(crate) fn of(state: State, priority: u8) -> Self {
        Self(match state {
            State::Queued | State::Running => QUEUED_FIRST + PRIORITY_MAX.saturating_sub(priority),
            State::Scheduled => SCHEDULED,
            State::Succeeded => SUCCEEDED,
            State::Failed => FAILED,
            State::Cancelled => CANCELLED,
        })
    }

    /// The rank that an accepted job has until it moves.
    pub(crate) fn on_arrival(state: State, priority: u8) -> Self {
        let is_fresh = state == State::Queued && priority == PRIORITY_DEFAULT;
        if is_fresh { Self::fresh() } else { Self::of(state, priority) }
    }

    /// Queued, and not in the index.
    pub(crate) fn fresh() -> Self {
        Self(FRESH)
    }

    /// The ranks of queued jobs in the index, in the order of leases. Fresh jobs come with those of the default priority.
    pub(crate) fn queued() -> impl Iterator<Item = Self> {
        (QUEUED_FIRST..=QUEUED_LAST).map(Self)
    }

    /// The ranks that a state can have.
    pub(crate) fn of_state(state: State) -> Vec<Self> {
        match state {
            State::Queued | State::Running => Self::queued().chain([Self::fresh()]).collect(),
            other => vec![Self::of(other, 0)],
        }
    }

    /// The state; queued for a job that may run.
    pub(crate) fn state(self) -> Option<State> {
        Some(match self.0 {
            FRESH | QUEUED_FIRST..=QUEUED_LAST => State::Queued,
            SCHEDULED => State::Scheduled,
            SUCCEEDED => State::Succeeded,
            FAILED => State::Failed,
            CANCELLED => State::Cancelled,
            _ => return None,
        })
    }

    /// As stored.
    pub(crate) fn get(self) -> i64 {
        i64::from(self.0)
    }

    /// From what was stored.
    pub(crate) fn from_stored(stored: i64) -> Option<Self> {
        let rank = Self(u8::try_from(stored).ok()?);
        rank.state().map(|_| rank)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_tells_its_state_and_sorts_by_priority() {
        for state in State::ALL {
            let stored = if state == State::Running { State::Queued } else { state };
            assert_eq!(Rank::of(state, 4).state(), Some(stored));
            assert_eq!(Rank::from_stored(Rank::of(state, 4).get()), Some(Rank::of(state, 4)));
        }
        assert!(Rank::of(State::Queued, 9) < Rank::of(State::Queued, 0));
        assert_eq!(Rank::on_arrival(State::Queued, PRIORITY_DEFAULT).state(), Some(State::Queued));
        assert!(Rank::of_state(State::Queued).contains(&Rank::on_arrival(State::Queued, PRIORITY_DEFAULT)));
        assert_eq!(in_index!(), format!("rank > {FRESH}"));
        assert!(Rank::from_stored(0).is_none() && Rank::from_stored(-7).is_none());
    }
}
