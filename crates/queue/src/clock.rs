//! The two readings of time, so that a test can turn the hands.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kvern_core::UnixMs;
use kvern_core::limits::{LEASE_TTL, SWEEP_EVERY};
use tokio::sync::Notify;

use crate::known_bad::KnownBad;

/// Longest sleep of [`Clock::reached`] on the system clock before it looks at the wall again, which may have jumped.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A longer time in which nobody asked for the monotonic reading counts as this much.
const PAUSE_MAX: Duration = Duration::from_secs(3);
const _: () = {
    assert!(SWEEP_EVERY.as_millis() * 4 <= PAUSE_MAX.as_millis(), "a sweep that is a little late loses no time");
    assert!(PAUSE_MAX.as_millis() * 2 <= LEASE_TTL.as_millis(), "after a pause a lease stands for some renewals");
};

/// Wall-clock and monotonic time. Cheap to clone; clones share the hands of a manual clock.
///
/// Schedules and records go by the wall; leases and timeouts by the monotonic reading, so that a clock that jumps
/// neither ends a lease nor keeps it.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System(Arc<Waking>),
    Manual(Arc<Hands>),
}

/// The time in which the process ran, by those who ask for it. Where leases stand a worker asks several times a second,
/// so a long time without a question is one in which nobody here could renew: the process was stopped, or its machine.
#[derive(Debug, Default)]
struct Waking(Mutex<Reading>);

#[derive(Debug, Default)]
struct Reading {
    /// The last reading of the machine's clock.
    raw: Duration,
    /// What was made of it.
    waking: Duration,
}

#[derive(Debug)]
struct Hands {
    wall_ms: AtomicU64,
    monotonic_ms: AtomicU64,
    moved: Notify,
}

impl Waking {
    /// What this reading of the machine's clock means.
    fn at(&self, raw: Duration) -> Duration {
        // Nothing here panics midway.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Two threads may come in another order than they read.
        let passed = raw.saturating_sub(last.raw);
        last.waking += passed.min(PAUSE_MAX);
        last.raw = last.raw.max(raw);
        last.waking
    }
}

impl Clock {
    /// The machine's clock. The monotonic reading follows tokio's, so a paused test runtime stops it.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System(Arc::default()))
    }

    /// A clock that only moves when told.
    #[must_use]
    pub fn manual(now: UnixMs) -> Self {
        let hands = Hands { wall_ms: AtomicU64::new(now.0), monotonic_ms: AtomicU64::new(0), moved: Notify::new() };
        Self(Source::Manual(Arc::new(hands)))
    }

    /// The wall-clock time.
    #[must_use]
    pub fn now(&self) -> UnixMs {
        match &self.0 {
            Source::System(_) => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
            }
            Source::Manual(hands) => UnixMs(hands.wall_ms.load(Ordering::SeqCst)),
        }
    }

    /// Time since some fixed moment, never going back. On the system clock a pause of the whole process counts as
    /// three seconds at most: whoever could not renew a lease in it finds the lease standing.
    #[must_use]
    pub fn monotonic(&self) -> Duration {
        if KnownBad::WallClockLeases.is_made() {
            return Duration::from_millis(self.now().0);
        }
        match &self.0 {
            Source::System(waking) => {
                static START: std::sync::OnceLock<tokio::time::Instant> = std::sync::OnceLock::new();
                waking.at(START.get_or_init(tokio::time::Instant::now).elapsed())
            }
            Source::Manual(hands) => Duration::from_millis(hands.monotonic_ms.load(Ordering::SeqCst)),
        }
    }

    /// Moves both hands of a manual clock forward.
    ///
    /// # Panics
    /// On the system clock, which nobody can move.
    pub fn advance(&self, by: Duration) {
        let Source::Manual(hands) = &self.0 else { panic!("the system clock cannot be moved") };
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        hands.wall_ms.fetch_add(by, Ordering::SeqCst);
        hands.monotonic_ms.fetch_add(by, Ordering::SeqCst);
        hands.moved.notify_waiters();
    }

    /// Sets the wall clock of a manual clock, forward or back, and leaves the monotonic reading alone.
    ///
    /// # Panics
    /// On the system clock, which nobody can move.
    pub fn jump_to(&self, now: UnixMs) {
        let Source::Manual(hands) = &self.0 else { panic!("the system clock cannot be moved") };
        hands.wall_ms.store(now.0, Ordering::SeqCst);
        hands.moved.notify_waiters();
    }

    /// Returns once the wall shows `at` or later. May be dropped.
    pub async fn reached(&self, at: UnixMs) {
        loop {
            match &self.0 {
                Source::System(_) => {
                    let left = at.since(self.now());
                    if left.is_zero() {
                        return;
                    }
                    tokio::time::sleep(left.min(LOOK_AGAIN)).await;
                }
                Source::Manual(hands) => {
                    // Made before the look, so a move in between is not missed.
                    let moved = hands.moved.notified();
                    if self.now() >= at {
                        return;
                    }
                    moved.await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_pause_of_the_process_hardly_counts() {
        let waking = Waking::default();
        assert_eq!(waking.at(s(1)), s(1));
        assert_eq!(waking.at(s(3)), s(3));
        assert_eq!(waking.at(s(3 + 60)), s(3) + PAUSE_MAX, "stopped for a minute");
        assert_eq!(waking.at(s(65)), s(5) + PAUSE_MAX);
    }

    #[test]
    fn a_reading_that_comes_late_moves_nothing() {
        let waking = Waking::default();
        assert_eq!([s(2), s(1), s(2)].map(|raw| waking.at(raw)), [s(2); 3]);
    }
}
