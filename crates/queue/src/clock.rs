//! The two readings of time, so that a test can turn the hands.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kvern_core::UnixMs;
use tokio::sync::Notify;

/// Longest sleep of [`Clock::reached`] on the system clock before it looks at the wall again, which may have jumped.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Wall-clock and monotonic time. Cheap to clone; clones share the hands of a manual clock.
///
/// Schedules and records go by the wall; leases and timeouts by the monotonic reading, so that a clock that jumps
/// neither ends a lease nor keeps it.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    Manual(Arc<Hands>),
}

#[derive(Debug)]
struct Hands {
    wall_ms: AtomicU64,
    monotonic_ms: AtomicU64,
    moved: Notify,
}

impl Clock {
    /// The machine's clock. The monotonic reading follows tokio's, so a paused test runtime stops it.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
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
            Source::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
            }
            Source::Manual(hands) => UnixMs(hands.wall_ms.load(Ordering::SeqCst)),
        }
    }

    /// Time since some fixed moment, never going back.
    #[must_use]
    pub fn monotonic(&self) -> Duration {
        match &self.0 {
            Source::System => {
                static START: std::sync::OnceLock<tokio::time::Instant> = std::sync::OnceLock::new();
                START.get_or_init(tokio::time::Instant::now).elapsed()
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
                Source::System => {
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
