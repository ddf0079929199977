//! The order of lists and the cursors that go on in them: shared, so that every adapter lists alike.

use std::hash::{DefaultHasher, Hash, Hasher};

use kvern_core::{Job, JobId, State, UnixMs};

use crate::error::Error;
use crate::job::{Cursor, Filter};

/// Where a job stands in a list: lists go from the greatest place to the least.
pub type Place = (UnixMs, JobId);

/// The place of a job: the time at which it entered its state, then its id.
///
/// A queued or running job stands where it was accepted, also after a retry: its place in the queue is its own.
#[must_use]
pub fn place(job: &Job) -> Place {
    let entered_at = match job.state {
        State::Queued | State::Running => job.id.accepted_at(),
        State::Scheduled => job.due_at.unwrap_or(job.id.accepted_at()),
        State::Succeeded | State::Failed | State::Cancelled => job.finished_at.unwrap_or(job.id.accepted_at()),
    };
    (entered_at, job.id)
}

// === impl Filter ===

impl Filter {
    /// Whether the filter lets this job through.
    #[must_use]
    pub fn admits(&self, job: &Job) -> bool {
        self.function.as_ref().is_none_or(|function| *function == job.function)
            && (self.states.is_empty() || self.states.contains(&job.state))
            && self.since.is_none_or(|since| place(job).0 >= since)
    }

    /// Ties a cursor to its filter. It need not stay the same over releases: an old cursor is then refused.
    fn fingerprint(&self) -> u64 {
        let mut states = self.states.clone();
        states.sort_unstable();
        states.dedup();
        let mut hasher = DefaultHasher::new();
        (&self.function, states, self.since).hash(&mut hasher);
        hasher.finish()
    }
}

// === impl Cursor ===

impl Cursor {
    /// The cursor of a page that ended with the job at `last`.
    #[must_use]
    pub fn after(filter: &Filter, last: Place) -> Self {
        Self(format!("{:016x}.{:x}.{}", filter.fingerprint(), last.0.0, last.1))
    }

    /// The place of the last job seen: the next page has lesser ones.
    ///
    /// # Errors
    /// [`Error::BadCursor`] if it was made for another filter, or not by [`Cursor::after`].
    pub fn last(&self, filter: &Filter) -> Result<Place, Error> {
        self.read(filter).ok_or(Error::BadCursor)
    }

    fn read(&self, filter: &Filter) -> Option<Place> {
        let (fingerprint, place) = self.0.split_once('.')?;
        let (at, id) = place.split_once('.')?;
        let is_ours = fingerprint == format!("{:016x}", filter.fingerprint());
        let place = (UnixMs(u64::from_str_radix(at, 16).ok()?), id.parse().ok()?);
        is_ours.then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use kvern_core::id::Sequence;

    use super::*;

    fn here() -> Place {
        (UnixMs(1_700_000_000_000), JobId::new(Sequence::first_of(UnixMs(1_600_000_000_000)), 7))
    }

    #[test]
    fn a_cursor_reads_back_under_its_own_filter_only() {
        let filter = Filter { states: vec![State::Failed, State::Queued], ..Filter::default() };
        let cursor = Cursor::after(&filter, here());
        assert_eq!(cursor.last(&filter).ok(), Some(here()));
        let same = Filter { states: vec![State::Queued, State::Failed, State::Queued], ..Filter::default() };
        assert_eq!(cursor.last(&same).ok(), Some(here()), "the order of states does not matter");
        let other = Filter { since: Some(UnixMs(0)), ..filter };
        assert!(matches!(cursor.last(&other), Err(Error::BadCursor)));
    }

    #[test]
    fn garbage_is_refused() {
        let filter = Filter::default();
        let good = Cursor::after(&filter, here()).0;
        for bad in ["", ".", "..", "zz", &good[1..], &good[..good.len() - 1], &good.replace('.', "-")] {
            assert!(matches!(Cursor(bad.to_owned()).last(&filter), Err(Error::BadCursor)), "{bad}");
        }
    }
}
