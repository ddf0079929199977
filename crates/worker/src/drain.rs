//! The end of a worker: no new work, time for what runs, a stop for what does not end, and nothing left behind.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use crate::settings::DrainParts;
use crate::tasks::Tasks;
use crate::worker::Shared;

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

/// Drains the worker, within [`crate::Settings::drain_time`].
pub(crate) async fn drain(shared: &Arc<Shared>, tasks: &mut Tasks) -> Drained {
    let began = Instant::now();
    let before = shared.settlements.counts();
    let (works, orders) = shared.floor(|floor, _| floor.close());
    shared.closing.cancel();
    drop(orders);
    shared.refuse(works);

    let DrainParts { patience, grace, rest } = shared.settings.drain_parts();
    let stop_at = began + patience;
    let end_at = stop_at + grace + rest;
    shared.stations.close();
    let ended = tasks.watch_until(timeout_at(stop_at, shared.stations.wait())).await;
    if ended.is_err() {
        shared.stop_now.cancel();
        let stopped = tasks.watch_until(timeout_at(end_at - rest / 2, shared.stations.wait())).await;
        if stopped.is_err() {
            shared.too_late.cancel();
        }
        // Nothing is waited for any more, so this is at once, except for what is broken.
        if tasks.watch_until(timeout_at(end_at - rest / 4, shared.stations.wait())).await.is_err() {
            tracing::error!(left = shared.stations.len(), "instances did not stop in time");
        }
    }
    let stored = tasks.watch_until(timeout_at(end_at, shared.settlements.finished())).await;
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
