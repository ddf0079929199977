//! Settlements that the queue has no room for. They are kept and tried again, and no job begins while there are any: its
//! outcome could not be stored either.

use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::timeout;

/// The pause before the second try of a settlement; it doubles up to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How many settlements wait for room.
#[derive(Debug)]
pub(crate) struct Backlog {
    waiting: watch::Sender<usize>,
    /// One of them left: there may be room for the others too.
    left: Notify,
}

/// One of them, until this is dropped.
pub(crate) struct Waiting<'a> {
    backlog: &'a Backlog,
    pause: Duration,
}

// === impl Backlog ===

impl Default for Backlog {
    fn default() -> Self {
        Self { waiting: watch::Sender::new(0), left: Notify::new() }
    }
}

impl Backlog {
    /// One more settlement waits.
    pub(crate) fn join(&self, error: &kvern_queue::Error) -> Waiting<'_> {
        let mut is_first = false;
        self.waiting.send_modify(|waiting| {
            is_first = *waiting == 0;
            *waiting += 1;
        });
        if is_first {
            tracing::warn!(%error, "outcomes cannot be stored; they are kept, and no job begins until they are");
        }
        Waiting { backlog: self, pause: PAUSE_FIRST }
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self.waiting.borrow() == 0
    }

    /// Returns once nothing waits. May be dropped.
    pub(crate) async fn empty(&self) {
        // The sender is in `self`, so this ends only with what it waits for.
        let _ = self.waiting.subscribe().wait_for(|waiting| *waiting == 0).await;
    }

    /// Returns once something waits. May be dropped.
    pub(crate) async fn begun(&self) {
        let _ = self.waiting.subscribe().wait_for(|waiting| *waiting > 0).await;
    }
}

// === impl Waiting ===

impl Waiting<'_> {
    /// Returns when it is worth another try.
    pub(crate) async fn pause(&mut self) {
        // Both ends of this wait are a reason to try.
        let _ = timeout(self.pause, self.backlog.left.notified()).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut is_last = false;
        self.backlog.waiting.send_modify(|waiting| {
            *waiting -= 1;
            is_last = *waiting == 0;
        });
        self.backlog.left.notify_waiters();
        if is_last {
            tracing::info!("no outcome waits for room any more; jobs begin again");
        }
    }
}
