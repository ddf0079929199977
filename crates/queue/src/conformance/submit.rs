//! Rules 1 to 5: what a submit promises.

use std::sync::Arc;

use bytes::Bytes;
use kvern_core::limits::{IDEMPOTENCY_KEEP, INLINE_BYTES_MAX, LEASE_TTL};
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
    twins_in_parallel(&t, 40, 8).await;

    let mut first = Vec::new();
    for key in 0..3 {
        first.push(t.submit(keyed("f", key, 1)).await);
    }
    check_twin(&t, 0, first[0], State::Queued).await;
    let other_body = t.queue.submit(keyed("f", 0, 99)).await;
    assert!(matches!(other_body, Err(Error::KeyReused(id)) if id == first[0]), "another body gave {other_body:?}");

    let full = t.queue.submit(NewJob { max_queued: 0, ..keyed("f", 0, 1) }).await;
    assert!(
        full.is_ok_and(|s| s.duplicate && s.id == first[0]),
        "a twin takes no room, so a full queue gives it its id"
    );

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

/// Submits each of `keys` keys from `twins` tasks at the same time.
async fn twins_in_parallel(t: &Setup, twins: usize, keys: u8) {
    let mut tasks = JoinSet::new();
    for _ in 0..twins {
        for key in 0..keys {
            let queue = Arc::clone(&t.queue);
            tasks.spawn(async move { (key, queue.submit(keyed("twins", 100 + key, 1)).await.expect("accepted")) });
        }
    }
    let answers = tasks.join_all().await;
    for key in 0..keys {
        let of_key: Vec<Submitted> = answers.iter().filter(|(k, _)| *k == key).map(|(_, s)| *s).collect();
        let made: Vec<&Submitted> = of_key.iter().filter(|s| !s.duplicate).collect();
        assert_eq!(made.len(), 1, "one submit makes the job, the others are duplicates");
        assert!(of_key.iter().all(|s| s.id == made[0].id), "twins have one id: {of_key:?}");
    }
    assert_eq!(t.count("twins", State::Queued).await, u64::from(keys), "one job per key");
}

async fn check_twin(t: &Setup, key: u8, id: JobId, state: State) {
    let twin = t.queue.submit(keyed("f", key, 1)).await.expect("a twin is accepted");
    assert_eq!(twin, Submitted { id, state, duplicate: true }, "the twin of key {key}");
}

pub(super) async fn the_bound_holds(subject: Arc<dyn Subject>) {
    let t = Setup::new(subject).await;
    let bounded = || NewJob { max_queued: 5, ..job("f") };
    let mut tasks = JoinSet::new();
    for _ in 0..24 {
        let queue = Arc::clone(&t.queue);
        tasks.spawn(async move { queue.submit(bounded()).await });
    }
    let (accepted, refused): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(accepted.len(), 5, "submits in parallel keep the bound");
    for refusal in refused {
        let is_full = matches!(&refusal, Err(Error::Full { function, limit: 5 }) if function.as_str() == "f");
        assert!(is_full, "one more gave {refusal:?}");
    }
    assert_eq!(t.list(&crate::job::Filter::default(), 100).await.len(), 5, "a refused job is not stored");
    check_full(&t, NewJob { idempotency: keyed("f", 1, 1).idempotency, ..bounded() }).await;
    t.submit(NewJob { max_queued: 1, ..job("other") }).await;

    // A running job does not wait, a scheduled one does.
    let leased = t.lease("f", 2).await;
    let later = NewJob { not_before: Some(t.clock.now().after(secs(60))), ..bounded() };
    let scheduled = t.submit(later.clone()).await;
    t.submit(NewJob { idempotency: keyed("f", 1, 1).idempotency, ..bounded() }).await;
    check_full(&t, bounded()).await;
    check_full(&t, later).await;

    t.queue.cancel(scheduled).await.expect("a waiting job is cancelled");
    t.submit(bounded()).await;
    check_full(&t, bounded()).await;
    for leased in leased {
        t.succeed(leased).await;
    }
    check_full(&t, bounded()).await;

    let t = t.reopen().await;
    check_full(&t, bounded()).await;
    t.lease_one("f").await;
    t.submit(bounded()).await;
}

async fn check_full(t: &Setup, new: NewJob) {
    let answer = t.queue.submit(new).await;
    assert!(matches!(answer, Err(Error::Full { .. })), "a full queue gave {answer:?}");
}

pub(super) async fn ids_grow(subject: Arc<dyn Subject>) {
    let mut t = Setup::new(subject).await;
    let now = t.clock.now();
    let mut ids = t.submit_many("f", 20).await;
    t.clock.jump_to(UnixMs(now.0 - 3_600_000));
    ids.extend(t.submit_many("f", 20).await);
    t = t.reopen().await;
    ids.extend(t.submit_many("f", 20).await);

    // Also when no job is left to tell which id was the greatest.
    t.clock.jump_to(now.after(hours(1)));
    ids.extend(t.submit_many("f", 2).await);
    for leased in t.lease("f", 100).await {
        t.succeed(leased).await;
    }
    t.clock.advance(secs(1));
    assert_eq!(t.sweep(&keep(&["f"], secs(1), secs(1))).await.2, 62);
    t.clock.jump_to(now);
    t = t.reopen().await;
    ids.extend(t.submit_many("f", 2).await);

    assert!(ids.is_sorted_by(|a, b| a.sequence() < b.sequence()), "ids in the order of acceptance: {ids:?}");
    t.clock.jump_to(now.after(hours(2)));
}

pub(super) async fn payloads_come_back_byte_for_byte(subject: Arc<dyn Subject>) {
    let mut dice = Dice::new(5);
    let t = Setup::new(subject).await;
    let mut sizes = vec![0, 1, INLINE_BYTES_MAX - 1, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, 3 * INLINE_BYTES_MAX];
    sizes.extend((0..12).map(|_| INLINE_BYTES_MAX - 300 + dice.below(600)));
    sizes.push(1_000_003);
    let mut jobs = Vec::new();
    for size in sizes {
        let (input, result) = (dice.bytes(size), dice.bytes(size));
        let id = put_through(&t, &mut dice, &input, &result).await;
        check_payloads(&t, id, &input, &result).await;
        jobs.push((id, input, result));
    }
    let files = t.files();
    let large = dice.bytes(INLINE_BYTES_MAX + 1);
    for size in [10, INLINE_BYTES_MAX + 1, 500_000] {
        let mut stage = t.queue.stage().await.expect("a stage");
        stage.write(dice.bytes(size)).await.expect("room");
        drop(stage);
    }
    until("a dropped stage leaves no file behind", async || t.files() == files).await;
    drop(payload(&t, &mut dice, &large).await);
    nobody_takes(&t, payload(&t, &mut dice, &large).await, payload(&t, &mut dice, &large).await).await;
    until("a payload that no job takes leaves no file behind", async || t.files() == files).await;
    let t = t.reopen().await;
    for (id, input, result) in &jobs {
        check_payloads(&t, *id, input, result).await;
    }
    assert_eq!(t.files(), files, "files after a restart");
}

/// A submit that is given up before it began, and a result that comes too late.
async fn nobody_takes(t: &Setup, input: Payload, result: Payload) {
    drop(t.queue.submit(NewJob { input, ..job("f") }));
    t.submit(job("f")).await;
    let leased = t.lease_one("f").await;
    let settlement = Settlement::Finish {
        outcome: Outcome::Succeeded,
        next: Next::Succeed,
        result: Some(("text/plain".to_owned(), result)),
        attempt: attempt(&leased, &Outcome::Succeeded),
        log: Bytes::new(),
    };
    t.clock.advance(LEASE_TTL);
    let late = t.queue.settle(leased.lease, settlement).await;
    assert!(matches!(late, Err(Error::StaleLease(_))), "a late result gave {late:?}");
}

/// A job with this input, run to this result.
async fn put_through(t: &Setup, dice: &mut Dice, input: &Bytes, result: &Bytes) -> JobId {
    let id = t.submit(NewJob { input: payload(t, dice, input).await, ..job("f") }).await;
    let leased = t.lease_one("f").await;
    assert!(bytes_of(&leased.input) == **input, "the input of a lease, {} bytes", input.len());
    let settlement = Settlement::Finish {
        outcome: Outcome::Succeeded,
        next: Next::Succeed,
        result: Some(("application/x-random".to_owned(), payload(t, dice, result).await)),
        attempt: attempt(&leased, &Outcome::Succeeded),
        log: Bytes::new(),
    };
    t.settle(leased.lease, settlement).await;
    id
}

/// The bytes as a payload: staged in pieces, or sometimes inline if they are small.
async fn payload(t: &Setup, dice: &mut Dice, bytes: &Bytes) -> Payload {
    if bytes.len() <= INLINE_BYTES_MAX && dice.below(3) == 0 {
        return Payload::Inline(bytes.clone());
    }
    let mut stage = t.queue.stage().await.expect("a stage");
    let mut rest = bytes.clone();
    while !rest.is_empty() {
        let piece = rest.split_to((1 + dice.below(40_000)).min(rest.len()));
        stage.write(piece).await.expect("room");
        assert_eq!(stage.bytes() as usize, bytes.len() - rest.len(), "bytes so far");
    }
    stage.finish().await.expect("room")
}

async fn check_payloads(t: &Setup, id: JobId, input: &Bytes, result: &Bytes) {
    let size = input.len();
    let record = t.get(id).await;
    assert_eq!(record.input_bytes, size as u64);
    assert_eq!(record.function, name("f"));
    assert_eq!(
        record.result.map(|info| (info.content_type, info.bytes)),
        Some(("application/x-random".to_owned(), size as u64))
    );
    let stored = t.queue.input(id).await.expect("the input is there");
    assert_eq!(stored.content_type.as_deref(), Some("text/plain"));
    // Not assert_eq: nobody wants to read a megabyte of bytes.
    assert!(bytes_of(&stored.payload) == **input, "the input of {size} bytes came back changed");
    let stored = t.result(id).await.expect("a success has a result");
    assert_eq!(stored.content_type.as_deref(), Some("application/x-random"));
    assert!(bytes_of(&stored.payload) == **result, "the result of {size} bytes came back changed");
}
