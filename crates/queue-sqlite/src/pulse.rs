//! Whether the disk answers: since when the writer is in the round that it is in.
//!
//! A disk that hangs holds the writer in a system call, and nothing can be done about that but to say so: those who wait
//! hear after a while that the fate of their jobs is unknown, and nobody else is let in.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kvern_core::limits::SUBMIT_WITHIN;
use kvern_queue::Error;

/// The writer rests.
const RESTS: u64 = u64::MAX;

/// Written by the writer alone, read by anyone.
#[derive(Debug)]
pub(crate) struct Pulse {
    start: Instant,
    /// Milliseconds after the start at which the present round began.
    round_began: AtomicU64,
}

// === impl Pulse ===

impl Pulse {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), round_began: AtomicU64::new(RESTS) }
    }

    /// A round begins.
    pub(crate) fn begin(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(RESTS - 1);
        self.round_began.store(now, Ordering::Relaxed);
    }

    /// It is over: the disk has answered.
    pub(crate) fn end(&self) {
        self.round_began.store(RESTS, Ordering::Relaxed);
    }

    /// # Errors
    /// [`Error::Disk`] while the disk seems to hang.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let began = self.round_began.load(Ordering::Relaxed);
        if began == RESTS {
            return Ok(());
        }
        let waited = self.start.elapsed().saturating_sub(Duration::from_millis(began));
        if waited < SUBMIT_WITHIN { Ok(()) } else { Err(silent(waited)) }
    }
}

/// How a silent disk is told of to those who have waited for it, or would have to.
pub(crate) fn silent(waited: Duration) -> Error {
    Error::Disk(format!("it has not answered for {} s", waited.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_hangs_once_a_round_takes_too_long() {
        let Some(start) = Instant::now().checked_sub(SUBMIT_WITHIN * 2) else { return };
        let pulse = Pulse { start, ..Pulse::new() };
        pulse.check().expect("nobody asks it for anything");
        pulse.round_began.store(0, Ordering::Relaxed);
        assert!(matches!(pulse.check(), Err(Error::Disk(_))));
        pulse.begin();
        pulse.check().expect("the round is new");
        pulse.end();
        pulse.check().expect("it has answered");
    }
}
