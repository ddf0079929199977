//! Chores that fail: the writer tries them again now and then, and neither it nor a waiting lease spins in between.

use std::time::Duration;

use kvern_core::State;
use kvern_queue::{Ask, NewJob, Queue, Want};
use rusqlite::Connection;

use crate::setup::{EPOCH, Setup, job, name, open, until};

/// The writer may look this often while a lease waits for [`WAIT`]; one that spins does so thousands of times.
const ROUNDS_MAX: u64 = 20;
const WAIT: Duration = Duration::from_millis(300);
const DELAY: Duration = Duration::from_secs(1);

/// Moves of jobs fail from now on.
fn forbid_moves(database: &Connection) {
    let sql = "CREATE TRIGGER no_moves BEFORE UPDATE OF rank ON jobs BEGIN SELECT RAISE(ABORT, 'not now'); END";
    database.execute_batch(sql).expect("a trigger");
}

fn allow_moves(t: &Setup) {
    let database = Connection::open(t.dir.path().join("queue.db")).expect("a database");
    database.busy_timeout(Duration::from_secs(5)).expect("sets");
    database.execute_batch("DROP TRIGGER no_moves").expect("a trigger");
}

/// A lease waits and gets nothing, and the writer stays calm.
pub(crate) async fn assert_calm(t: &Setup) {
    let wants = vec![Want { function: name("f"), slots: 1 }];
    let ask = Ask { worker: "tester".to_owned(), wants, max: 1, wait: WAIT };
    let before = t.queue.commits().rounds;
    assert!(t.queue.lease(ask).await.expect("an open queue leases").is_empty());
    let rounds = t.queue.commits().rounds - before;
    assert!(rounds < ROUNDS_MAX, "the writer looked {rounds} times");
}

#[tokio::test(flavor = "multi_thread")]
async fn due_jobs_that_cannot_be_queued_are_tried_again_in_peace() {
    let t = Setup::new();
    let id = t.submit(NewJob { not_before: Some(EPOCH.after(DELAY)), ..job("f") }).await;
    let (database, clock, dir) = t.stop().await;
    forbid_moves(&database);
    let t = Setup { queue: open(dir.path(), &clock), clock, dir };
    t.clock.advance(DELAY);
    assert_calm(&t).await;

    allow_moves(&t);
    until("the job is ready", async || t.lease("f", 1).await.iter().any(|leased| leased.job.id == id)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_jobs_that_cannot_fail_are_tried_again_in_peace() {
    let t = Setup::new();
    let id = t.submit(job("f")).await;
    let (database, clock, dir) = t.stop().await;
    database.execute("UPDATE jobs SET input = CAST('the very impus' AS BLOB)", []).expect("damages it");
    forbid_moves(&database);
    let t = Setup { queue: open(dir.path(), &clock), clock, dir };
    assert_calm(&t).await;

    allow_moves(&t);
    until("the job fails", async || t.state(id).await == State::Failed).await;
}
