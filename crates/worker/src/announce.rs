//! Tells the queue that this worker lives and which versions it runs.

use std::sync::Arc;
use std::time::Duration;

use kvern_core::limits::WORKER_LISTED_FOR;
use kvern_queue::WorkerInfo;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::worker::Shared;

/// Twice in the time for which one word lasts.
const ANNOUNCE_EVERY: Duration = WORKER_LISTED_FOR.checked_div(2).expect("two is not zero");

/// Announces at once, at every change and from time to time.
pub(crate) async fn run(shared: &Arc<Shared>, stop: &CancellationToken) {
    let mut complained = false;
    loop {
        let news = shared.versions_news.notified();
        let functions = shared.floor(|floor, _| floor.versions());
        let info = WorkerInfo { name: shared.name.clone(), functions, seen_at: shared.clock.now() };
        match shared.queue.announce(info).await {
            Ok(()) => complained = false,
            Err(error) if !complained => {
                complained = true;
                tracing::warn!(%error, "the worker could not announce itself");
            }
            Err(_) => {}
        }
        tokio::select! {
            biased;
            // All only wait.
            () = sleep(ANNOUNCE_EVERY) => {}
            () = news => {}
            () = stop.cancelled() => return,
        }
    }
}
