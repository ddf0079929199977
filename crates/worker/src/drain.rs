//! The end of a worker: no new work, time for what runs, a stop for what does not end, and nothing left behind.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::tasks::Tasks;
use crate::worker::Shared;

/// What stopping may take beyond its grace.
const STOP_SLACK: Duration = Duration::from_secs(3);
/// How long settlements may take to be stored once nothing runs any more: as long as a slow disk needs, not longer.
const SETTLE_TIME: Duration = Duration::from_secs(10);

/// What a drain did, and what it left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drained {
    /// Attempts that ended and were stored during the drain.
    pub finished: usize,
    /// Jobs that were given back: leased and not begun, or stopped.
    pub released: usize,
    /// Settlements that were not stored in time. Their jobs run again.
    pub unsettled: usize,
    /// Instances that did not stop in time.
    pub stuck: usize,
}

// === impl Drained ===

impl Drained {
    /// Whether nothing was left behind.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.unsettled == 0 && self.stuck == 0
    }
}

/// Drains the worker.
pub(crate) async fn drain(shared: &Arc<Shared>, tasks: &mut Tasks) -> Drained {
    let before = shared.settlements.counts();
    let (works, orders) = shared.floor(|floor, _| floor.close());
    shared.closing.cancel();
    drop(orders);
    shared.refuse(works);

    let (patience, _) = shared.settings.drain_parts();
    shared.stations.close();
    let ended = tasks.watch_until(timeout(patience, shared.stations.wait())).await;
    if ended.is_err() {
        shared.stop_now.cancel();
        // Instances whose stop began before the drain have the whole grace.
        let bound = shared.settings.stop_grace + STOP_SLACK;
        let stopped = tasks.watch_until(timeout(bound, shared.stations.wait())).await;
        if stopped.is_err() {
            tracing::error!(left = shared.stations.len(), "instances did not stop in time");
        }
    }
    let stored = tasks.watch_until(timeout(SETTLE_TIME, shared.settlements.finished())).await;
    if stored.is_err() {
        tracing::error!(left = shared.settlements.under_way(), "settlements were not stored in time");
    }
    tasks.stop().await;
    let after = shared.settlements.counts();
    Drained {
        finished: after.0 - before.0,
        released: after.1 - before.1,
        unsettled: shared.settlements.under_way(),
        stuck: shared.stations.len(),
    }
}
