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
/// Time for an instance to become ready, unless set: long enough to import a large library on a slow disk.
const START_TIME_DEFAULT: Duration = Duration::from_secs(120);

/// Settings of a worker.
#[derive(Clone)]
pub struct Settings {
    /// Attempts and calls at once, over all functions.
    pub slots: usize,
    /// Calls of one function that wait for a slot; one more is refused.
    pub calls_waiting_max: usize,
    /// From the shutdown signal to the end of [`crate::Worker::run`]: attempts may finish in most of it, the rest goes
    /// to stopping those that did not.
    pub drain_time: Duration,
    /// Between TERM and KILL of an instance.
    pub stop_grace: Duration,
    /// An instance that is not ready by then has failed to start.
    pub start_time: Duration,
    /// Where the streamed input of a call goes while it is larger than what is held in memory. Emptied by whoever starts
    /// the worker: a server that is killed leaves files there.
    pub scratch_dir: PathBuf,
    /// Draws the jitter of retries, in 0..1.
    pub chance: Arc<dyn Fn() -> f64 + Send + Sync>,
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
            chance: Arc::new(rand::random::<f64>),
        }
    }
}

impl Settings {
    /// How a drain divides its time: what running attempts get to finish, and the grace for those that did not.
    #[must_use]
    pub(crate) fn drain_parts(&self) -> (Duration, Duration) {
        let grace = self.stop_grace.min(self.drain_time / 2);
        (self.drain_time - grace, grace)
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
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_leaves_time_to_stop() {
        assert_eq!(Settings::default().drain_parts(), (Duration::from_secs(15), Duration::from_secs(5)));
        let short = Settings { drain_time: Duration::from_secs(2), ..Settings::default() };
        assert_eq!(short.drain_parts(), (Duration::from_secs(1), Duration::from_secs(1)));
    }
}
