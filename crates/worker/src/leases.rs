//! Asks the queue for jobs whenever slots are free.
//!
//! One loop for all functions, so that the queue's rotation is what shares the slots between them. A turn that ends may
//! ask for the next job of its own function by itself ([`crate::station`]); then this loop sleeps. Neither asks while
//! outcomes wait for room in the queue, nor for a function whose last result found none.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use kvern_queue::{Ask, Error, Leased, Want};
use tokio::time::{Instant, sleep, sleep_until};

use crate::floor::Wanted;
use crate::worker::Shared;

/// How long one question waits for an answer. Long: the queue wakes it.
const LEASE_WAIT: Duration = Duration::from_secs(60);
/// The wait after a question that failed; it doubles up to the longest.
const ERROR_WAIT_FIRST: Duration = Duration::from_millis(100);
const ERROR_WAIT_MAX: Duration = Duration::from_secs(5);

/// Leases jobs until the worker closes.
pub(crate) async fn run(shared: &Arc<Shared>) {
    let mut error_wait = ERROR_WAIT_FIRST;
    while !shared.closing.is_cancelled() {
        let backlog = &shared.settlements.backlog;
        tokio::select! {
            biased;
            // Both only wait.
            () = shared.closing.cancelled() => return,
            () = backlog.empty() => {}
        }
        // Before the look at the floor, so that no news between the two is lost.
        let news = shared.leases_news.notified();
        look_for_room(shared);
        let Wanted { wants, max, again_at } = shared.floor(|floor, _| floor.wanted(Instant::now()));
        let answer = tokio::select! {
            // Jobs that are there are taken, also when news came in the same moment.
            biased;
            // A dropped question leaves no lease behind (rule 11 of the queue).
            answer = ask(shared, wants, max) => answer,
            // These four only wait.
            () = news => continue,
            () = backlog.begun() => continue,
            () = time(again_at) => continue,
            () = shared.closing.cancelled() => continue,
        };
        match answer {
            Ok(leased) => {
                if !leased.is_empty() {
                    shared.activity.notify_one();
                }
                error_wait = ERROR_WAIT_FIRST;
                leased.into_iter().for_each(|leased| shared.take_in(leased));
            }
            Err(error) => {
                if error_wait == ERROR_WAIT_FIRST {
                    tracing::error!(%error, "jobs cannot be leased");
                }
                tokio::select! {
                    biased;
                    // Both only wait.
                    () = sleep(error_wait) => {}
                    () = shared.closing.cancelled() => {}
                }
                error_wait = (error_wait * 2).min(ERROR_WAIT_MAX);
            }
        }
    }
}

/// Lets functions whose results found no room go on, if there is room now.
fn look_for_room(shared: &Arc<Shared>) {
    if shared.floor(|floor, _| floor.awaits_room()) && shared.queue.room().is_ok() {
        shared.floor(|floor, _| floor.has_room());
    }
}

/// Waits for jobs for the free slots; for ever, if there are none.
async fn ask(shared: &Shared, wants: Vec<Want>, max: usize) -> Result<Vec<Leased>, Error> {
    if wants.is_empty() {
        return pending().await;
    }
    shared.queue.lease(Ask { worker: shared.name.clone(), wants, max, wait: LEASE_WAIT }).await
}

async fn time(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}
