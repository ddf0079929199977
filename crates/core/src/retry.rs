//! How often a job is tried, and how long it waits in between.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::ATTEMPTS_DEFAULT;

/// `retry = { attempts, backoff, max_backoff, jitter }` of a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Attempts in all, the first included; at least 1.
    pub attempts: u32,
    /// The wait before the second attempt; it doubles from there.
    pub backoff: Duration,
    /// The longest wait.
    pub max_backoff: Duration,
    /// Whether each wait is drawn between zero and its full length, so that jobs which failed together do not come
    /// back together ("full jitter": M. Brooker, Exponential Backoff and Jitter, 2015).
    pub jitter: bool,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: ATTEMPTS_DEFAULT,
            backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(10 * 60),
            jitter: true,
        }
    }
}

impl RetryPolicy {
    /// The wait after the `failures`-th failed attempt (from 1). `chance` lies in 0..1.
    #[must_use]
    pub fn wait(&self, failures: u32, chance: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let full = self.backoff.saturating_mul(1 << doublings).min(self.max_backoff);
        if self.jitter { full.mul_f64(chance.clamp(0.0, 1.0)) } else { full }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let policy = RetryPolicy { jitter: false, max_backoff: Duration::from_secs(5), ..RetryPolicy::default() };
        let waits: Vec<u64> = (1..=5).map(|n| policy.wait(n, 0.5).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 5, 5]);
    }

    proptest! {
        #[test]
        fn jitter_stays_within_the_full_wait(failures in 1u32..200, chance in 0.0f64..1.0) {
            let policy = RetryPolicy::default();
            let unjittered = RetryPolicy { jitter: false, ..RetryPolicy::default() };
            let full = unjittered.wait(failures, chance);
            prop_assert!(policy.wait(failures, chance) <= full);
            prop_assert!(full <= policy.max_backoff);
        }
    }
}
