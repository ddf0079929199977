//! One execution of a function in an instance, and everything that may end it before it ends by itself.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use kvern_core::Outcome;
use kvern_runtime::Instance;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::heartbeat::Stop;

/// The runtime ends an attempt at its timeout; this much later the worker does not wait for it any longer.
const BACKSTOP: Duration = Duration::from_secs(1);

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// By itself, or by the runtime at its timeout.
    Outcome(Outcome),
    /// Somebody did not want it to go on.
    Stopped(Why),
    /// The runtime did not end it in time.
    Overran,
    /// Our own code panicked, which is no fault of the function.
    Panicked(String),
}

/// Why an attempt was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// What the lease said.
    Lease(Stop),
    /// The caller has gone.
    CallerGone,
    /// The worker stops and the time to finish has passed.
    Draining,
}

/// Runs an attempt until it ends or `stop` says why it must not go on. Whatever ended it, the future of the run is gone
/// when this returns.
pub(crate) async fn attempt(
    run: impl Future<Output = Outcome>,
    stop: impl Future<Output = Why>,
    timeout: Duration,
    grace: Duration,
) -> Ended {
    tokio::select! {
        // An outcome that is there counts, also when something else happened in the same moment.
        biased;
        ended = catch_panic(run) => match ended {
            Ok(outcome) => Ended::Outcome(outcome),
            Err(panic) => Ended::Panicked(panic),
        },
        // From here on the run is dropped, which stops it (rule 4 of the runtime).
        why = stop => Ended::Stopped(why),
        () = sleep(timeout.saturating_add(grace).saturating_add(BACKSTOP)) => Ended::Overran,
    }
}

/// Stops an instance; a runtime that does not keep its bound is not waited for, and nobody is once it is too late.
pub(crate) async fn stop_instance(instance: Box<dyn Instance>, grace: Duration, too_late: &CancellationToken) {
    let stopped = timeout(grace + 2 * BACKSTOP, instance.stop(grace));
    let is_stopped = tokio::select! {
        biased;
        stopped = stopped => stopped.is_ok(),
        // A dropped stop drops the instance, and that kills everything of it (rule 4 of the runtime).
        () = too_late.cancelled() => false,
    };
    if !is_stopped {
        tracing::warn!("an instance did not stop in time");
    }
}

/// The future's output, or the words of its panic.
pub(crate) async fn catch_panic<F: Future>(future: F) -> Result<F::Output, String> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(panic) => Poll::Ready(Err(words_of(&*panic))),
    })
    .await
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    words.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no words".to_owned())
}
