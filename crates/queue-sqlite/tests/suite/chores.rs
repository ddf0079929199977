//! Chores that fail: the writer tries them again now and then, and neither it nor a waiting lease spins in between.

use std::time::Duration;

use kvern_core::State;
use kvern_queue::{Ask, Error, NewJob, Queue, Want};
use rusqlite::Connection;

use crate::setup::{EPOCH, Setup, job, keyed, name, open, until};

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

/// A trigger that refuses what every batch writes beside its operations.
async fn assert_refused_and_nothing_more(t: &Setup, number: u64, refuses: &str) {
    let database = Connection::open(t.dir.path().join("queue.db")).expect("a database");
    database.busy_timeout(Duration::from_secs(5)).expect("sets");
    let trigger = format!("CREATE TRIGGER not_now {refuses} BEGIN SELECT RAISE(ABORT, 'not now'); END");
    database.execute_batch(&trigger).expect("a trigger");
    let refused = t.queue.submit(keyed("f", number)).await;
    assert!(matches!(&refused, Err(Error::Broken(why)) if why.contains("not now")), "{refuses}: {refused:?}");
    t.queue.health().expect("nothing was lost, so the store is open");
    database.execute_batch("DROP TRIGGER not_now").expect("a trigger");
    let again = t.queue.submit(keyed("f", number)).await.expect("it can be written now");
    assert!(!again.duplicate, "{refuses}: nothing of it was stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_fails_before_its_commit_is_refused_and_seals_nothing() {
    let t = Setup::new();
    t.submit(job("f")).await;
    assert_refused_and_nothing_more(&t, 1, "BEFORE UPDATE ON functions").await;
    assert_refused_and_nothing_more(&t, 2, "BEFORE INSERT ON new_keys").await;
    assert_eq!(t.lease("f", 9).await.len(), 3);
    assert_eq!(t.queue.stats().functions[0].1.running, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_another_program_locks_is_busy_and_seals_nothing() {
    let t = Setup::new();
    t.submit(job("f")).await;
    let other = Connection::open(t.dir.path().join("queue.db")).expect("a database");
    other.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    let refused = t.queue.submit(job("f")).await;
    assert!(matches!(&refused, Err(Error::Busy(why)) if why.contains("another program")), "{refused:?}");
    other.execute_batch("ROLLBACK").expect("it is let go");
    t.submit(job("f")).await;
    assert_eq!(t.lease("f", 9).await.len(), 2);
}

#[tokio::test]
async fn a_job_that_a_jump_of_the_clock_made_late_runs_once_the_clock_is_back() {
    let t = Setup::new();
    let hurried = t.submit(NewJob { expires_at: Some(EPOCH.after(Duration::from_secs(600))), ..job("f") }).await;
    let patient = t.submit(job("f")).await;
    t.clock.jump_to(EPOCH.after(Duration::from_secs(3600)));
    assert_eq!(t.lease("f", 1).await[0].job.id, patient);
    t.clock.jump_to(EPOCH);
    assert_eq!(t.lease("f", 1).await.iter().map(|leased| leased.job.id).collect::<Vec<_>>(), [hurried]);
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
