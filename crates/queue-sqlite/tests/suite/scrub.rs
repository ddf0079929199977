//! Scrub: damage is found without anybody asking for the bytes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kvern_core::{FailureCode, JobId, State};
use kvern_queue::{NewJob, Payload, Queue};
use kvern_queue_sqlite::{Bounds, Options, SqliteQueue};
use rusqlite::Connection;

use crate::setup::{EPOCH, Setup, inline, job, name, until};

/// All of it again, many times in a test.
const ROUND: Duration = Duration::from_millis(200);

fn open_scrubbed(t: Setup) -> Setup {
    let Setup { queue, clock, dir } = t;
    queue.crash();
    drop(queue);
    let options = Options { dir: dir.path().to_owned(), clock: clock.clone() };
    let bounds = Bounds { scrub_round: ROUND, ..Bounds::default() };
    let queue: Arc<SqliteQueue> = SqliteQueue::open_within(options, &bounds).expect("the directory opens");
    Setup { queue, clock, dir }
}

fn path_of(payload: &Payload) -> PathBuf {
    match payload {
        Payload::Blob(blob) => blob.path.clone(),
        Payload::Inline(_) => panic!("it is large enough for a file"),
    }
}

/// Writes other bytes under the queue.
fn damage(t: &Setup, table: &str, column: &str, id: JobId) {
    let database = Connection::open(t.dir.path().join("queue.db")).expect("a database");
    let sql = format!("UPDATE {table} SET {column} = CAST('not what came in' AS BLOB) WHERE seq = ?1");
    let key = id.sequence().get().cast_signed();
    assert_eq!(database.execute(&sql, [key]).expect("damages it"), 1);
}

async fn fails_as_damaged(t: &Setup, id: JobId) {
    until("the damaged job fails", async || t.state(id).await == State::Failed).await;
    let error = t.queue.get(id).await.expect("it is kept").error.expect("it says why");
    assert_eq!(error.code, FailureCode::Damaged);
}

#[tokio::test]
async fn damaged_jobs_fail_while_they_wait_and_no_other_does() {
    let t = Setup::new();
    t.queue.pause(&name("f"), true).await.expect("nothing of it is leased");
    let whole = t.submit(job("f")).await;
    let inline = t.submit(job("f")).await;
    let later = t.submit(NewJob { not_before: Some(EPOCH.after(Duration::from_secs(60))), ..job("f") }).await;
    let (flipped_input, gone_input) = (t.staged(1).await, t.staged(2).await);
    let (flipped_path, gone_path) = (path_of(&flipped_input), path_of(&gone_input));
    let flipped = t.submit(NewJob { input: flipped_input, ..job("f") }).await;
    let gone = t.submit(NewJob { input: gone_input, ..job("f") }).await;
    let whole_file = t.submit(NewJob { input: t.staged(3).await, ..job("f") }).await;
    for id in [inline, later] {
        damage(&t, "jobs", "input", id);
    }
    let mut bytes = std::fs::read(&flipped_path).expect("there");
    bytes[1000] ^= 1;
    std::fs::write(&flipped_path, bytes).expect("written");
    std::fs::remove_file(gone_path).expect("there");

    let t = open_scrubbed(t);
    for id in [inline, later, flipped, gone] {
        fails_as_damaged(&t, id).await;
    }
    let counts = t.queue.stats().functions[0].1;
    assert_eq!((counts.queued, counts.scheduled, counts.failed), (2, 0, 4));
    t.queue.pause(&name("f"), false).await.expect("it goes on");
    let leased: Vec<_> = t.lease("f", 9).await.iter().map(|leased| leased.job.id).collect();
    assert_eq!(leased, [whole, whole_file]);
}

#[tokio::test]
async fn damage_comes_to_light_again_and_again() {
    let t = open_scrubbed(Setup::new());
    t.queue.pause(&name("f"), true).await.expect("nothing of it is leased");
    for _ in 0..3 {
        let id = t.submit(job("f")).await;
        damage(&t, "jobs", "input", id);
        fails_as_damaged(&t, id).await;
    }
}

#[tokio::test]
async fn a_damaged_result_changes_nothing_of_its_job() {
    let t = Setup::new();
    let done = t.submit(job("f")).await;
    t.succeed(t.lease("f", 1).await.remove(0), inline(b"forty-two")).await;
    let running = t.submit(job("f")).await;
    damage(&t, "results", "body", done);
    let t = open_scrubbed(t);
    let leased = t.lease("f", 1).await.remove(0);
    assert_eq!(leased.job.id, running);
    // The attempt has its input, whatever becomes of the stored one.
    damage(&t, "jobs", "input", running);
    t.queue.pause(&name("f"), true).await.expect("no other is leased");
    let marker = t.submit(job("f")).await;
    damage(&t, "jobs", "input", marker);
    // It is behind the others, so they were read too.
    fails_as_damaged(&t, marker).await;
    assert_eq!((t.state(done).await, t.state(running).await), (State::Succeeded, State::Running));
    t.succeed(leased, inline(b"done")).await;
}
