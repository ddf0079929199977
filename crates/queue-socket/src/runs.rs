//! What is known of the attempts that were leased over one connection, so that their ends can be counted where the queue
//! is: a settlement does not say when its job became ready.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kvern_core::{FunctionName, Outcome};
use kvern_queue::{LeaseToken, Settlement};
use tokio::sync::Notify;

use crate::hears::{Ended, Hears};
use crate::words::WireLeased;

/// The attempts of one connection that have not ended.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    runs: Mutex<HashMap<LeaseToken, Run>>,
    begun: Notify,
}

#[derive(Debug)]
struct Run {
    function: FunctionName,
    wait: Duration,
}

/// How long an attempt took and how it ended: what is left of a settlement once the queue has it.
#[derive(Debug)]
pub(crate) struct End {
    outcome: &'static str,
    run: Duration,
}

// === impl Runs ===

impl Runs {
    pub(crate) fn begin(&self, leased: &[WireLeased]) {
        let mut runs = self.lock();
        for WireLeased { token, job, .. } in leased {
            let wait = job.started_at.unwrap_or(job.ready_at).since(job.ready_at);
            runs.insert(*token, Run { function: job.function.clone(), wait });
        }
        drop(runs);
        self.begun.notify_waiters();
    }

    /// Returns once there is one. May be dropped.
    pub(crate) async fn some(&self) {
        loop {
            // Made before the look, so that a begin in between is not missed.
            let begun = self.begun.notified();
            if !self.is_empty() {
                return;
            }
            begun.await;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// It ended, or its lease did.
    pub(crate) fn end(&self, token: LeaseToken) {
        self.lock().remove(&token);
    }

    /// Its end is stored.
    pub(crate) fn settled(&self, token: LeaseToken, end: Option<End>, hears: &dyn Hears) {
        let known = self.lock().remove(&token);
        if let (Some(Run { function, wait }), Some(End { outcome, run })) = (known, end) {
            hears.settled(&Ended { function: &function, outcome, wait, run });
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<LeaseToken, Run>> {
        // A map is whole at any time.
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl End ===

impl End {
    /// None for a release: it is no attempt.
    pub(crate) fn of(settlement: &Settlement) -> Option<Self> {
        let Settlement::Finish { outcome, attempt, .. } = settlement else { return None };
        Some(Self { outcome: Outcome::as_str(outcome), run: attempt.finished_at.since(attempt.started_at) })
    }
}
