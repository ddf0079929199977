//! Keys on their way through the store: young, being sorted, in a run, and carried over from an old one. Wherever a key
//! is, it stands for the job that it made.

use std::time::Duration;

use kvern_core::limits::IDEMPOTENCY_KEEP;
use kvern_core::{JobId, Keep, State};
use kvern_queue::{Clock, Error, Idempotency, NewJob, Queue};
use kvern_queue_sqlite::{Bounds, Options, SqliteQueue};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::setup::{EPOCH, Setup, bounds, job, keyed, name};

const HOUR: Duration = Duration::from_secs(3600);

fn with_key(key: [u8; 16]) -> NewJob {
    NewJob { idempotency: Some(Idempotency { key, body: [1; 16] }), ..job("f") }
}

/// Accepts a job and says that its key was new.
async fn accept(t: &Setup, new: NewJob) -> JobId {
    let submitted = t.queue.submit(new).await.expect("there is room");
    assert!(!submitted.duplicate, "the key is new");
    submitted.id
}

/// The key of this job stands for it.
async fn assert_stands(t: &Setup, new: NewJob, first: JobId, what: &str) {
    let other = new.idempotency.map(|Idempotency { key, .. }| Idempotency { key, body: [2; 16] });
    let reused = t.queue.submit(NewJob { idempotency: other, ..new.clone() }).await;
    assert!(matches!(reused, Err(Error::KeyReused(id)) if id == first), "{what}: {reused:?}");
    let twin = t.queue.submit(new).await.expect("a twin needs no room");
    assert_eq!((twin.id, twin.duplicate), (first, true), "{what}");
}

fn count(t: &Setup, table: &str) -> u64 {
    let database = Connection::open(t.dir.path().join("queue.db")).expect("a database");
    let counted = database.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0));
    counted.expect("counts").unsigned_abs()
}

/// Forgets what is finished, at once.
async fn forget_finished(t: &Setup) -> usize {
    let at_once = vec![(name("f"), Keep { succeeded: Duration::ZERO, failed: Duration::ZERO, ..Keep::default() })];
    let mut forgotten = 0;
    loop {
        let swept = t.queue.sweep(&at_once, 1000).await.expect("it is open");
        forgotten += swept.forgotten;
        if !swept.more {
            return forgotten;
        }
    }
}

#[tokio::test]
async fn every_key_is_found_while_runs_are_sorted_and_the_server_is_killed() {
    // One key in each commit, or none in between: a kill after every one of them.
    let (runs, run_keys) = (3, bounds().run_keys as u64);
    let mut t = Setup::new();
    let mut first = Vec::new();
    for number in 0..(runs + 1) * run_keys {
        first.push(accept(&t, keyed("f", number)).await);
        t = t.kill();
        for (number, id) in (0..).zip(&first) {
            assert_stands(&t, keyed("f", number), *id, &format!("key {number} of {}", first.len())).await;
        }
    }
    assert!(count(&t, "key_runs") >= runs, "{} runs", count(&t, "key_runs"));
    let unsorted = count(&t, "new_keys");
    assert!(unsorted <= 2 * run_keys, "{unsorted} rows are left of what is sorted");
    assert!(t.queue.submit(keyed("f", 999)).await.is_ok_and(|submitted| !submitted.duplicate));
}

#[tokio::test]
async fn a_run_that_only_seems_to_have_a_key_is_no_answer() {
    let t = Setup::new();
    let key = |number: u8, more: u8| {
        let mut key = [0; 16];
        // The first byte decides where in a run the key is, the last ones which positions of a small filter it sets, and
        // the ninth neither.
        (key[0], key[7], key[8], key[15]) = (number * 6 + 1, number, more, number);
        key
    };
    let mut first = Vec::new();
    for number in 0..40 {
        first.push((key(number, 0), accept(&t, with_key(key(number, 0))).await));
    }
    assert!(count(&t, "key_runs") >= 3);
    // Each sets the same positions as one above: in the place of that one, in another's, and before all.
    for number in 0..40 {
        let (mut other, mut before) = (key(number, 0), key(number, 0));
        (other[0], before[0], before[8]) = (number * 3 + 2, 0, 1);
        for key in [key(number, 1), other, before] {
            first.push((key, accept(&t, with_key(key)).await));
        }
    }
    for (key, id) in first {
        assert_stands(&t, with_key(key), id, &format!("{key:?}")).await;
    }
}

#[tokio::test]
async fn keys_that_begin_alike_share_a_chunk_however_many_they_are() {
    let mut t = Setup::new();
    let key = |number: u8| [7, 7, 7, 7 + number % 2, number, 0, 0, number, 0, 0, 0, 0, 0, 0, 0, number];
    let mut first = Vec::new();
    for number in 0..60 {
        first.push(accept(&t, with_key(key(number))).await);
    }
    assert!(count(&t, "key_runs") >= 4);
    t = t.kill();
    for (number, id) in (0..).zip(first) {
        assert_stands(&t, with_key(key(number)), id, &format!("key {number}")).await;
    }
}

#[tokio::test]
async fn a_key_that_outlives_its_job_stands_for_it_wherever_it_is() {
    let mut t = Setup::new();
    let (key, keys) = (|number| keyed("f", number), 4 * bounds().run_keys as u64);
    let mut first = Vec::new();
    for number in 0..keys {
        first.push(accept(&t, key(number)).await);
        t.queue.cancel(first[first.len() - 1]).await.expect("it waits");
        assert_eq!(forget_finished(&t).await, 1);
    }
    for round in ["before the restart", "after it"] {
        for (number, id) in (0..).zip(&first) {
            assert_stands(&t, key(number), *id, round).await;
            let twin = t.queue.submit(key(number)).await.expect("a twin");
            assert_eq!(twin.state, State::Cancelled, "the state that it had last");
        }
        t = t.kill();
    }
    t.clock.advance(IDEMPOTENCY_KEEP);
    assert_eq!(forget_finished(&t).await, 0);
    assert_eq!((count(&t, "spent_keys"), count(&t, "key_runs"), count(&t, "key_chunks")), (0, 0, 0));
    for (number, id) in (0..).zip(first) {
        let again = accept(&t, key(number)).await;
        assert!(again > id);
        assert_stands(&t, key(number), again, "its second job").await;
    }
}

#[tokio::test]
async fn the_few_keys_that_are_left_of_an_old_run_are_carried_over() {
    let open = |dir: &TempDir, clock: &Clock| {
        let options = Options { dir: dir.path().to_owned(), clock: clock.clone() };
        let bounds = Bounds { run_keys: 64, ..Bounds::default() };
        SqliteQueue::open_within(options, &bounds).expect("the directory opens")
    };
    let (clock, dir) = (Clock::manual(EPOCH), TempDir::new().expect("a directory"));
    let mut t = Setup { queue: open(&dir, &clock), clock, dir };
    let mut left = Vec::new();
    for number in 0..300 {
        let id = accept(&t, keyed("f", number)).await;
        if number % 60 == 0 {
            left.push((number, id));
        } else {
            t.queue.cancel(id).await.expect("it waits");
        }
    }
    let before = count(&t, "key_runs");
    assert!(before >= 3);
    forget_finished(&t).await;
    t.clock.advance(IDEMPOTENCY_KEEP - HOUR);
    forget_finished(&t).await;
    assert_eq!(count(&t, "key_runs"), before, "no key is old enough");

    t.clock.advance(2 * HOUR);
    // More than once: a sweep ends at a chunk of which too much is left.
    for _ in 0..10 {
        forget_finished(&t).await;
    }
    assert_eq!((count(&t, "key_runs"), count(&t, "key_chunks")), (0, 0));
    for round in ["before the restart", "after it"] {
        for (number, id) in &left {
            assert_stands(&t, keyed("f", *number), *id, round).await;
        }
        t.queue.crash();
        t.queue = open(&t.dir, &t.clock);
    }
}
