//! The window: the next ready jobs of one function, in memory, in the order in which they will be leased.
//!
//! The database may hold millions of queued jobs; the window holds about a thousand. Its invariant: every ready job of
//! the function at or before `tail` is in the window (or running). A job beyond the tail may be in the window too, but
//! is not handed out before the writer has moved the tail past it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use kvern_core::Job;
use kvern_core::id::Sequence;
use kvern_queue::Payload;

use crate::rank::Rank;

/// Most jobs in the window of one function.
pub(crate) const WINDOW_JOBS_MAX: usize = 1024;
/// The writer refills a window that holds fewer jobs than this.
pub(crate) const WINDOW_JOBS_LOW: usize = WINDOW_JOBS_MAX / 2;
/// Most bytes in the windows of all functions together: records and inline inputs.
pub(crate) const WINDOW_BYTES_MAX: usize = 8 << 20;
/// Jobs that a window may hold whatever the others hold, so that no function starves.
pub(crate) const WINDOW_JOBS_SURE: usize = 4;
/// What a record takes in memory, roughly.
const RECORD_BYTES: usize = 600;

/// Where a ready job stands among those of its function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) rank: Rank,
    pub(crate) seq: Sequence,
}

/// A job that may run now.
#[derive(Debug, Clone)]
pub(crate) struct Ready {
    pub(crate) job: Arc<Job>,
    pub(crate) input: Payload,
}

/// How far the window is known to be whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// Every ready job is here.
    End,
    /// Every ready job up to this place is here.
    At(Place),
    /// Nothing is known.
    Start,
}

/// The next ready jobs of one function.
#[derive(Debug)]
pub(crate) struct Window {
    jobs: BTreeMap<Place, Ready>,
    tail: Tail,
    bytes: usize,
}

// === impl Ready ===

impl Ready {
    /// Where it stands.
    pub(crate) fn place(&self) -> Place {
        Place { rank: Rank::of(kvern_core::State::Queued, self.job.priority), seq: self.job.id.sequence() }
    }

    /// What it takes in memory, roughly.
    pub(crate) fn cost(&self) -> usize {
        let input = match &self.input {
            Payload::Inline(bytes) => Bytes::len(bytes),
            Payload::Blob(_) => 0,
        };
        RECORD_BYTES + input + self.job.attempts.len() * 100
    }
}

// === impl Window ===

impl Window {
    /// An empty window; `whole` if the function has no ready job at all.
    pub(crate) fn new(whole: bool) -> Self {
        Self { jobs: BTreeMap::new(), tail: if whole { Tail::End } else { Tail::Start }, bytes: 0 }
    }

    /// What its jobs take in memory, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Puts a ready job in, if its place lies where the window is whole. `free` bytes are left in all windows.
    /// Only the writer calls this: letting the last job go moves the tail back.
    pub(crate) fn offer(&mut self, ready: Ready, free: usize) {
        let place = ready.place();
        let has_room =
            self.jobs.len() < WINDOW_JOBS_MAX && (ready.cost() <= free || self.jobs.len() < WINDOW_JOBS_SURE);
        if !self.covers(place) {
            return;
        }
        if has_room {
            self.insert(place, ready);
            return;
        }
        match self.jobs.last_key_value() {
            Some((last, _)) if *last > place => {
                self.insert(place, ready);
                self.pop_last();
            }
            Some((last, _)) => self.tail = Tail::At(*last),
            None => self.tail = Tail::Start,
        }
    }

    /// Puts a job back that was running. Never lets another go, so anyone may call it at any time.
    pub(crate) fn put_back(&mut self, ready: Ready) {
        let place = ready.place();
        if self.covers(place) {
            self.insert(place, ready);
        }
    }

    /// There may be a ready job at `place` that is not here: the tail moves back before it.
    pub(crate) fn gap(&mut self, place: Place) {
        if !self.covers(place) {
            return;
        }
        self.tail = match self.jobs.range(..place).next_back() {
            Some((before, _)) => Tail::At(*before),
            None => Tail::Start,
        };
    }

    /// Whether a job can be taken.
    pub(crate) fn has_ready(&self) -> bool {
        self.jobs.first_key_value().is_some_and(|(place, _)| self.covers(*place))
    }

    /// Takes the next job.
    pub(crate) fn take(&mut self) -> Option<Ready> {
        let place = *self.jobs.first_key_value()?.0;
        if !self.covers(place) {
            return None;
        }
        self.remove(place)
    }

    /// Takes out the job at this place, if it is here.
    pub(crate) fn remove(&mut self, place: Place) -> Option<Ready> {
        let ready = self.jobs.remove(&place)?;
        self.bytes -= ready.cost();
        Some(ready)
    }

    /// Whether every ready job is here.
    pub(crate) fn is_whole(&self) -> bool {
        self.tail == Tail::End
    }

    /// Whether the writer should read on: nothing can be taken though there may be something, or little is left and
    /// there is room. `free` bytes are left in all windows.
    pub(crate) fn wants_more(&self, free: usize) -> bool {
        let is_low = self.jobs.len() < WINDOW_JOBS_LOW && free >= WINDOW_BYTES_MAX / 8;
        self.tail != Tail::End && (is_low || !self.has_ready())
    }

    /// After which place the writer should read on; none is the beginning.
    pub(crate) fn tail(&self) -> Option<Place> {
        match self.tail {
            Tail::At(tail) => Some(tail),
            Tail::Start | Tail::End => None,
        }
    }

    /// The key of the first job of this rank that may be ready: all before it are known not to be.
    pub(crate) fn first_of(&self, rank: Rank) -> i64 {
        let key = |place: Place| place.seq.get().cast_signed();
        let first = Place { rank, seq: Sequence::from_bits(0) };
        let held = self.jobs.range(first..).next().map(|(place, _)| *place).filter(|place| place.rank == rank);
        let beyond = match self.tail {
            Tail::End => i64::MAX,
            Tail::At(tail) if tail.rank > rank => i64::MAX,
            Tail::At(tail) if tail.rank == rank => key(tail) + 1,
            Tail::At(_) | Tail::Start => 0,
        };
        held.map_or(beyond, |place| beyond.min(key(place)))
    }

    /// How many jobs it holds.
    pub(crate) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// The writer read all ready jobs up to `last` (all there are, if none), and offers those that do not run.
    pub(crate) fn extend(&mut self, ready: Vec<Ready>, last: Option<Place>) {
        for one in ready {
            let place = one.place();
            if !self.jobs.contains_key(&place) {
                self.insert(place, one);
            }
        }
        self.tail = last.map_or(Tail::End, Tail::At);
    }

    /// Forgets everything it holds; the writer will read again.
    pub(crate) fn reset(&mut self) {
        self.jobs.clear();
        self.bytes = 0;
        self.tail = Tail::Start;
    }

    fn covers(&self, place: Place) -> bool {
        match self.tail {
            Tail::End => true,
            Tail::At(tail) => place <= tail,
            Tail::Start => false,
        }
    }

    fn insert(&mut self, place: Place, ready: Ready) {
        self.bytes += ready.cost();
        if let Some(old) = self.jobs.insert(place, ready) {
            self.bytes -= old.cost();
        }
    }

    fn pop_last(&mut self) {
        if let Some((_, ready)) = self.jobs.pop_last() {
            self.bytes -= ready.cost();
        }
        let last = self.jobs.last_key_value().map(|(last, _)| *last);
        self.tail = match (self.tail, last) {
            (Tail::At(tail), Some(last)) => Tail::At(tail.min(last)),
            (Tail::End, Some(last)) => Tail::At(last),
            (Tail::Start, _) | (_, None) => Tail::Start,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kvern_core::{JobId, State, UnixMs};
    use kvern_queue::{NewJob, record};

    use super::*;

    /// A job of this priority whose order of acceptance is `number`.
    fn ready(number: u64, priority: u8, input_bytes: usize) -> Ready {
        let new = NewJob {
            function: "f".parse().expect("a name"),
            input: Payload::Inline(vec![0; input_bytes].into()),
            content_type: None,
            idempotency: None,
            not_before: None,
            expires_at: None,
            priority,
            tags: Vec::new(),
            max_queued: 1,
        };
        let id = JobId::new(Sequence::from_bits(number + 1), 0);
        Ready { job: Arc::new(record::accept(id, &new, UnixMs(0))), input: new.input }
    }

    /// Reads on as the writer does, `most` at a time.
    fn refill(window: &mut Window, stored: &BTreeMap<Place, Ready>, most: usize) {
        let after = window.tail();
        let behind = stored.iter().filter(|(place, _)| after.is_none_or(|after| **place > after));
        let read: Vec<_> = behind.take(most + 1).map(|(_, ready)| ready.clone()).collect();
        let last = (read.len() > most).then(|| read[most - 1].place());
        window.extend(read.into_iter().take(most).collect(), last);
    }

    #[test]
    fn whatever_happens_jobs_leave_in_order() {
        for seed in 0..200_u64 {
            let mut dice = seed;
            let mut draw = |sides: u64| {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (dice >> 33) % sides
            };
            // What the database has as queued and not running, and the window over it.
            let mut stored: BTreeMap<Place, Ready> = BTreeMap::new();
            let mut window = Window::new(true);
            let mut running = Vec::new();
            for number in 0..400 {
                match draw(5) {
                    0 | 1 => {
                        let one = ready(number, draw(3) as u8, 0);
                        stored.insert(one.place(), one.clone());
                        // No room: the window lets jobs go and forgets how far it reached.
                        let free = if draw(3) == 0 { 0 } else { usize::MAX };
                        window.offer(one, free);
                    }
                    2 => {
                        let one = ready(number, draw(3) as u8, 0);
                        window.gap(one.place());
                        stored.insert(one.place(), one);
                    }
                    3 if !running.is_empty() => {
                        let at = draw(running.len() as u64) as usize;
                        let one: Ready = running.swap_remove(at);
                        stored.insert(one.place(), one.clone());
                        window.put_back(one);
                    }
                    _ => {
                        while window.wants_more(usize::MAX) && !window.has_ready() {
                            refill(&mut window, &stored, 4);
                        }
                        let taken = window.take().map(|ready| ready.place());
                        assert_eq!(taken, stored.keys().next().copied(), "seed {seed}, step {number}");
                        running.extend(taken.and_then(|place| stored.remove(&place)));
                    }
                }
            }
        }
    }

    #[test]
    fn it_holds_no_more_than_it_may() {
        let mut window = Window::new(true);
        for number in 0..2 * WINDOW_JOBS_MAX as u64 {
            window.offer(ready(number, 4, 10), usize::MAX);
        }
        assert_eq!(window.len(), WINDOW_JOBS_MAX);
        assert!(!window.is_whole());
        window.offer(ready(5000, 9, 10), usize::MAX);
        assert_eq!(window.len(), WINDOW_JOBS_MAX, "an urgent job pushes the last one out");
        assert_eq!(window.take().map(|ready| ready.job.priority), Some(9));
        assert!(window.take().is_some_and(|ready| ready.job.state == State::Queued));
        window.reset();
        assert_eq!((window.len(), window.bytes()), (0, 0));
    }
}
