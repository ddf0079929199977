//! The instances of one version of a function: how many there are, which of them wait for work, when another may start.
//!
//! Pure: the tasks that own the instances ([`crate::station`]) tell it what happened. Each is a *place* here, with an
//! instance or without.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::backoff::Backoff;

/// Names a place in a pool.
pub(crate) type PlaceId = u64;

/// The places of one version. `W` is the work that is handed to one that waits.
#[derive(Debug)]
pub(crate) struct Pool<W> {
    /// Whether instances are kept between attempts. If not, the bounds have no meaning.
    pub(crate) warm: bool,
    /// Places that are kept without work.
    pub(crate) min: usize,
    /// Most places.
    pub(crate) max: usize,
    /// How long a place above `min` waits for work.
    pub(crate) idle_time: Duration,
    phases: HashMap<PlaceId, Phase>,
    /// Places that wait for work, the one that worked last at the end: the others can grow idle and stop.
    idle: Vec<(PlaceId, oneshot::Sender<W>)>,
    /// Starts that failed and instances that died idle: a pause in starts for stock and for scale.
    backoff: Backoff,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No instance: just opened, or resting after trouble.
    Cold,
    /// An instance starts.
    Starting,
    /// An instance lives.
    Up,
}

// === impl Pool ===

impl<W> Pool<W> {
    pub(crate) fn new(warm: bool, min: usize, max: usize, idle_time: Duration) -> Self {
        let (phases, idle) = (HashMap::new(), Vec::new());
        Self { warm, min, max, idle_time, phases, idle, backoff: Backoff::default() }
    }

    /// Places, with an instance or without.
    pub(crate) fn places(&self) -> usize {
        self.phases.len()
    }

    /// Places with a live instance.
    pub(crate) fn up(&self) -> usize {
        self.phases.values().filter(|phase| **phase == Phase::Up).count()
    }

    /// Places that start an instance or are about to.
    pub(crate) fn coming(&self) -> usize {
        let waiting = self.idle.iter().filter(|(id, _)| self.phases.get(id) == Some(&Phase::Cold)).count();
        self.places() - self.up() - waiting
    }

    /// Adds a place, if one more is allowed. A pool that is not warm is bounded by the slots alone.
    pub(crate) fn open(&mut self, id: PlaceId) -> bool {
        let allowed = !self.warm || self.places() < self.max;
        if allowed {
            self.phases.insert(id, Phase::Cold);
        }
        allowed
    }

    /// The place is gone.
    pub(crate) fn leave(&mut self, id: PlaceId) {
        self.phases.remove(&id);
        self.idle.retain(|(idle, _)| *idle != id);
    }

    /// The place starts an instance.
    pub(crate) fn starting(&mut self, id: PlaceId) {
        self.set(id, Phase::Starting);
    }

    /// The place has a live instance.
    pub(crate) fn started(&mut self, id: PlaceId) {
        self.set(id, Phase::Up);
    }

    /// The place's instance was stopped.
    pub(crate) fn stopped(&mut self, id: PlaceId) {
        self.set(id, Phase::Cold);
    }

    /// A start failed, or an idle instance died.
    pub(crate) fn trouble(&mut self, id: PlaceId, now: Instant) {
        self.set(id, Phase::Cold);
        self.backoff.trouble(now);
    }

    /// An attempt went well: what went wrong before is forgotten.
    pub(crate) fn went_well(&mut self) {
        self.backoff.forget();
    }

    /// Until when no instance should be started for stock or scale, if so.
    pub(crate) fn resting(&self, now: Instant) -> Option<Instant> {
        self.backoff.resting(now)
    }

    /// The place waits for work from now on. One with a live instance is preferred over one without.
    pub(crate) fn wait(&mut self, id: PlaceId) -> oneshot::Receiver<W> {
        let (sender, receiver) = oneshot::channel();
        let at = if self.phases.get(&id) == Some(&Phase::Up) { self.idle.len() } else { 0 };
        self.idle.insert(at, (id, sender));
        receiver
    }

    /// The place stops waiting; false if work was handed to it (or it was dismissed) already.
    pub(crate) fn stop_waiting(&mut self, id: PlaceId) -> bool {
        let before = self.idle.len();
        self.idle.retain(|(idle, _)| *idle != id);
        self.idle.len() < before
    }

    /// Gives the work to a place that waits, or back.
    pub(crate) fn hand(&mut self, mut work: W) -> Result<(), W> {
        while let Some((_, sender)) = self.idle.pop() {
            match sender.send(work) {
                Ok(()) => return Ok(()),
                // The place was lost in a panic.
                Err(back) => work = back,
            }
        }
        Err(work)
    }

    /// Sends every place away that waits for work; they stop their instances and leave.
    pub(crate) fn dismiss(&mut self) {
        self.idle.clear();
    }

    fn set(&mut self, id: PlaceId, phase: Phase) {
        if let Some(current) = self.phases.get_mut(&id) {
            *current = phase;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(min: usize, max: usize) -> Pool<u32> {
        Pool::new(true, min, max, Duration::from_secs(60))
    }

    #[test]
    fn a_warm_pool_never_has_more_places_than_max() {
        let mut pool = pool(0, 2);
        assert!(pool.open(1) && pool.open(2) && !pool.open(3));
        pool.leave(1);
        assert!(pool.open(3));
        assert_eq!(pool.places(), 2);
    }

    #[test]
    fn work_goes_to_the_place_that_worked_last_and_lives() {
        let mut pool = pool(0, 3);
        for id in 1..=3 {
            pool.open(id);
        }
        pool.started(1);
        pool.started(2);
        let (mut first, mut second, mut cold) = (pool.wait(1), pool.wait(2), pool.wait(3));
        assert!(pool.hand(7).is_ok() && pool.hand(8).is_ok() && pool.hand(9).is_ok());
        assert_eq!((second.try_recv(), first.try_recv(), cold.try_recv()), (Ok(7), Ok(8), Ok(9)));
        assert_eq!(pool.hand(10), Err(10));
    }

    #[test]
    fn a_place_that_got_work_cannot_stop_waiting() {
        let mut pool = pool(0, 1);
        pool.open(1);
        let _receiver = pool.wait(1);
        assert!(pool.hand(7).is_ok());
        assert!(!pool.stop_waiting(1));
    }
}
