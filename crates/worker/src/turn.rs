//! One job from lease to settlement. Read this first.
//!
//! A turn happens at a [`Station`], which owns the instance that the job runs in. The lease is renewed all the while by
//! the heartbeat, which is also where the turn hears of a cancellation. What follows the outcome is decided by
//! [`kvern_core::next`]; the settlement is handed over and stored without the turn waiting for the disk.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kvern_core::{Attempt, Failure, FailureCode, Job, Next, Outcome, RetryPolicy, UnixMs, next};
use kvern_queue::{LeaseToken, Leased, Payload, Queue, Settlement, Unreadable};
use kvern_runtime::{Context, FunctionVersion, Input, Log};
use tokio::time::{Instant, timeout as within};

use crate::attempt::{Ended, Why, attempt};
use crate::heartbeat::{Holding, Stop};
use crate::lane::End;
use crate::log::AttemptLog;
use crate::observer::{Started, Times};
use crate::output::JobOutput;
use crate::settle::Note;
use crate::station::Station;
use crate::work::{JobWork, Slot};
use crate::worker::Shared;

/// After a panic of ours the job is released this much later, so that one which always makes us panic costs little.
const PANIC_PAUSE: Duration = Duration::from_secs(1);

/// What is to be done with the lease.
enum Verdict {
    /// Store the outcome, with the result of a success.
    Finish(Outcome, Option<(String, Payload)>),
    /// Give the job back as if it had not been leased; whether it had begun to run.
    Release { has_run: bool },
    /// Nothing: the lease is over.
    Forget,
}

/// What is known of the attempt from its begin.
struct Record {
    job: Job,
    version: Option<Arc<FunctionVersion>>,
    /// Of the function, also where no version of it could be prepared.
    retry: RetryPolicy,
    started_at: UnixMs,
    began: Instant,
    wait: Duration,
}

/// Runs the job and hands its settlement over. Gives the slot back, for the next job.
pub(crate) async fn turn(station: &mut Station, work: JobWork) -> Slot {
    let JobWork { leased, holding, slot } = work;
    let Leased { lease, job, input } = leased;
    let function = Arc::clone(station.serving.function());
    let record = Record::begin(&station.shared, job, station.serving.version(), function.retry.clone());
    let log =
        Arc::new(AttemptLog::new(Arc::clone(&station.shared.observer), function.name.clone(), Some(record.job.id)));
    let mut output = JobOutput::new(Arc::clone(&station.shared.queue), function.max_output);

    let ended = match holding.stop() {
        Some(stop) => Ended::Stopped(Why::Lease(stop)),
        // It was cut off where we cannot see it, and whoever waits for a call is not to get it twice.
        None if record.is_second_of_call() => Ended::Outcome(cut_off()),
        None => run(station, &record, input, &mut output, &log, &holding, lease.token()).await,
    };
    let verdict = record.verdict(conclude(station, ended, output, function.timeout).await);

    let has_run = !matches!(verdict, Verdict::Release { has_run: false });
    let (settlement, outcome) = match verdict {
        Verdict::Finish(outcome, result) => {
            station.report.end = Some(End::of(&outcome));
            let settlement = record.finish(&station.shared, &outcome, result, log.take_rest());
            (settlement, Some(outcome))
        }
        Verdict::Release { .. } => (Settlement::Release, None),
        Verdict::Forget => return slot,
    };
    let note = record.note(outcome, has_run);
    let stored = station.shared.settlements.hand_over(lease, holding, settlement, note).await;
    if station.report.end == Some(End::Crashed) {
        // Its own slot stays for it: another job there could make it wait for minutes. It is the next in line. In a
        // drain nothing is, and the settlement is waited for elsewhere.
        tokio::select! {
            _ = stored => {}
            () = station.shared.closing.cancelled() => {}
        }
    }
    slot
}

/// A leased job whose function cannot be started: it fails, and may be tried again. Where only the machine has no room,
/// it goes back as if it had not been leased.
pub(crate) async fn cannot_start(
    shared: &Arc<Shared>,
    work: JobWork,
    version: &Arc<FunctionVersion>,
    failure: Failure,
) -> Slot {
    if failure.code == FailureCode::NoRoom && work.holding.stop().is_none() {
        let JobWork { leased, holding, slot } = work;
        shared.release(leased, holding);
        return slot;
    }
    settle_unrun(shared, work, Some(version), Outcome::Failed(failure)).await
}

/// A leased job that was cancelled, or whose lease ended, before it had an instance.
pub(crate) async fn settle_stopped(shared: &Arc<Shared>, work: JobWork) -> Slot {
    settle_unrun(shared, work, None, Outcome::Cancelled).await
}

async fn settle_unrun(
    shared: &Arc<Shared>,
    work: JobWork,
    version: Option<&Arc<FunctionVersion>>,
    outcome: Outcome,
) -> Slot {
    let JobWork { leased, holding, slot } = work;
    let outcome = match holding.stop() {
        Some(Stop::Over) => return slot,
        Some(Stop::Cancelled) => Outcome::Cancelled,
        None => outcome,
    };
    let retry = version.map(|version| version.function.retry.clone()).unwrap_or_default();
    let record = Record::begin(shared, leased.job, version, retry);
    let settlement = record.finish(shared, &outcome, None, Bytes::new());
    let note = record.note(Some(outcome), true);
    shared.settlements.hand_over(leased.lease, holding, settlement, note).await;
    slot
}

/// The outcome of a call that began and was not allowed to end.
fn cut_off() -> Outcome {
    Outcome::Failed(Failure::cut_off_call())
}

/// The attempt itself, in the station's instance.
async fn run(
    station: &mut Station,
    record: &Record,
    input: Payload,
    output: &mut JobOutput,
    log: &Arc<AttemptLog>,
    holding: &Holding,
    token: LeaseToken,
) -> Ended {
    if let Err(ended) = station.make_ready().await {
        return ended;
    }
    let shared = Arc::clone(&station.shared);
    let Some(instance) = &mut station.instance else { return Ended::Stopped(Why::Draining) };
    let function = Arc::clone(station.serving.function());
    let context = Context {
        job: Some(record.job.id),
        function: function.name.clone(),
        attempt: record.number(),
        attempts_max: if record.job.is_call() { 1 } else { record.job.tally.attempts_max(&function.retry) },
        content_type: record.job.content_type.clone(),
        deadline: shared.clock.now().after(function.timeout),
        timeout: function.timeout,
    };
    let as_log: Arc<dyn Log> = Arc::clone(log) as Arc<dyn Log>;
    let mut append = None;
    let running = async {
        match verified(input).await {
            Ok(input) => instance.run(&context, input, output, &as_log).await,
            Err(damaged) => damaged,
        }
    };
    let stop = until_stopped(&shared, holding, log, token, &mut append);
    let ended = attempt(running, stop, function.timeout, shared.settings.stop_grace).await;
    // Log bytes that were taken belong before the rest: the queue has them first.
    if let Some(append) = append {
        append.await;
    }
    ended
}

/// The input, or the outcome of a job whose stored input is not what was sent. What cannot be read now is left to the
/// attempt, which says so.
async fn verified(input: Payload) -> Result<Input, Outcome> {
    let blob = match input {
        Payload::Inline(bytes) => return Ok(Input::Bytes(bytes)),
        Payload::Blob(blob) => blob,
    };
    match blob.verify().await {
        Err(damaged @ Unreadable::Damaged { .. }) => {
            tracing::error!(error = %damaged, "the stored input of a job is damaged");
            Err(Outcome::Failed(Failure::damaged_input()))
        }
        Ok(()) | Err(Unreadable::Io(_)) => Ok(Input::File(blob.path, blob.bytes)),
    }
}

/// Log bytes on their way to the queue. Never dropped midway: they would be lost, or doubled.
type Append = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Returns why the attempt must stop; sends its log on until then. What is on its way stays in `append` when this is
/// dropped.
async fn until_stopped(
    shared: &Shared,
    holding: &Holding,
    log: &AttemptLog,
    token: LeaseToken,
    append: &mut Option<Append>,
) -> Why {
    loop {
        let sending = append.is_some();
        tokio::select! {
            biased;
            // These three only wait.
            stop = holding.stopped() => return Why::Lease(stop),
            () = shared.stop_now.cancelled() => return Why::Draining,
            () = log.ripe(), if !sending => {
                *append = Some(Box::pin(append_log(Arc::clone(&shared.queue), token, log.take_pending())));
            }
            // Goes on in the next round, or with the caller.
            () = sent(append), if sending => *append = None,
        }
    }
}

async fn sent(append: &mut Option<Append>) {
    if let Some(append) = append {
        append.await;
    }
}

async fn append_log(queue: Arc<dyn Queue>, token: LeaseToken, bytes: Bytes) {
    if let Err(error) = queue.append_log(token, bytes).await {
        // The heartbeat hears of a lease that is over; a queue that fails is heard of at the settlement.
        tracing::debug!(job_id = %token.job, %error, "log bytes were not stored");
    }
}

/// What follows from the end of the attempt for the instance and the lease. An instance whose attempt did not end by
/// itself is stopped first: nothing of an attempt runs once the job moves on.
async fn conclude(station: &mut Station, ended: Ended, output: JobOutput, timeout: Duration) -> Verdict {
    let grace = station.shared.grace();
    let has_instance = station.instance.is_some();
    let (ended, result) = match ended {
        Ended::Outcome(Outcome::Succeeded) => match output.finish().await {
            Ok(result) => (Ended::Outcome(Outcome::Succeeded), Some(result)),
            Err(refused) => (Ended::Outcome(refused.outcome()), None),
        },
        ended => (ended, None),
    };
    match ended {
        Ended::Outcome(Outcome::Failed(failure)) if failure.code == FailureCode::NoRoom => {
            tracing::warn!(function = %station.serving.function().name, error = %failure, "no room for an attempt; its job is released");
            station.report.end = Some(End::NoRoom);
            Verdict::Release { has_run: false }
        }
        Ended::Outcome(outcome) => {
            station.clean_up_after(&outcome).await;
            Verdict::Finish(outcome, result)
        }
        Ended::Overran => {
            station.stop_instance(grace).await;
            Verdict::Finish(Outcome::timed_out(timeout), None)
        }
        Ended::Stopped(why) => {
            station.stop_instance(grace).await;
            match why {
                Why::Lease(Stop::Cancelled) => Verdict::Finish(Outcome::Cancelled, None),
                Why::Lease(Stop::Over) => Verdict::Forget,
                Why::Draining | Why::CallerGone => Verdict::Release { has_run: has_instance },
            }
        }
        Ended::Panicked(panic) => {
            tracing::error!(panic, "an attempt panicked in the worker; its job is released");
            station.stop_instance(grace).await;
            // A drain has no time for it, and starts nothing again. Dropped, the wait leaves nothing behind.
            let _ = within(PANIC_PAUSE, station.shared.stop_now.cancelled()).await;
            Verdict::Release { has_run: has_instance }
        }
    }
}

// === impl Record ===

impl Record {
    fn begin(shared: &Shared, job: Job, version: Option<&Arc<FunctionVersion>>, retry: RetryPolicy) -> Self {
        // The queue's: the record of the job and that of the attempt tell the same time.
        let started_at = job.started_at.unwrap_or_else(|| shared.clock.now());
        let wait = started_at.since(job.ready_at);
        let record = Self { job, version: version.cloned(), retry, started_at, began: Instant::now(), wait };
        shared.observer.job_started(&Started {
            job: record.job.id,
            function: &record.job.function,
            attempt: record.number(),
            wait,
        });
        record
    }

    /// The number of the attempt, from 1.
    fn number(&self) -> u32 {
        self.job.tally.attempts + 1
    }

    /// A call has one attempt, also if the first was cut off.
    fn is_second_of_call(&self) -> bool {
        self.job.is_call() && self.job.tally.attempts > 0
    }

    /// What is done with the lease: a call that has begun is not given back, for it would run again.
    fn verdict(&self, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Release { has_run: true } if self.job.is_call() => Verdict::Finish(cut_off(), None),
            verdict => verdict,
        }
    }

    /// What follows an outcome: after a call, nothing.
    fn next(&self, shared: &Shared, outcome: &Outcome, now: UnixMs) -> Next {
        match next(self.job.tally.with(outcome), outcome, &self.retry, now, (shared.settings.chance)()) {
            Next::RetryAt(_) | Next::RetryNow if self.job.is_call() => Next::Fail,
            next => next,
        }
    }

    /// The settlement of an attempt with an outcome.
    fn finish(&self, shared: &Shared, outcome: &Outcome, result: Option<(String, Payload)>, log: Bytes) -> Settlement {
        let now = shared.clock.now();
        let next = self.next(shared, outcome, now);
        let attempt = Attempt {
            number: self.number(),
            outcome: outcome.as_str().to_owned(),
            started_at: self.started_at,
            finished_at: now,
            version: self.version.as_ref().map(|version| version.version.to_string()),
            error: outcome.failure().map(one_line),
        };
        Settlement::Finish { outcome: outcome.clone(), next, result, attempt, log }
    }

    fn note(self, outcome: Option<Outcome>, has_run: bool) -> Note {
        Note {
            attempt: self.number(),
            function: self.job.function,
            outcome,
            times: has_run.then(|| Times { wait: self.wait, run: self.began.elapsed() }),
        }
    }
}

fn one_line(failure: &Failure) -> String {
    failure.to_string().lines().next().unwrap_or_default().chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_of_an_attempt_has_one_line() {
        let failure = Failure::new(FailureCode::Exception, format!("first {}\nsecond", "x".repeat(500)));
        let line = one_line(&failure);
        assert!(line.starts_with("first xxx") && line.len() == 200 && !line.contains('\n'));
    }
}
