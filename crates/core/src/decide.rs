//! What follows an outcome: the one place that decides between success, retry and dead letter.

use serde::{Deserialize, Serialize};

use crate::limits::{INTERRUPTIONS_MAX, STRIKES_MAX};
use crate::outcome::Outcome;
use crate::retry::RetryPolicy;
use crate::time::UnixMs;

/// How often a job was tried, and how those attempts ended. All counts start at zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Attempts that were started and settled; the running attempt is this plus one.
    pub attempts: u32,
    /// Attempts that failed or timed out: counted against [`RetryPolicy::attempts`].
    pub failures: u32,
    /// Attempts under which the function's process died: counted against [`STRIKES_MAX`].
    pub strikes: u32,
    /// Attempts cut off by the death of the server or worker: counted against [`INTERRUPTIONS_MAX`].
    pub interruptions: u32,
}

/// What follows an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Next {
    /// The job succeeded.
    Succeed,
    /// The job becomes a dead letter.
    Fail,
    /// The job is cancelled.
    Cancel,
    /// Another attempt at once.
    RetryNow,
    /// Another attempt at this time.
    RetryAt(UnixMs),
}

impl Tally {
    /// The counts with one more attempt that ended so.
    #[must_use]
    pub fn with(mut self, outcome: &Outcome) -> Self {
        self.attempts += 1;
        match outcome {
            Outcome::Succeeded | Outcome::Cancelled => {}
            Outcome::Failed(_) | Outcome::TimedOut(_) => self.failures += 1,
            Outcome::Crashed(_) => self.strikes += 1,
        }
        self
    }

    /// The counts with one more attempt that was cut off.
    #[must_use]
    pub fn with_interruption(mut self) -> Self {
        self.attempts += 1;
        self.interruptions += 1;
        self
    }

    /// The number of the last attempt, if this one is the next and every one from here fails. Only failures are counted
    /// against the policy, so each strike, each interruption and each earlier life of the job moves the last number on.
    ///
    /// A policy that allows less than the job had already stops it after its next attempt, and not before.
    #[must_use]
    pub fn attempts_max(&self, policy: &RetryPolicy) -> u32 {
        self.attempts + policy.attempts.saturating_sub(self.failures).max(1)
    }

    /// Whether too many attempts were cut off for another one.
    #[must_use]
    pub fn is_interrupted_too_often(&self) -> bool {
        self.interruptions >= INTERRUPTIONS_MAX
    }
}

/// What follows `outcome` for a job whose counts, this attempt included, are `tally`. `chance` lies in 0..1.
///
/// A crash is not a failure of the job: it runs again at once and keeps its retries, until the third strike.
#[must_use]
pub fn next(tally: Tally, outcome: &Outcome, policy: &RetryPolicy, now: UnixMs, chance: f64) -> Next {
    match outcome {
        Outcome::Succeeded => Next::Succeed,
        Outcome::Cancelled => Next::Cancel,
        Outcome::Crashed(_) if tally.strikes < STRIKES_MAX => Next::RetryNow,
        Outcome::Crashed(_) => Next::Fail,
        Outcome::Failed(failure) | Outcome::TimedOut(failure) => {
            if !failure.retryable() || tally.failures >= policy.attempts {
                return Next::Fail;
            }
            let wait = match failure.retry_after_ms {
                Some(ms) => std::time::Duration::from_millis(ms),
                None => policy.wait(tally.failures, chance),
            };
            Next::RetryAt(now.after(wait))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::outcome::{Failure, FailureCode};

    fn failed(code: FailureCode) -> Outcome {
        Outcome::Failed(Failure::new(code, "no"))
    }

    #[test]
    fn the_last_attempt_makes_a_dead_letter() {
        let policy = RetryPolicy { attempts: 3, ..RetryPolicy::default() };
        let mut tally = Tally::default();
        let mut nexts = Vec::new();
        for _ in 0..3 {
            tally = tally.with(&failed(FailureCode::Exception));
            nexts.push(next(tally, &failed(FailureCode::Exception), &policy, UnixMs(1000), 0.0));
        }
        assert_eq!(nexts, [Next::RetryAt(UnixMs(1000)), Next::RetryAt(UnixMs(1000)), Next::Fail]);
    }

    #[test]
    fn a_permanent_failure_is_not_retried() {
        let outcome = failed(FailureCode::Permanent);
        let tally = Tally::default().with(&outcome);
        assert_eq!(next(tally, &outcome, &RetryPolicy::default(), UnixMs(0), 0.5), Next::Fail);
    }

    #[test]
    fn the_third_strike_fails_even_with_retries_left() {
        let crash = Outcome::Crashed(Failure::new(FailureCode::Crash, "killed by signal 11"));
        let policy = RetryPolicy { attempts: 100, ..RetryPolicy::default() };
        let mut tally = Tally::default();
        let mut nexts = Vec::new();
        for _ in 0..3 {
            tally = tally.with(&crash);
            nexts.push(next(tally, &crash, &policy, UnixMs(0), 0.5));
        }
        assert_eq!(nexts, [Next::RetryNow, Next::RetryNow, Next::Fail]);
        assert_eq!(tally.failures, 0);
    }

    #[test]
    fn the_function_may_name_its_own_wait() {
        let mut failure = Failure::new(FailureCode::Retry, "later");
        failure.retry_after_ms = Some(5_000);
        let outcome = Outcome::Failed(failure);
        let tally = Tally::default().with(&outcome);
        assert_eq!(next(tally, &outcome, &RetryPolicy::default(), UnixMs(1), 0.0), Next::RetryAt(UnixMs(5_001)));
    }

    #[test]
    fn what_is_no_failure_moves_the_last_attempt_on() {
        let policy = RetryPolicy { attempts: 3, ..RetryPolicy::default() };
        let told = |attempts, failures| Tally { attempts, failures, ..Tally::default() }.attempts_max(&policy);
        assert_eq!((told(0, 0), told(1, 1), told(2, 2)), (3, 3, 3));
        assert_eq!((told(1, 0), told(2, 1), told(3, 2)), (4, 4, 4), "the first was a strike or an interruption");
        assert_eq!((told(3, 0), told(5, 2)), (6, 6), "three failures were of an earlier life");
        assert_eq!(told(7, 7), 8, "the policy was other when it failed so often");
    }

    proptest! {
        #[test]
        fn the_attempt_that_is_told_to_be_the_last_is_the_last(attempts in 1u32..9, crashes in 0u32..STRIKES_MAX) {
            let policy = RetryPolicy { attempts, ..RetryPolicy::default() };
            let crash = Outcome::Crashed(Failure::new(FailureCode::Crash, ""));
            let mut tally = (0..crashes).fold(Tally::default(), |tally, _| tally.with(&crash));
            loop {
                let is_last = tally.attempts + 1 == tally.attempts_max(&policy);
                tally = tally.with(&failed(FailureCode::Exception));
                let next = next(tally, &failed(FailureCode::Exception), &policy, UnixMs(0), 0.5);
                prop_assert_eq!(next == Next::Fail, is_last);
                if is_last {
                    break;
                }
            }
        }

        #[test]
        fn a_job_never_runs_for_ever(attempts in 1u32..20, kinds in proptest::collection::vec(0u8..3, 60)) {
            let policy = RetryPolicy { attempts, ..RetryPolicy::default() };
            let mut tally = Tally::default();
            let mut ended = false;
            for kind in kinds {
                let outcome = match kind {
                    0 => failed(FailureCode::Exception),
                    1 => Outcome::timed_out(std::time::Duration::from_secs(1)),
                    _ => Outcome::Crashed(Failure::new(FailureCode::Crash, "")),
                };
                tally = tally.with(&outcome);
                if next(tally, &outcome, &policy, UnixMs(0), 0.5) == Next::Fail {
                    ended = true;
                    break;
                }
            }
            prop_assert!(ended);
            prop_assert!(tally.attempts <= attempts + STRIKES_MAX);
        }
    }
}
