//! Leases that wait for a job: who wants which functions, and whose turn it is to look.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Notify;

/// Waiting leases, the longest waiting first. A waiter that is woken leaves the list and must look; if it is dropped
/// before it could, it says so and the next one is woken ([`Waiters::leave`]).
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    waiting: BTreeMap<u64, Waiter>,
    next: u64,
}

#[derive(Debug)]
struct Waiter {
    functions: Vec<usize>,
    /// Waits for the writer, whatever comes of it.
    is_behind: bool,
    bell: Arc<Notify>,
}

// === impl Waiters ===

impl Waiters {
    /// Waits for a ready job of one of these functions, or (`is_behind`) for the writer's next round.
    pub(crate) fn join(&mut self, functions: Vec<usize>, is_behind: bool) -> (u64, Arc<Notify>) {
        let bell = Arc::new(Notify::new());
        self.next += 1;
        self.waiting.insert(self.next, Waiter { functions, is_behind, bell: Arc::clone(&bell) });
        (self.next, bell)
    }

    /// Waits no more. False if it had been woken.
    pub(crate) fn leave(&mut self, waiter: u64) -> bool {
        self.waiting.remove(&waiter).is_some()
    }

    /// Up to `count` jobs of this function became ready: as many waiters look. Who waits for the writer's round does not:
    /// in the middle of it, jobs of another wanted function may not be there yet.
    pub(crate) fn wake(&mut self, function: usize, count: usize) {
        if self.waiting.is_empty() {
            return;
        }
        let wants = |waiter: &Waiter| !waiter.is_behind && waiter.functions.contains(&function);
        let wanting = self.waiting.iter().filter(|(_, waiter)| wants(waiter));
        let woken: Vec<u64> = wanting.map(|(key, _)| *key).take(count).collect();
        self.ring(&woken);
    }

    /// The writer finished a round: those that waited for it look.
    pub(crate) fn wake_behind(&mut self) {
        let behind = self.waiting.iter().filter(|(_, waiter)| waiter.is_behind);
        let woken: Vec<u64> = behind.map(|(key, _)| *key).collect();
        self.ring(&woken);
    }

    /// The queue closes.
    pub(crate) fn wake_all(&mut self) {
        let woken: Vec<u64> = self.waiting.keys().copied().collect();
        self.ring(&woken);
    }

    fn ring(&mut self, woken: &[u64]) {
        for key in woken {
            if let Some(waiter) = self.waiting.remove(key) {
                waiter.bell.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_the_round_looks_at_its_end_and_not_before() {
        let mut waiters = Waiters::default();
        let (behind, _) = waiters.join(vec![0, 1], true);
        let (waiting, _) = waiters.join(vec![0, 1], false);
        waiters.wake(1, usize::MAX);
        assert!(!waiters.leave(waiting), "a job is ready for it");
        waiters.wake_behind();
        assert!(!waiters.leave(behind), "the round is over");

        let (behind, _) = waiters.join(vec![0, 1], true);
        waiters.wake(1, usize::MAX);
        assert!(waiters.leave(behind), "the jobs of the other function may still come");
    }
}
