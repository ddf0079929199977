//! Rules 20 to 22: cancel and retry.

use std::sync::Arc;

use kvern_core::limits::LEASE_TTL;
use kvern_core::{FailureCode, Job, JobId, Next, Outcome, State, Tally};

use super::Subject;
use super::setup::{Setup, crashed, failed, finish, hours, job, millis, secs, success};
use crate::error::Error;
use crate::job::{LeaseState, Leased, NewJob, Settlement};

pub(super) async fn a_waiting_job_is_cancelled_at_once(subject: Arc<dyn Subject>) {
    let t = Setup::new(subject).await;
    let queued = t.submit(job("f")).await;
    let scheduled = t.submit(NewJob { not_before: Some(t.clock.now().after(secs(9))), ..job("f") }).await;
    t.clock.advance(millis(5));
    for id in [queued, scheduled] {
        let record = t.queue.cancel(id).await.expect("a waiting job is cancelled");
        assert_eq!(record, t.get(id).await, "the answer is the record");
        assert_eq!((record.state, record.finished_at, record.due_at), (State::Cancelled, Some(t.clock.now()), None));
        assert!(!record.cancel_requested && record.error.is_none());
    }
    t.clock.advance(secs(10));
    t.lease_none("f").await;

    let at = t.clock.now().after(secs(5));
    running(&t, async |one| t.settle_as(one, |one| success(one, b"done")).await, State::Succeeded).await;
    running(&t, async |one| t.settle_as(one, |one| finish(one, failed(), Next::RetryAt(at))).await, State::Cancelled)
        .await;
    running(&t, async |one| t.settle_as(one, |one| finish(one, crashed(), Next::RetryNow)).await, State::Cancelled)
        .await;
    running(&t, async |one| t.settle_as(one, |one| finish(one, failed(), Next::Fail)).await, State::Cancelled).await;
    let cancelled = |one: &Leased| finish(one, Outcome::Cancelled, Next::Cancel);
    running(&t, async |one| t.settle_as(one, cancelled).await, State::Cancelled).await;
    running(&t, async |one| t.settle_as(one, |_| Settlement::Release).await, State::Cancelled).await;
    let lost = async |_| {
        t.clock.advance(LEASE_TTL);
        t.sweep(&Vec::new()).await;
    };
    running(&t, lost, State::Cancelled).await;
    over_a_restart(t).await;
}

impl Setup {
    async fn settle_as(&self, leased: Leased, settlement: impl Fn(&Leased) -> Settlement) {
        let settlement = settlement(&leased);
        self.settle(leased.lease, settlement).await;
    }
}

/// A running job is marked, its worker hears of it, and it ends as expected.
async fn running(t: &Setup, end: impl AsyncFnOnce(Leased), expected: State) {
    let leased = marked(t).await;
    let id = leased.job.id;
    end(leased).await;
    let record = t.get(id).await;
    assert_eq!((record.state, record.finished_at), (expected, Some(t.clock.now())));
    assert!(!record.cancel_requested, "the mark is on the attempt, which is over");
    assert_eq!(t.result(id).await.is_some(), expected == State::Succeeded);
    t.lease_none("f").await;
}

async fn marked(t: &Setup) -> Leased {
    let id = t.submit(job("f")).await;
    let leased = t.lease_one("f").await;
    assert_eq!(t.renew(&leased).await, LeaseState::Held);
    for _ in 0..2 {
        let record = t.queue.cancel(id).await.expect("a running job can be cancelled, and again");
        assert_eq!((record.state, record.cancel_requested, record.finished_at), (State::Running, true, None));
        assert_eq!(record, t.get(id).await);
    }
    assert_eq!(t.renew(&leased).await, LeaseState::CancelRequested);
    assert_eq!(t.renew(&leased).await, LeaseState::CancelRequested, "and again, should the worker miss it");
    leased
}

async fn over_a_restart(t: Setup) {
    let id = marked(&t).await.job.id;
    let t = t.reopen().await;
    let record = t.get(id).await;
    assert_eq!((record.state, record.finished_at), (State::Cancelled, Some(t.clock.now())), "what was asked is kept");
    t.lease_none("f").await;
    let nobody = JobId::new(id.sequence(), id.random() ^ 1);
    assert!(matches!(t.queue.cancel(nobody).await, Err(Error::UnknownJob(unknown)) if unknown == nobody));
}

pub(super) async fn a_finished_job_is_not_cancelled(subject: Arc<dyn Subject>) {
    let t = Setup::new(subject).await;
    for id in finished_jobs(&t).await {
        let before = t.get(id).await;
        let answer = t.queue.cancel(id).await;
        let is_refused =
            matches!(answer, Err(Error::WrongState { id: of, state }) if of == id && state == before.state);
        assert!(is_refused, "cancelling a job that is {} gave {answer:?}", before.state);
        assert_eq!(t.get(id).await, before);
    }
}

/// One job in each final state: succeeded, failed, cancelled.
async fn finished_jobs(t: &Setup) -> [JobId; 3] {
    let succeeded = t.submit(job("f")).await;
    t.succeed(t.lease_one("f").await).await;
    let failed = t.submit(job("f")).await;
    t.fail(t.lease_one("f").await).await;
    let cancelled = t.submit(job("f")).await;
    t.queue.cancel(cancelled).await.expect("a waiting job is cancelled");
    [succeeded, failed, cancelled]
}

pub(super) async fn a_retry_gives_a_dead_letter_a_new_life(subject: Arc<dyn Subject>) {
    let t = Setup::new(subject).await;
    let [succeeded, failed, cancelled] = finished_jobs(&t).await;
    let queued = t.submit(job("g")).await;
    let running = t.lease_one("g").await.job.id;
    assert_eq!(queued, running);
    let waiting = t.submit(job("g")).await;
    let scheduled = t.submit(NewJob { not_before: Some(t.clock.now().after(hours(1))), ..job("g") }).await;
    for id in [succeeded, running, waiting, scheduled] {
        let before = t.get(id).await;
        let answer = t.queue.retry(id).await;
        let is_refused =
            matches!(answer, Err(Error::WrongState { id: of, state }) if of == id && state == before.state);
        assert!(is_refused, "retrying a job that is {} gave {answer:?}", before.state);
        assert_eq!(t.get(id).await, before);
    }
    let nobody = JobId::new(failed.sequence(), failed.random() ^ 1);
    assert!(matches!(t.queue.retry(nobody).await, Err(Error::UnknownJob(_))));

    let record = t.queue.retry(cancelled).await.expect("a cancelled job can be retried");
    assert_eq!((record.state, record.finished_at), (State::Queued, None));
    t.queue.cancel(cancelled).await.expect("and cancelled once more");
    new_life(&t).await;

    let before = t.queue.retry(failed).await.expect("a dead letter");
    let t = t.reopen().await;
    assert_eq!(t.get(failed).await, before, "a retry is durable");
    t.succeed(t.lease_one("f").await).await;
    assert_eq!(t.get(failed).await.attempts.len(), 2);
}

/// A dead letter with every kind of count behind it.
async fn new_life(t: &Setup) {
    let id = t.submit(NewJob { expires_at: Some(t.clock.now().after(hours(1))), ..job("f") }).await;
    for (outcome, next) in [(crashed(), Next::RetryNow), (failed(), Next::RetryNow)] {
        let leased = t.lease_one("f").await;
        let settlement = finish(&leased, outcome, next);
        t.settle(leased.lease, settlement).await;
    }
    t.lease_one("f").await;
    t.clock.advance(LEASE_TTL);
    t.sweep(&Vec::new()).await;
    t.fail(t.lease_one("f").await).await;
    let dead = t.get(id).await;
    assert_eq!(dead.tally, Tally { attempts: 4, failures: 2, strikes: 1, interruptions: 1 });

    let record = t.queue.retry(id).await.expect("a dead letter");
    let reset = Tally { attempts: 4, ..Tally::default() };
    let expected = Job {
        state: State::Queued,
        tally: reset,
        finished_at: None,
        expires_at: None,
        ready_at: t.clock.now(),
        ..dead
    };
    assert_eq!(record, expected, "counts at zero, attempts and last error kept, no expiry");
    assert_eq!(record.error.as_ref().map(|failure| failure.code), Some(FailureCode::Exception));
    assert_eq!(t.get(id).await, expected);
    t.clock.advance(hours(2));
    t.sweep(&Vec::new()).await;
    let leased = t.lease_one("f").await;
    assert_eq!((leased.job.id, leased.lease.token().attempt), (id, 5));
    t.succeed(leased).await;
    let numbers: Vec<u32> = t.get(id).await.attempts.iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
}
