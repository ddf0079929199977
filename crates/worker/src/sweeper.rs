//! Lets the queue do its housekeeping: expiry, overdue leases, retention. In small steps, and rarely while nothing moves.

use std::time::Duration;

use kvern_core::limits::SWEEP_EVERY;
use kvern_queue::{Queue, Retention, Stats, Swept};
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Jobs that one step handles.
const STEP_JOBS: usize = 256;
/// Between steps while there is more to do, so that submits and settlements get between them.
const STEP_PAUSE: Duration = Duration::from_millis(5);
/// The longest time between sweeps; they become rarer while nothing moves.
const SWEEP_EVERY_MAX: Duration = Duration::from_secs(64);

/// Sweeps until `stop`. Whoever leases jobs says so with `activity`. Also for a process that has a queue and no worker.
pub async fn sweep(queue: &dyn Queue, retention: impl Fn() -> Retention, activity: &Notify, stop: &CancellationToken) {
    let mut wait = SWEEP_EVERY;
    let mut complained = false;
    loop {
        tokio::select! {
            biased;
            // All only wait. News of activity ends a long sleep, not the regular one.
            () = sleep(wait) => {}
            () = activity.notified(), if wait > SWEEP_EVERY => {
                wait = SWEEP_EVERY;
                continue;
            }
            () = stop.cancelled() => return,
        }
        let swept = match queue.sweep(&retention(), STEP_JOBS).await {
            Ok(swept) => swept,
            Err(error) => {
                if !complained {
                    tracing::warn!(%error, "the queue could not be swept");
                }
                complained = true;
                // As a rule for want of room, which retention is about to make: this is not the time to be slow.
                wait = SWEEP_EVERY;
                continue;
            }
        };
        complained = false;
        if swept.rescued > 0 {
            tracing::warn!(jobs = swept.rescued, "leases ran out; their jobs run again");
        }
        wait = next_wait(wait, swept, &queue.stats());
    }
}

/// When to sweep again.
fn next_wait(wait: Duration, swept: Swept, stats: &Stats) -> Duration {
    if swept.more {
        return STEP_PAUSE;
    }
    let lively = stats.functions.iter().any(|(_, counts)| counts.running + counts.waiting() > 0);
    if lively || swept != Swept::default() {
        return SWEEP_EVERY;
    }
    (wait * 2).clamp(SWEEP_EVERY, SWEEP_EVERY_MAX)
}

#[cfg(test)]
mod tests {
    use kvern_queue::FunctionStats;

    use super::*;

    #[test]
    fn sweeps_become_rare_while_nothing_moves() {
        let mut wait = SWEEP_EVERY;
        for _ in 0..10 {
            wait = next_wait(wait, Swept::default(), &Stats::default());
        }
        assert_eq!(wait, SWEEP_EVERY_MAX);
    }

    #[test]
    fn waiting_jobs_keep_the_pace() {
        let counts = FunctionStats { scheduled: 1, ..FunctionStats::default() };
        let stats = Stats { functions: vec![("hello".parse().expect("a name"), counts)] };
        assert_eq!(next_wait(SWEEP_EVERY_MAX, Swept::default(), &stats), SWEEP_EVERY);
    }

    #[test]
    fn a_step_that_left_some_is_followed_soon() {
        let swept = Swept { forgotten: STEP_JOBS, more: true, ..Swept::default() };
        assert_eq!(next_wait(SWEEP_EVERY, swept, &Stats::default()), STEP_PAUSE);
    }
}
