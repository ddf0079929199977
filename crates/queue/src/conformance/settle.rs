//! Rules 14, 16 and 17: how an attempt ends.

use std::sync::Arc;

use bytes::Bytes;
use kvern_core::{Failure, FailureCode, JobId, Next, Outcome, State, Tally};

use super::Subject;
use super::setup::{Setup, attempt, bytes_of, crashed, failed, finish, job, millis, secs, soon, success};
use crate::events::Watch;
use crate::job::{Leased, NewJob, Settlement};
use crate::payload::Payload;

pub(super) async fn an_outcome_is_stored_whole(subject: Arc<dyn Subject>) {
    let t = Setup::new(subject).await;
    let success = whole_success(&t).await;
    let dead_letter = whole_failure(&t, failed(), Next::Fail, State::Failed).await;
    let timed_out = whole_failure(&t, Outcome::timed_out(secs(9)), Next::Fail, State::Failed).await;
    let crash = whole_failure(&t, crashed(), Next::Fail, State::Failed).await;
    let cancelled = whole_failure(&t, Outcome::Cancelled, Next::Cancel, State::Cancelled).await;
    assert_eq!(t.get(timed_out).await.tally, Tally { attempts: 1, failures: 1, ..Tally::default() });
    assert_eq!(t.get(crash).await.tally, Tally { attempts: 1, strikes: 1, ..Tally::default() });
    assert_eq!(t.get(cancelled).await.tally, Tally { attempts: 1, ..Tally::default() });

    let mut before = Vec::new();
    for id in [success, dead_letter, timed_out, crash, cancelled] {
        before.push((t.get(id).await, t.result(id).await, t.log(id).await));
    }
    let t = t.reopen().await;
    for (record, result, log) in before {
        assert_eq!(t.get(record.id).await, record, "the record after a kill");
        assert_eq!(t.result(record.id).await, result, "the result after a kill");
        assert_eq!(t.log(record.id).await, log, "the log after a kill");
    }
    nobody_sees_a_part(&t).await;
}

async fn whole_success(t: &Setup) -> JobId {
    let id = t.submit(job("f")).await;
    let started_at = t.clock.now();
    let leased = t.lease_one("f").await;
    assert_eq!(leased.job, t.get(id).await, "the lease carries the record as it stands");
    assert_eq!((leased.job.state, leased.job.started_at), (State::Running, Some(started_at)));
    assert!(t.result(id).await.is_none(), "a running job has no result");
    t.clock.advance(millis(700));
    let expected = attempt(&leased, &Outcome::Succeeded);
    t.settle(leased.lease, with_log(expected.clone())).await;

    let record = t.get(id).await;
    assert_eq!(record.state, State::Succeeded);
    assert_eq!((record.started_at, record.finished_at), (Some(started_at), Some(t.clock.now())));
    assert_eq!(record.tally, Tally { attempts: 1, ..Tally::default() });
    assert_eq!((record.error, record.attempts), (None, vec![expected]));
    assert_eq!(record.result.map(|info| (info.content_type, info.bytes)), Some(("text/x".to_owned(), 6)));
    let result = t.result(id).await.expect("a success has a result");
    assert_eq!((result.content_type.as_deref(), bytes_of(&result.payload)), (Some("text/x"), b"result".to_vec()));
    assert_eq!(t.log(id).await, b"the log\n");
    id
}

fn with_log(attempt: kvern_core::Attempt) -> Settlement {
    Settlement::Finish {
        outcome: Outcome::Succeeded,
        next: Next::Succeed,
        result: Some(("text/x".to_owned(), Payload::Inline(Bytes::from_static(b"result")))),
        attempt,
        log: Bytes::from_static(b"the log\n"),
    }
}

async fn whole_failure(t: &Setup, outcome: Outcome, next: Next, state: State) -> JobId {
    let id = t.submit(job("f")).await;
    let leased = t.lease_one("f").await;
    let expected = attempt(&leased, &outcome);
    let settlement = finish(&leased, outcome.clone(), next);
    assert_eq!(t.settle(leased.lease, settlement).await, state);
    let record = t.get(id).await;
    assert_eq!((record.state, record.finished_at, record.due_at), (state, Some(t.clock.now()), None));
    assert_eq!((record.error.as_ref(), record.attempts), (outcome.failure(), vec![expected]));
    assert!(record.result.is_none() && t.result(id).await.is_none(), "only a success has a result");
    t.lease_none("f").await;
    id
}

/// Whoever hears of the end, or happens to look, sees all of it.
async fn nobody_sees_a_part(t: &Setup) {
    for _ in 0..50 {
        let id = t.submit(job("f")).await;
        let leased = t.lease_one("f").await;
        let mut watcher = t.queue.watch(Watch::Job(id));
        let attempt = attempt(&leased, &Outcome::Succeeded);
        let queue = Arc::clone(&t.queue);
        let settling = tokio::spawn(async move { queue.settle(leased.lease, with_log(attempt)).await });
        let looks = async {
            while t.state(id).await == State::Running {
                tokio::task::yield_now().await;
            }
        };
        soon("the end of the job", looks).await;
        check_whole(t, id).await;
        soon("an event", watcher.next()).await.expect("the queue lives");
        check_whole(t, id).await;
        assert_eq!(settling.await.expect("no panic").expect("the lease stands"), State::Succeeded);
    }
}

async fn check_whole(t: &Setup, id: JobId) {
    let record = t.get(id).await;
    assert_eq!((record.state, record.attempts.len(), record.tally.attempts), (State::Succeeded, 1, 1));
    assert!(record.result.is_some() && record.finished_at.is_some());
    assert!(t.result(id).await.is_some(), "a success is seen with its result");
    assert_eq!(t.log(id).await, b"the log\n", "a success is seen with its log");
}

pub(super) async fn retries_wait(subject: Arc<dyn Subject>) {
    let t = Setup::new(subject).await;
    let id = t.submit(job("f")).await;
    t.clock.advance(millis(1));
    let younger = t.submit(job("f")).await;

    let due_at = t.clock.now().after(secs(5));
    let leased = t.lease_one("f").await;
    let settlement = finish(&leased, failed(), Next::RetryAt(due_at));
    assert_eq!(t.settle(leased.lease, settlement).await, State::Scheduled);
    let record = t.get(id).await;
    assert_eq!((record.state, record.due_at, record.finished_at), (State::Scheduled, Some(due_at), None));
    assert_eq!(record.tally, Tally { attempts: 1, failures: 1, ..Tally::default() });
    check_error(&record, FailureCode::Exception);

    let t = t.reopen().await;
    assert_eq!(t.get(id).await, record, "a wait outlives a restart");
    let [other] = t.lease("f", 9).await.try_into().expect("only the younger job is ready");
    assert_eq!(other.job.id, younger);
    t.clock.advance(secs(5) - millis(1));
    assert_eq!(t.renew(&other).await, crate::job::LeaseState::Held);
    t.lease_none("f").await;
    t.settle(other.lease, Settlement::Release).await;
    t.clock.advance(millis(1));

    let leased = t.lease_one("f").await;
    assert_eq!((leased.job.id, leased.lease.token().attempt), (id, 2), "older first, though it comes from a wait");
    assert_eq!(leased.job.ready_at, due_at, "and it was not ready all that time");
    check_error(&leased.job, FailureCode::Exception);
    retries_at_once(&t, leased).await;
}

/// The second attempt crashes and the third succeeds.
async fn retries_at_once(t: &Setup, leased: Leased) {
    let id = leased.job.id;
    let settlement = finish(&leased, crashed(), Next::RetryNow);
    assert_eq!(t.settle(leased.lease, settlement).await, State::Queued);
    let record = t.get(id).await;
    assert_eq!((record.state, record.due_at, record.ready_at), (State::Queued, None, t.clock.now()));
    assert_eq!(record.tally, Tally { attempts: 2, failures: 1, strikes: 1, interruptions: 0 });
    check_error(&record, FailureCode::Crash);

    let leased = t.lease_one("f").await;
    assert_eq!((leased.job.id, leased.lease.token().attempt), (id, 3));
    t.succeed(leased).await;
    let record = t.get(id).await;
    assert_eq!((record.state, record.error), (State::Succeeded, None));
    assert_eq!(
        record.attempts.iter().map(|a| a.outcome.as_str()).collect::<Vec<_>>(),
        ["failed", "crashed", "succeeded"]
    );
    assert_eq!(record.attempts.iter().map(|a| a.number).collect::<Vec<_>>(), [1, 2, 3]);
}

fn check_error(record: &kvern_core::Job, code: FailureCode) {
    let failure: &Failure = record.error.as_ref().expect("the error stays visible");
    assert_eq!(failure.code, code);
}

pub(super) async fn a_release_is_not_an_attempt(subject: Arc<dyn Subject>) {
    let t = Setup::new(subject).await;
    let first = t.submit(NewJob { priority: 7, ..job("f") }).await;
    let leased = t.lease_one("f").await;
    let settlement = finish(&leased, failed(), Next::RetryNow);
    t.settle(leased.lease, settlement).await;
    t.submit(NewJob { priority: 7, ..job("f") }).await;
    t.submit(NewJob { priority: 6, ..job("f") }).await;

    let before = t.get(first).await;
    t.clock.advance(secs(3));
    let mut tokens = Vec::new();
    for _ in 0..3 {
        let leased = t.lease_one("f").await;
        assert_eq!(leased.job.id, first, "a released job is in its old place");
        assert_eq!(leased.lease.token().attempt, 2);
        tokens.push(leased.lease.token());
        t.clock.advance(secs(1));
        assert_eq!(t.settle(leased.lease, Settlement::Release).await, State::Queued);
        assert_eq!(t.get(first).await, before, "a release leaves the record as it was");
    }
    assert!(tokens[0] != tokens[1] && tokens[1] != tokens[2] && tokens[0] != tokens[2], "one token per lease");
    let t = t.reopen().await;
    assert_eq!(t.get(first).await, before);
    let leased = t.lease_one("f").await;
    let settlement = success(&leased, b"");
    t.settle(leased.lease, settlement).await;
    assert_eq!(t.get(first).await.tally, Tally { attempts: 2, failures: 1, ..Tally::default() });
}
