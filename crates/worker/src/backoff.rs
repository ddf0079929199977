//! A pause that grows while something keeps going wrong. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// The pause after the second trouble in a row; the first costs none, and it doubles from here.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Counts troubles in a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    troubles: u32,
    until: Option<Instant>,
    pause_max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::up_to(PAUSE_MAX)
    }
}

impl Backoff {
    /// One with another longest pause.
    pub(crate) const fn up_to(pause_max: Duration) -> Self {
        Self { troubles: 0, until: None, pause_max }
    }

    /// Something went wrong.
    pub(crate) fn trouble(&mut self, now: Instant) {
        self.until = Some(now + pause(self.troubles).min(self.pause_max));
        self.troubles = self.troubles.saturating_add(1);
    }

    /// Something went well: what went wrong before is forgotten.
    pub(crate) fn forget(&mut self) {
        *self = Self::up_to(self.pause_max);
    }

    /// Until when to pause, if so.
    pub(crate) fn resting(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }
}

fn pause(troubles: u32) -> Duration {
    match troubles.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => PAUSE_FIRST.saturating_mul(1 << doublings.min(16)).min(PAUSE_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end_with_what_goes_well() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        let mut pauses = Vec::new();
        for _ in 0..4 {
            backoff.trouble(now);
            pauses.push(backoff.resting(now).map_or(0, |until| (until - now).as_millis()));
        }
        assert_eq!(pauses, [0, 100, 200, 400]);
        assert!(backoff.resting(now + Duration::from_millis(400)).is_none());
        backoff.forget();
        assert!(backoff.resting(now).is_none());
    }

    #[test]
    fn pauses_are_bounded() {
        assert_eq!(pause(u32::MAX), PAUSE_MAX);
    }
}
