//! Rules 28 to 30, 33 and 34: what time does to jobs, what a want of room, and who need not wait for either.

use std::sync::Arc;

use kvern_core::limits::{
    IDEMPOTENCY_KEEP, INLINE_BYTES_MAX, KEEP_FAILED_DEFAULT, KEEP_SUCCEEDED_DEFAULT, LEASE_TTL, RECORD_BYTES,
};
use kvern_core::{FailureCode, JobId, Keep, Next, State};

use super::Subject;
use super::setup::{Dice, Setup, failed, finish, hours, job, keep, keyed, millis, name, secs, until};
use crate::error::Error;
use crate::job::{Filter, NewJob};
use crate::payload::Payload;

pub(super) async fn expired_jobs_fail(subject: Arc<dyn Subject>) {
    let t = Setup::new(subject).await;
    let expires_at = Some(t.clock.now().after(secs(60)));
    let running = t.submit(NewJob { expires_at, ..job("f") }).await;
    let in_time = t.lease_one("f").await;
    assert_eq!(in_time.job.id, running);
    let again = t.submit(NewJob { expires_at, ..job("f") }).await;
    let leased = t.lease_one("f").await;
    let settlement = finish(&leased, failed(), Next::RetryAt(t.clock.now().after(secs(70))));
    t.settle(leased.lease, settlement).await;
    let queued = t.submit(NewJob { expires_at, ..job("f") }).await;
    let not_before = Some(t.clock.now().after(hours(1)));
    let scheduled = t.submit(NewJob { expires_at, not_before, ..job("f") }).await;
    let later = t.submit(NewJob { expires_at: Some(t.clock.now().after(secs(61))), ..job("other") }).await;

    for _ in 0..12 {
        t.clock.advance(secs(5) - millis(1));
        t.renew(&in_time).await;
    }
    t.clock.advance(millis(11));
    assert_eq!(t.sweep(&Vec::new()).await, (0, 0, 0), "nothing expires before its time");
    t.clock.advance(millis(1));
    t.lease_none("f").await;
    assert_eq!(t.sweep(&Vec::new()).await, (3, 0, 0));
    for id in [queued, scheduled, again] {
        let record = t.get(id).await;
        assert_eq!((record.state, record.finished_at, record.due_at), (State::Failed, Some(t.clock.now()), None));
        assert_eq!(record.error.map(|failure| failure.code), Some(FailureCode::Expired));
    }
    assert_eq!(t.state(later).await, State::Queued);
    t.succeed(in_time).await;
    t.clock.advance(hours(2));
    t.lease_none("f").await;

    let t = t.reopen().await;
    t.lease_none("other").await;
    assert_eq!(t.sweep(&Vec::new()).await, (1, 0, 0), "expired while the queue was dead");
    t.queue.retry(queued).await.expect("an expired job can be retried");
    assert_eq!(t.sweep(&Vec::new()).await, (0, 0, 0));
    assert_eq!(t.lease_one("f").await.job.id, queued);
}

pub(super) async fn finished_jobs_are_forgotten(subject: Arc<dyn Subject>) {
    let t = Setup::new(subject).await;
    let files = t.files();
    let retention = keep(&["other", "f"], hours(2), hours(5));
    let success = finished(&t, 1, async || t.succeed(t.lease_one("f").await).await).await;
    let dead_letter = finished(&t, 2, async || t.fail(t.lease_one("f").await).await).await;
    let cancelled = finished(&t, 3, async || drop(t.queue.cancel(newest(&t).await).await)).await;
    let waiting = t.submit(keyed("f", 4, 1)).await;

    t.clock.advance(hours(2) - millis(1));
    assert_eq!(t.sweep(&retention).await, (0, 0, 0), "never before");
    t.clock.advance(millis(1));
    assert_eq!(t.sweep(&retention).await, (0, 0, 1));
    check_forgotten(&t, success).await;
    assert_eq!(t.state(dead_letter).await, State::Failed);
    t.clock.advance(hours(3) - millis(1));
    assert_eq!(t.sweep(&retention).await, (0, 0, 0));
    let t = t.reopen().await;
    t.clock.advance(millis(1));
    assert_eq!(t.sweep(&retention).await, (0, 0, 2), "a dead letter and a cancelled job");
    check_forgotten(&t, dead_letter).await;
    check_forgotten(&t, cancelled).await;
    until("the files of forgotten jobs are gone", async || t.files() == files).await;
    let t = t.reopen().await;
    check_forgotten(&t, success).await;
    assert_eq!(t.list(&Filter::default(), 10).await.len(), 1);

    // A key goes as well, but no sooner than rule 2 allows. (An adapter may take two days more, and several sweeps.)
    for _ in 0..4 {
        t.clock.advance(IDEMPOTENCY_KEEP);
        t.sweep(&retention).await;
    }
    assert!(!t.queue.submit(keyed("f", 1, 1)).await.expect("accepted").duplicate, "the key was forgotten");
    assert!(t.queue.submit(keyed("f", 4, 1)).await.expect("accepted").duplicate, "the key of a job that is kept");
    assert_eq!(t.state(waiting).await, State::Queued, "what is not finished is never forgotten");
    unnamed_functions(&t).await;
}

/// A large job of `f`, with a key, brought to its end.
async fn finished(t: &Setup, key: u8, end: impl AsyncFnOnce()) -> JobId {
    let mut stage = t.queue.stage().await.expect("a stage");
    stage.write(Dice::new(29).bytes(2 * INLINE_BYTES_MAX)).await.expect("room");
    let input = stage.finish().await.expect("room");
    let id = t.submit(NewJob { input, ..keyed("f", key, 1) }).await;
    end().await;
    assert!(t.state(id).await.is_final());
    id
}

async fn newest(t: &Setup) -> JobId {
    let queued = Filter { states: vec![State::Queued], ..Filter::default() };
    t.list(&queued, 10).await[0].id
}

async fn check_forgotten(t: &Setup, id: JobId) {
    let is_unknown = |error: Error| matches!(error, Error::UnknownJob(unknown) if unknown == id);
    assert!(t.queue.get(id).await.is_err_and(is_unknown), "the record is forgotten");
    assert!(t.queue.input(id).await.is_err_and(is_unknown), "the input is forgotten");
    assert!(t.queue.result(id).await.is_err_and(is_unknown), "the result is forgotten");
    assert!(t.queue.read_log(id, 0, 10).await.is_err_and(is_unknown), "the log is forgotten");
    assert!(t.queue.cancel(id).await.is_err_and(is_unknown));
    assert!(t.queue.retry(id).await.is_err_and(is_unknown));
}

/// Functions that the retention does not name are kept for the default times.
async fn unnamed_functions(t: &Setup) {
    t.submit_many("gone", 2).await;
    t.succeed(t.lease_one("gone").await).await;
    t.fail(t.lease_one("gone").await).await;
    let count = async || t.list(&Filter { function: Some(name("gone")), ..Filter::default() }, 10).await.len();
    for (wait, left) in [
        (KEEP_SUCCEEDED_DEFAULT - millis(1), 2),
        (millis(1), 1),
        (KEEP_FAILED_DEFAULT - KEEP_SUCCEEDED_DEFAULT - millis(1), 1),
        (millis(1), 0),
    ] {
        t.clock.advance(wait);
        t.sweep(&keep(&["f"], secs(1), secs(1))).await;
        assert_eq!(count().await, left, "after {wait:?} more");
    }
}

pub(super) async fn a_sweep_is_bounded(subject: Arc<dyn Subject>) {
    let t = Setup::new(subject).await;
    let retention = keep(&["f"], secs(5), secs(3600));
    t.submit_many("f", 25).await;
    for leased in t.lease("f", 25).await {
        t.succeed(leased).await;
    }
    t.submit_many("f", 11).await;
    let lost = t.lease("f", 11).await;
    let expires_at = Some(t.clock.now().after(secs(1)));
    for _ in 0..17 {
        t.submit(NewJob { expires_at, ..job("f") }).await;
    }
    t.clock.advance(LEASE_TTL);
    drop(lost);

    let mut sums = (0, 0, 0);
    for sweep in 1.. {
        let swept = t.queue.sweep(&retention, 7).await.expect("an open queue sweeps");
        let handled = swept.expired + swept.rescued + swept.forgotten;
        assert!(handled <= 7, "a sweep of at most 7 handled {swept:?}");
        sums = (sums.0 + swept.expired, sums.1 + swept.rescued, sums.2 + swept.forgotten);
        if !swept.more {
            break;
        }
        assert!(handled > 0, "there is more, and nothing was done");
        assert!(sweep <= 30, "sweeping does not end");
    }
    assert_eq!(sums, (17, 11, 25), "no more to do means that all is done");
    let idle = t.queue.sweep(&retention, 7).await.expect("an open queue sweeps");
    assert_eq!(idle, crate::job::Swept::default());
    assert_eq!(t.count("f", State::Failed).await, 17);
    assert_eq!(t.count("f", State::Queued).await, 11);
    assert_eq!(t.count("f", State::Succeeded).await, 0);
}

pub(super) async fn finished_jobs_take_no_more_than_they_may(subject: Arc<dyn Subject>) {
    let t = Setup::new(subject).await;
    // A success, a dead letter with a log, a cancelled job and two successes more, one after the other.
    let mut finished = Vec::new();
    for at in 0..5_usize {
        t.clock.advance(secs(1));
        let id = t.submit(NewJob { input: zeros(1000 * (at + 1)), ..job("f") }).await;
        match at {
            1 => {
                let leased = t.lease_one("f").await;
                t.queue.append_log(leased.lease.token(), vec![b'x'; 3000].into()).await.expect("it stands");
                t.fail(leased).await;
            }
            2 => drop(t.queue.cancel(id).await.expect("it waits")),
            _ => t.succeed(t.lease_one("f").await).await,
        }
        finished.push(id);
    }
    let other = t.submit(NewJob { input: zeros(9000), ..job("other") }).await;
    t.succeed(t.lease_one("other").await).await;
    let waiting = t.submit(NewJob { input: zeros(9000), ..job("f") }).await;

    let all = t.finished_bytes("f").await;
    assert_eq!(t.stats_of("f").finished_bytes, all);
    let bounded = |bytes| vec![(name("f"), Keep { bytes, ..Keep::default() })];
    assert_eq!(t.sweep(&bounded(all)).await, (0, 0, 0), "what fits stays");
    assert_eq!(t.sweep(&bounded(all - 1)).await, (0, 0, 1), "no more than must");
    check_forgotten(&t, finished[0]).await;
    let t = t.reopen().await;
    let left = t.finished_bytes("f").await;
    assert_eq!(t.stats_of("f").finished_bytes, left);
    // The dead letter alone would do, but for one byte.
    let dead_letter = RECORD_BYTES + 2000 + 3000;
    assert_eq!(t.sweep(&bounded(left - dead_letter - 1)).await, (0, 0, 2), "the oldest first, of whatever outcome");
    assert_eq!(t.sweep(&bounded(0)).await, (0, 0, 2));
    for id in finished {
        check_forgotten(&t, id).await;
    }
    assert_eq!((t.stats_of("f").finished_bytes, t.state(waiting).await), (0, State::Queued));
    assert_eq!(t.state(other).await, State::Succeeded, "each function has its own bound");
    t.fail(t.lease_one("f").await).await;
    let taken = t.stats_of("f").finished_bytes;
    t.queue.retry(waiting).await.expect("a dead letter");
    assert_eq!((taken, t.stats_of("f").finished_bytes), (RECORD_BYTES + 9000, 0), "what waits again is not finished");
}

pub(super) async fn a_finished_job_is_forgotten_when_told_to(subject: Arc<dyn Subject>) {
    let t = Setup::new(subject).await;
    let files = t.files();
    let success = finished(&t, 1, async || t.succeed(t.lease_one("f").await).await).await;
    let dead_letter = finished(&t, 2, async || t.fail(t.lease_one("f").await).await).await;
    let cancelled = finished(&t, 3, async || drop(t.queue.cancel(newest(&t).await).await)).await;
    let kept = finished(&t, 4, async || t.succeed(t.lease_one("f").await).await).await;
    let running = t.submit(job("f")).await;
    let leased = t.lease_one("f").await;
    let scheduled = t.submit(NewJob { not_before: Some(t.clock.now().after(hours(1))), ..job("f") }).await;
    let queued = t.submit(job("f")).await;
    for id in [running, scheduled, queued] {
        let before = t.get(id).await;
        let answer = t.queue.forget(id).await;
        let is_refused =
            matches!(answer, Err(Error::WrongState { id: of, state }) if of == id && state == before.state);
        assert!(is_refused, "forgetting a job that is {} gave {answer:?}", before.state);
        assert_eq!(t.get(id).await, before);
    }
    for id in [success, dead_letter, cancelled] {
        t.queue.forget(id).await.expect("it is finished");
        check_forgotten(&t, id).await;
        assert!(matches!(t.queue.forget(id).await, Err(Error::UnknownJob(unknown)) if unknown == id));
    }
    until("the files of forgotten jobs are gone", async || t.files() <= files + 1).await;
    assert_eq!(t.stats_of("f").finished_bytes, t.finished_bytes("f").await);
    let t = t.reopen().await;
    for id in [success, dead_letter, cancelled] {
        check_forgotten(&t, id).await;
    }
    assert_eq!((t.state(kept).await, t.count("f", State::Succeeded).await), (State::Succeeded, 1));
    let twin = t.queue.submit(keyed("f", 1, 1)).await.expect("a twin");
    assert!(twin.duplicate && twin.id == success, "a key outlives its job");
    drop(leased);
}

fn zeros(bytes: usize) -> Payload {
    Payload::Inline(vec![0; bytes].into())
}
