//! What can be set about a worker. Everything else is a limit of `kvern_core` or of the function.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kvern_core::limits::{DRAIN_TIME, STOP_GRACE};

/// Attempts and calls at once on one worker, over all functions, unless set.
const SLOTS_DEFAULT: usize = 256;
/// Calls of one function that wait for a slot, unless set.
const CALLS_WAITING_DEFAULT: usize = 64;
/// What a drain keeps for the end of killed instances and for settlements: a second, however short the drain is, for
/// outcomes that are lost make their jobs run again.
const DRAIN_REST: Duration = Duration::from_secs(3);
const DRAIN_REST_MIN: Duration = Duration::from_secs(1);
/// Time for an instance to become ready, unless set: long enough to import a large library on a slow disk.
const START_TIME_DEFAULT: Duration = Duration::from_secs(120);

/// Settings of a worker.
#[derive(Clone)]
pub struct Settings {
    /// Attempts and calls at once, over all functions.
    pub slots: usize,
    /// Calls of one function that wait for a slot; one more is refused.
    pub calls_waiting_max: usize,
    /// From the shutdown signal to the end of [`crate::Worker::run`], a second at least: attempts may finish in most of
    /// it, the rest goes to stopping those that did not, and to their settlements.
    pub drain_time: Duration,
    /// Between TERM and KILL of an instance.
    pub stop_grace: Duration,
    /// An instance that is not ready by then has failed to start.
    pub start_time: Duration,
    /// Where the streamed input of a call goes while it is larger than what is held in memory. Emptied by whoever starts
    /// the worker: a server that is killed leaves files there.
    pub scratch_dir: PathBuf,
    /// Whether it keeps house in the queue. One process does, by its own manifest: that which has the queue.
    pub sweeps: bool,
    /// Draws the jitter of retries, in 0..1.
    pub chance: Arc<dyn Fn() -> f64 + Send + Sync>,
}

/// The parts of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DrainParts {
    /// What running attempts get to finish.
    pub(crate) patience: Duration,
    /// Between TERM and KILL of those that did not.
    pub(crate) grace: Duration,
    /// For what follows: the end of killed instances, then their settlements. Settlements have all the time that was not
    /// needed before, too.
    pub(crate) rest: Duration,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            slots: SLOTS_DEFAULT,
            calls_waiting_max: CALLS_WAITING_DEFAULT,
            drain_time: DRAIN_TIME,
            stop_grace: STOP_GRACE,
            start_time: START_TIME_DEFAULT,
            scratch_dir: std::env::temp_dir(),
            sweeps: true,
            chance: Arc::new(rand::random::<f64>),
        }
    }
}

impl Settings {
    /// How a drain divides its time, so that all of it fits.
    #[must_use]
    pub(crate) fn drain_parts(&self) -> DrainParts {
        let grace = self.stop_grace.min(self.drain_time / 4);
        let rest = DRAIN_REST.min(self.drain_time / 4).max(DRAIN_REST_MIN);
        DrainParts { patience: self.drain_time.saturating_sub(grace + rest), grace, rest }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("slots", &self.slots)
            .field("calls_waiting_max", &self.calls_waiting_max)
            .field("drain_time", &self.drain_time)
            .field("stop_grace", &self.stop_grace)
            .field("start_time", &self.start_time)
            .field("scratch_dir", &self.scratch_dir)
            .field("sweeps", &self.sweeps)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_leaves_time_to_stop() {
        let parts = |secs| Settings { drain_time: Duration::from_secs(secs), ..Settings::default() }.drain_parts();
        for (secs, patience, grace, rest) in [(20, 12, 5, 3), (600, 592, 5, 3), (4, 2, 1, 1), (0, 0, 0, 1)] {
            let [patience, grace, rest] = [patience, grace, rest].map(Duration::from_secs);
            assert_eq!(parts(secs), DrainParts { patience, grace, rest });
        }
    }
}
