//! Rules 1 to 5: what a submit promises.

use std::sync::Arc;

use bytes::Bytes;
use kvern_core::limits::{IDEMPOTENCY_KEEP, INLINE_BYTES_MAX};
use kvern_core::{JobId, Next, Outcome, State, UnixMs};
use tokio::task::JoinSet;

use super::Subject;
use super::setup::{Dice, Setup, attempt, bytes_of, hours, job, keep, keyed, millis, name, secs, until};
use crate::error::Error;
use crate::job::{NewJob, Settlement, Submitted};
use crate::payload::Payload;

pub(super) async fn a_submitted_job_is_there(subject: Arc<dyn Subject>) {
    let t = Setup::new(subject).await;
    let now = t.clock.now();
    let full = NewJob {
        input: Payload::Inline(Bytes::from_static(b"\x00\xff bytes")),
        content_type: Some("image/png; q=1".to_owned()),
        not_before: Some(now.after(secs(5))),
        expires_at: Some(now.after(hours(1))),
        priority: 9,
        tags: vec![("team".to_owned(), "säge".to_owned()), ("empty".to_owned(), String::new())],
        ..job("f")
    };
    let mut records = vec![check_record(&t, full, State::Scheduled).await];
    records.push(check_record(&t, NewJob { content_type: None, priority: 0, ..job("g") }, State::Queued).await);

    let mut tasks = JoinSet::new();
    for _ in 0..60 {
        let queue = Arc::clone(&t.queue);
        tasks.spawn(async move { queue.submit(job("f")).await.expect("accepted").id });
    }
    for id in tasks.join_all().await {
        records.push(t.get(id).await);
    }

    let t = t.reopen().await;
    for record in &records {
        assert_eq!(t.get(record.id).await, *record, "the record after a kill");
        assert_eq!(t.input(record.id).await.len() as u64, record.input_bytes);
    }
    assert_eq!(t.lease("f", 100).await.len(), 60, "jobs wait for a worker after a kill");
    let never = JobId::new(records[0].id.sequence(), records[0].id.random() ^ 1);
    assert!(matches!(t.queue.get(never).await, Err(Error::UnknownJob(id)) if id == never), "an id with another tail");
}

async fn check_record(t: &Setup, new: NewJob, state: State) -> kvern_core::Job {
    let bytes = bytes_of(&new.input);
    let submitted = t.queue.submit(new.clone()).await.expect("accepted");
    assert_eq!((submitted.state, submitted.duplicate), (state, false));
    let record = t.get(submitted.id).await;
    let expected = crate::record::accept(submitted.id, &new, t.clock.now());
    assert_eq!(record, expected);
    assert_eq!(record.created_at, t.clock.now());
    assert_eq!(t.input(submitted.id).await, bytes);
    record
}

pub(super) async fn a_key_makes_one_job(subject: Arc<dyn Subject>) {
    let t = Setup::new(subject).await;
    let first = twins_in_parallel(&t, 40, 8).await;
    assert_eq!(t.count("f", State::Queued).await, 8, "one job per key");

    let other_body = t.queue.submit(keyed("f", 0, 99)).await;
    assert!(matches!(other_body, Err(Error::KeyReused(id)) if id == first[0]), "another body gave {other_body:?}");

    let full = t.queue.submit(NewJob { max_queued: 0, ..keyed("f", 0, 1) }).await;
    assert!(full.is_ok_and(|s| s.duplicate && s.id == first[0]), "a twin takes no room, so a full queue gives it its id");

    t.queue.cancel(first[1]).await.expect("a waiting job is cancelled");
    let leased = t.lease_one("f").await;
    assert_eq!(leased.job.id, first[0]);
    check_twin(&t, 0, first[0], State::Running).await;
    t.succeed(leased).await;

    let t = t.reopen().await;
    check_twin(&t, 0, first[0], State::Succeeded).await;
    check_twin(&t, 1, first[1], State::Cancelled).await;
    check_twin(&t, 2, first[2], State::Queued).await;

    // The key outlives a job that is forgotten early, and lives as long as one that stays.
    let retention = keep(&["f"], secs(1), secs(1));
    t.clock.advance(secs(2));
    assert_eq!(t.sweep(&retention).await.2, 2, "both finished jobs are forgotten");
    t.clock.advance(IDEMPOTENCY_KEEP - secs(2) - millis(1));
    t.sweep(&retention).await;
    check_twin(&t, 0, first[0], State::Succeeded).await;
    check_twin(&t, 1, first[1], State::Cancelled).await;
    t.clock.advance(5 * IDEMPOTENCY_KEEP);
    t.sweep(&retention).await;
    check_twin(&t, 2, first[2], State::Queued).await;
}

/// Submits each of `keys` keys from `twins` tasks at the same time, and gives the job of each key.
async fn twins_in_parallel(t: &Setup, twins: usize, keys: u8) -> Vec<JobId> {
    let mut tasks = JoinSet::new();
    for _ in 0..twins {
        for key in 0..keys {
            let queue = Arc::clone(&t.queue);
            tasks.spawn(async move { (key, queue.submit(keyed("f", key, 1)).await.expect("accepted")) });
        }
    }
    let answers = tasks.join_all().await;
    let mut ids = Vec::new();
    for key in 0..keys {
        let of_key: Vec<Submitted> = answers.iter().filter(|(k, _)| *k == key).map(|(_, s)| *s).collect();
        let made: Vec<&Submitted> = of_key.iter().filter(|s| !s.duplicate).collect();
        assert_eq!(made.len(), 1, "one submit makes the job, the others are duplicates");
        assert!(of_key.iter().all(|s| s.id == made[0].id), "twins have one id: {of_key:?}");
        ids.push(made[0].id);
    }
    // By key and not by age from here on: work goes in order of age.
    ids.sort_unstable();
    let mut by_age = Vec::new();
    for id in ids {
        let key = answers.iter().find(|(_, s)| s.id == id).map(|(key, _)| *key).expect("each id has a key");
        by_age.push((key, id));
    }
    rename(t, &by_age).await
}

/// Checks that each key still stands for its job; the rest of the rule needs keys whose order is that of their jobs.
async fn rename(t: &Setup, by_age: &[(u8, JobId)]) -> Vec<JobId> {
    for (key, id) in by_age {
        check_twin(t, *key, *id, State::Queued).await;
    }
    by_age.iter().map(|(_, id)| *id).collect()
}

async fn check_twin(t: &Setup, key: u8, id: JobId, state: State) {
    let twin = t.queue.submit(keyed("f", key, 1)).await.expect("a twin is accepted");
    assert_eq!(twin, Submitted { id, state, duplicate: true }, "the twin of key {key}");
}
