//! Starts more instances while work waits for one. Sleeps while none does.

use std::sync::Arc;

use tokio::time::{Instant, sleep};

use crate::floor::SCALE_UP_AFTER;
use crate::worker::Shared;

/// Scales up until the worker closes.
pub(crate) async fn run(shared: &Arc<Shared>) {
    loop {
        tokio::select! {
            biased;
            // Both only wait.
            () = shared.scaler_news.notified() => {}
            () = shared.closing.cancelled() => return,
        }
        loop {
            tokio::select! {
                biased;
                // Both only wait.
                () = sleep(SCALE_UP_AFTER) => {}
                () = shared.closing.cancelled() => return,
            }
            if !shared.floor(|floor, effects| floor.scale_up(effects, Instant::now())) {
                break;
            }
        }
    }
}
