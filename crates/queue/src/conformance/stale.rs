//! Rules 15, 18 and 19: what a lease does not survive.

use std::sync::Arc;

use bytes::Bytes;
use kvern_core::limits::{INTERRUPTIONS_MAX, LEASE_TTL};
use kvern_core::{FailureCode, JobId, Next, State, Tally};
use tokio::task::JoinSet;

use super::Subject;
use super::setup::{Setup, crashed, failed, finish, hours, job, millis, secs, success};
use crate::error::Error;
use crate::job::{Lease, LeaseState, LeaseToken, Leased, Settlement};
use crate::record::{INTERRUPTED, INTERRUPTION_COUNTS_AFTER};

pub(super) async fn a_stale_lease_is_refused(subject: Arc<dyn Subject>) {
    let t = Setup::new(subject).await;
    a_second_settlement(&t).await;
    only_one_of_many_settles(&t).await;
    after_another_attempt(&t).await;
    after_a_release(&t).await;
    after_expiry(&t).await;
    let t = after_a_restart(t).await;
    forged(&t).await;
}

/// Every use of a lease that is over.
async fn check_stale(t: &Setup, old: &Leased) {
    let token = old.lease.token();
    for settlement in [
        success(old, b"late"),
        finish(old, failed(), Next::Fail),
        finish(old, crashed(), Next::RetryNow),
        Settlement::Release,
    ] {
        t.refuse(Lease::new(token), settlement).await;
    }
    assert_eq!(t.renew(old).await, LeaseState::Over);
    let log = t.queue.append_log(token, Bytes::from_static(b"late")).await;
    assert!(matches!(log, Err(Error::StaleLease(_))), "a late log line gave {log:?}");
}

/// The same lease once more, for those who do not give theirs up.
fn copy(leased: &Leased) -> Lease {
    Lease::new(leased.lease.token())
}

async fn a_second_settlement(t: &Setup) {
    let id = t.submit(job("f")).await;
    let leased = t.lease_one("f").await;
    t.settle(copy(&leased), success(&leased, b"first")).await;
    let result = t.result(id).await;
    check_stale(t, &leased).await;
    assert_eq!(t.result(id).await, result, "the first outcome stands");
}

async fn only_one_of_many_settles(t: &Setup) {
    for _ in 0..20 {
        let id = t.submit(job("f")).await;
        let leased = t.lease_one("f").await;
        let mut tasks = JoinSet::new();
        for n in 0..10u8 {
            let (queue, lease, settlement) = (Arc::clone(&t.queue), copy(&leased), success(&leased, &[n]));
            tasks.spawn(async move { queue.settle(lease, settlement).await.map(|_| n) });
        }
        let settled: Vec<u8> = tasks.join_all().await.into_iter().filter_map(Result::ok).collect();
        assert_eq!(settled.len(), 1, "one attempt has one outcome");
        let result = t.result(id).await.expect("a success has a result");
        assert_eq!(super::setup::bytes_of(&result.payload), settled, "the outcome is that of the one that was told so");
    }
}

async fn after_another_attempt(t: &Setup) {
    t.submit(job("f")).await;
    let first = t.lease_one("f").await;
    t.settle(copy(&first), finish(&first, crashed(), Next::RetryNow)).await;
    check_stale(t, &first).await;
    let second = t.lease_one("f").await;
    check_stale(t, &first).await;
    assert_eq!(t.renew(&second).await, LeaseState::Held, "the new lease is untouched");
    t.fail(second).await;
    let id = first.job.id;
    t.queue.retry(id).await.expect("a dead letter");
    let third = t.lease_one("f").await;
    check_stale(t, &first).await;
    assert_eq!(third.lease.token().attempt, 3, "attempts go on counting in a new life");
    t.succeed(third).await;
}

async fn after_a_release(t: &Setup) {
    t.submit(job("f")).await;
    let first = t.lease_one("f").await;
    t.settle(copy(&first), Settlement::Release).await;
    check_stale(t, &first).await;
    let second = t.lease_one("f").await;
    check_stale(t, &first).await;
    assert_eq!(t.renew(&second).await, LeaseState::Held, "a release that comes twice ends one lease");
    t.succeed(second).await;
}

async fn after_expiry(t: &Setup) {
    t.submit(job("f")).await;
    let first = t.lease_one("f").await;
    t.clock.advance(LEASE_TTL);
    check_stale(t, &first).await;
    assert_eq!(t.sweep(&Vec::new()).await, (0, 1, 0));
    check_stale(t, &first).await;
    let second = t.lease_one("f").await;
    check_stale(t, &first).await;
    t.succeed(second).await;
}

async fn after_a_restart(t: Setup) -> Setup {
    t.submit(job("f")).await;
    let first = t.lease_one("f").await;
    let t = t.reopen().await;
    check_stale(&t, &first).await;
    let second = t.lease_one("f").await;
    assert_ne!(second.lease.token().epoch, first.lease.token().epoch, "each life has its epoch");
    check_stale(&t, &first).await;
    t.succeed(second).await;
    t
}

async fn forged(t: &Setup) {
    t.submit(job("f")).await;
    let leased = t.lease_one("f").await;
    let token = leased.lease.token();
    for forged in [
        LeaseToken { attempt: token.attempt + 1, ..token },
        LeaseToken { epoch: token.epoch + 1, ..token },
        LeaseToken { serial: token.serial + 1, ..token },
    ] {
        t.refuse(Lease::new(forged), success(&leased, b"forged")).await;
    }
    let nobody = JobId::new(token.job.sequence(), token.job.random() ^ 1);
    let answer = t.queue.settle(Lease::new(LeaseToken { job: nobody, ..token }), success(&leased, b"")).await;
    assert!(matches!(answer, Err(Error::StaleLease(id)) if id == nobody), "a job that is not there gave {answer:?}");
    t.succeed(leased).await;
}

pub(super) async fn an_unrenewed_lease_ends(subject: Arc<dyn Subject>) {
    let t = Setup::new(subject).await;
    let id = t.submit(job("f")).await;
    let leased = t.lease_one("f").await;
    for _ in 0..3 {
        t.clock.advance(LEASE_TTL - millis(1));
        assert_eq!(t.sweep(&Vec::new()).await, (0, 0, 0), "a lease stands for its time");
        assert_eq!(t.renew(&leased).await, LeaseState::Held);
    }
    // The wall clock has no say, whichever way it goes.
    let now = t.clock.now();
    t.clock.jump_to(now.after(hours(24)));
    assert_eq!(t.sweep(&Vec::new()).await, (0, 0, 0));
    assert_eq!(t.renew(&leased).await, LeaseState::Held);
    t.clock.jump_to(now);
    assert_eq!(t.renew(&leased).await, LeaseState::Held);
    t.lease_none("f").await;

    t.clock.advance(LEASE_TTL);
    assert_eq!(t.renew(&leased).await, LeaseState::Over);
    assert_eq!(t.sweep(&Vec::new()).await, (0, 1, 0));
    let record = t.get(id).await;
    assert_eq!((record.state, record.tally), (State::Queued, interrupted(1)));
    let attempt = record.attempts.last().expect("the record keeps the attempt");
    assert_eq!((attempt.number, attempt.outcome.as_str()), (1, INTERRUPTED));
    assert_eq!((Some(attempt.started_at), attempt.finished_at), (leased.job.started_at, t.clock.now()));

    for n in 2..=INTERRUPTIONS_MAX {
        assert_eq!(t.lease_one("f").await.lease.token().attempt, n);
        t.clock.advance(LEASE_TTL);
        assert_eq!(t.sweep(&Vec::new()).await, (0, 1, 0));
    }
    check_given_up(&t, id).await;
}

fn interrupted(times: u32) -> Tally {
    Tally { attempts: times, interruptions: times, ..Tally::default() }
}

async fn check_given_up(t: &Setup, id: JobId) {
    let record = t.get(id).await;
    assert_eq!((record.state, record.tally), (State::Failed, interrupted(INTERRUPTIONS_MAX)));
    assert_eq!(record.finished_at, Some(t.clock.now()));
    assert_eq!(record.error.map(|failure| failure.code), Some(FailureCode::Interrupted));
    assert_eq!(record.attempts.len() as u32, INTERRUPTIONS_MAX);
    t.lease_none("f").await;
}

pub(super) async fn a_restart_is_not_a_retry(subject: Arc<dyn Subject>) {
    let mut t = Setup::new(subject).await;
    let tried = t.submit(job("f")).await;
    for (outcome, next) in [(failed(), Next::RetryNow), (crashed(), Next::RetryNow)] {
        let leased = t.lease_one("f").await;
        let settlement = finish(&leased, outcome, next);
        t.settle(leased.lease, settlement).await;
    }
    let long = t.submit(job("f")).await;
    let before = t.get(tried).await;
    let leased = t.lease("f", 2).await;
    assert_eq!(leased[1].job.id, long);
    t.clock.advance(INTERRUPTION_COUNTS_AFTER + millis(1));
    assert_eq!(t.renew(&leased[1]).await, LeaseState::Held);

    t.clock.advance(secs(2));
    t = t.reopen().await;
    assert_eq!(t.get(tried).await, before, "no renewal found it old: as if it had not been leased");
    let record = t.get(long).await;
    assert_eq!((record.state, record.tally), (State::Queued, interrupted(1)));
    assert_eq!(record.started_at, leased[1].job.started_at);
    let attempt = record.attempts.last().expect("the record keeps the attempt");
    assert_eq!((attempt.number, attempt.outcome.as_str()), (1, INTERRUPTED));
    assert_eq!((Some(attempt.started_at), attempt.finished_at), (record.started_at, t.clock.now()));
    assert_eq!((t.count("f", State::Queued).await, t.count("f", State::Running).await), (2, 0));
    let again = t.lease("f", 9).await;
    assert_eq!(again.iter().map(|one| one.job.id).collect::<Vec<_>>(), [tried, long], "both run again at once");
    for leased in again {
        t.succeed(leased).await;
    }
    too_many_restarts(t).await;
}

async fn too_many_restarts(mut t: Setup) {
    let id = t.submit(job("f")).await;
    for n in 1..=INTERRUPTIONS_MAX {
        let leased = t.lease_one("f").await;
        assert_eq!(leased.lease.token().attempt, n);
        t.clock.advance(INTERRUPTION_COUNTS_AFTER + millis(1));
        t.renew(&leased).await;
        t = t.reopen().await;
    }
    check_given_up(&t, id).await;
    assert_eq!(t.count("f", State::Failed).await, 1);
}
