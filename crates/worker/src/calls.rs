//! Calls: they take slots of the same functions as jobs do, and nothing of them is stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kvern_core::{Failure, FailureCode, FunctionName, Outcome};
use kvern_runtime::{Body, Call, CallError, Context, Log, Reply};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::attempt::{Ended, Why, attempt};
use crate::lane::End;
use crate::log::AttemptLog;
use crate::reply::{self, CallOutput, ReplyLine};
use crate::request::{self, Request, ScratchDir};
use crate::station::Station;
use crate::work::{CallWork, Slot};
use crate::worker::Shared;

/// When a caller that got no place may come back.
const RETRY_AFTER_S: u32 = 1;

/// A call on its way to a slot.
pub(crate) struct Order {
    pub(crate) id: u64,
    pub(crate) function: FunctionName,
    request: Request,
    line: Arc<ReplyLine>,
    /// Cancelled when the caller has gone, before or in the middle of the reply.
    gone: CancellationToken,
}

/// Runs a call: waits for a slot, then for the begin of the reply.
pub(crate) async fn call(shared: &Arc<Shared>, call: Call) -> Result<Reply, CallError> {
    static NEXT_ID: AtomicU64 = AtomicU64::new(0);
    let Call { function: name, content_type, body, patience } = call;
    let serving = shared.floor(|floor, _| floor.serving(&name).filter(|_| floor.is_open()));
    let Some((serving, _)) = serving else { return Err(not_here(shared, name)) };
    let scratch_dir = ScratchDir { path: &shared.settings.scratch_dir, queue: &*shared.queue };
    let request = request::gather(scratch_dir, body, content_type, serving.function().max_input).await?;

    let gone = CancellationToken::new();
    let guard = gone.clone().drop_guard();
    let (line, mut answer) = ReplyLine::new();
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    let order = Order { id, function: name.clone(), request, line: Arc::new(line), gone };
    let waiting_max = shared.settings.calls_waiting_max;
    let refused = shared.floor(|floor, effects| floor.admit(shared, order, waiting_max, effects, Instant::now()));
    if refused.is_some() {
        let here = shared.floor(|floor, _| floor.is_open() && floor.serving(&name).is_some());
        return Err(if here { busy(name) } else { not_here(shared, name) });
    }
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        // Only waits; a call that has its slot by now goes on.
        () = sleep(patience) => match shared.floor(|floor, _| floor.withdraw(&name, id)) {
            Some(_) => return Err(busy(name)),
            None => answer.await,
        },
    };
    match answer {
        Ok(Ok(reply)) => Ok(keep_while_read(reply, guard)),
        Ok(Err(error)) => Err(error),
        // The order was dropped: its function is gone, or the worker stops.
        Err(oneshot::error::RecvError { .. }) => Err(not_here(shared, name)),
    }
}

/// Runs the call in the station's instance. Gives the slot back.
pub(crate) async fn turn(station: &mut Station, work: CallWork) -> Slot {
    let CallWork { order, slot } = work;
    let began = Instant::now();
    let ended = if order.is_wanted() { run(station, &order).await } else { return slot };
    let grace = station.shared.grace();
    let outcome = match ended {
        Ended::Outcome(outcome) => {
            station.clean_up_after(&outcome).await;
            outcome
        }
        Ended::Overran => {
            station.stop_instance(grace).await;
            Outcome::timed_out(station.serving.function().timeout)
        }
        Ended::Stopped(why) => {
            if why == Why::Draining {
                order.line.refuse(CallError::Stopping, &"the worker is stopping");
            }
            station.stop_instance(grace).await;
            Outcome::Cancelled
        }
        Ended::Panicked(panic) => {
            tracing::error!(function = %order.function, panic, "a call panicked in the worker");
            station.stop_instance(grace).await;
            Outcome::Failed(Failure::new(FailureCode::ProtocolError, "the worker failed; see its log"))
        }
    };
    finish(&order, outcome.failure());
    station.report.end = Some(End::of(&outcome));
    station.shared.observer.call_finished(&order.function, &outcome, began.elapsed());
    slot
}

/// A call whose function cannot be started.
pub(crate) fn cannot_start(work: CallWork, failure: &Failure) -> Slot {
    finish(&work.order, Some(failure));
    work.slot
}

/// Answers; where the machine had no room, the caller may come back.
fn finish(order: &Order, failure: Option<&Failure>) {
    match failure {
        Some(failure) if failure.code == FailureCode::NoRoom => {
            let function = order.function.clone();
            order.line.refuse(CallError::NoRoom { function, retry_after_s: RETRY_AFTER_S }, failure);
        }
        failure => order.line.finish(failure),
    }
}

async fn run(station: &mut Station, order: &Order) -> Ended {
    if let Err(ended) = station.make_ready().await {
        return ended;
    }
    let shared = Arc::clone(&station.shared);
    let Some(instance) = &mut station.instance else { return Ended::Stopped(Why::Draining) };
    let function = Arc::clone(station.serving.function());
    let context = Context {
        job: None,
        function: function.name.clone(),
        attempt: 1,
        attempts_max: 1,
        content_type: order.request.content_type.clone(),
        deadline: shared.clock.now().after(function.timeout),
        timeout: function.timeout,
    };
    let log: Arc<dyn Log> = Arc::new(AttemptLog::new(Arc::clone(&shared.observer), function.name.clone(), None));
    let mut output = CallOutput::new(Arc::clone(&order.line), function.max_output);
    let running = instance.run(&context, order.request.input.clone(), &mut output, &log);
    let stop = async {
        tokio::select! {
            biased;
            // All only wait.
            () = order.gone.cancelled() => Why::CallerGone,
            () = shared.stop_now.cancelled() => Why::Draining,
            never = order.line.begin_when_ripe() => match never {},
        }
    };
    let ended = attempt(running, stop, function.timeout, shared.settings.stop_grace).await;
    if matches!(ended, Ended::Stopped(Why::Draining)) {
        order.line.refuse(CallError::CutOff, &"the worker is stopping");
    }
    ended
}

/// The caller counts as gone once it drops what is still being written.
fn keep_while_read(reply: Reply, guard: DropGuard) -> Reply {
    match reply.body {
        Body::Stream(stream) => Reply { body: Body::Stream(reply::guarded(stream, guard)), ..reply },
        body => Reply { body, ..reply },
    }
}

fn busy(function: FunctionName) -> CallError {
    CallError::Busy { function, retry_after_s: RETRY_AFTER_S }
}

fn not_here(shared: &Shared, function: FunctionName) -> CallError {
    if shared.closing.is_cancelled() { CallError::Stopping } else { CallError::UnknownFunction(function) }
}

// === impl Order ===

impl Order {
    /// Whether somebody still waits for the reply.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.gone.is_cancelled()
    }
}
