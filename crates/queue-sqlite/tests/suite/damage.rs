//! Bit rot: a job whose stored bytes are damaged is reported and fails; the others go on.

use std::time::Duration;

use kvern_core::{FailureCode, JobId, Keep, State};
use kvern_queue::{Ask, Error, Filter, NewJob, Payload, Queue, Want};

use crate::backlog::{DEEP, fill};
use crate::setup::{Setup, inline, job, name, open, until};

const PAGE: usize = 4096;
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_damaged_input_fails_its_job_and_no_other() {
    let t = Setup::new();
    let (bad, good) = (t.submit(job("f")).await, t.submit(job("f")).await);
    let (database, clock, dir) = t.stop().await;
    let key = bad.sequence().get().cast_signed();
    let changed = database.execute("UPDATE jobs SET input = CAST('the very impus' AS BLOB) WHERE seq = ?1", [key]);
    assert_eq!(changed.expect("damages it"), 1);
    drop(database);

    let queue = open(dir.path(), &clock);
    assert!(matches!(queue.input(bad).await, Err(Error::Damaged(id)) if id == bad));
    let t = Setup { queue, clock, dir };
    let leased = t.lease("f", 9).await;
    assert_eq!(leased.iter().map(|leased| leased.job.id).collect::<Vec<_>>(), [good]);
    crate::setup::until("the damaged job fails", async || t.state(bad).await == State::Failed).await;
    let error = t.queue.get(bad).await.expect("it is kept").error.expect("it says why");
    assert_eq!(error.code, FailureCode::Damaged);
    assert_eq!(t.queue.stats().functions[0].1.failed, 1);
}

/// One bad row among those that a window reads at once, and none of the jobs behind them may be passed over.
#[tokio::test(flavor = "multi_thread")]
async fn bad_rows_hide_no_job_behind_them() {
    for harm in ["input = CAST('another' AS BLOB)", "tags = 'no list of tags'"] {
        let t = Setup::new();
        fill(&t, DEEP, |_| job("f")).await;
        let (database, clock, dir) = t.stop().await;
        let third = "(SELECT seq FROM jobs ORDER BY seq LIMIT 1 OFFSET 2)";
        let changed = database.execute(&format!("UPDATE jobs SET {harm} WHERE seq = {third}"), []);
        assert_eq!(changed.expect("harms it"), 1);
        drop(database);

        let t = Setup { queue: open(dir.path(), &clock), clock, dir };
        let mut count = 0;
        while count < DEEP - 1 {
            let leased = t.lease("f", 100).await;
            assert!(!leased.is_empty(), "only {count} of {} whole jobs came, with {harm}", DEEP - 1);
            count += leased.len();
        }
    }
}

#[tokio::test]
async fn a_damaged_result_is_reported() {
    let t = Setup::new();
    let id = t.submit(job("f")).await;
    t.succeed(t.lease("f", 1).await.remove(0), inline(b"forty-two")).await;
    let (database, clock, dir) = t.stop().await;
    let changed = database.execute("UPDATE results SET body = CAST('forty-too' AS BLOB)", []);
    assert_eq!(changed.expect("damages it"), 1);
    drop(database);
    let queue = open(dir.path(), &clock);
    assert!(matches!(queue.result(id).await, Err(Error::Damaged(damaged)) if damaged == id));
    assert_eq!(queue.get(id).await.expect("the record is whole").state, State::Succeeded);
}

#[tokio::test]
async fn a_damaged_structure_under_a_running_queue_is_told_and_stops_nobody_else() {
    let t = Setup::new();
    let mut ids = Vec::new();
    for _ in 0..300 {
        ids.push(t.submit(job("f")).await);
    }
    let (database, clock, dir) = t.stop().await;
    let sql = "SELECT pageno FROM dbstat WHERE name = 'jobs' AND pagetype = 'leaf' LIMIT 1 OFFSET 3";
    let leaf: u64 = database.query_row(sql, [], |row| row.get(0).map(i64::cast_unsigned)).expect("a leaf");
    drop(database);
    let t = Setup { queue: open(dir.path(), &clock), clock, dir };
    let file = std::fs::File::options().write(true).open(t.dir.path().join("queue.db")).expect("a file");
    std::os::unix::fs::FileExt::write_all_at(&file, &[0; 8], (leaf - 1) * 4096).expect("written");
    // Closed in this process it would take the locks of SQLite along.
    std::mem::forget(file);
    let (mut whole, mut told) = (0, 0);
    for id in ids {
        match t.queue.get(id).await {
            Ok(_) => whole += 1,
            Err(error) => {
                assert!(error.to_string().contains("`kvern doctor` says what is damaged"), "{error}");
                told += 1;
            }
        }
    }
    assert!(whole >= 200 && told > 0, "{whole} can be read, {told} cannot");
    t.submit(job("f")).await;
}

#[tokio::test]
async fn flipped_bytes_anywhere_never_make_it_panic() {
    let t = Setup::new();
    for _ in 0..50 {
        t.submit(job("f")).await;
    }
    for leased in t.lease("f", 20).await {
        t.succeed(leased, inline(b"done")).await;
    }
    let (database, clock, dir) = t.stop().await;
    drop(database);
    let path = dir.path().join("queue.db");
    let whole = std::fs::read(&path).expect("the database");
    for step in 0..60 {
        let mut bytes = whole.clone();
        let at = 100 + step * (whole.len() - 100) / 60;
        bytes[at] ^= 0x55;
        std::fs::write(&path, &bytes).expect("writes");
        let options = kvern_queue_sqlite::Options { dir: dir.path().to_owned(), clock: clock.clone() };
        let Ok(queue) = kvern_queue_sqlite::SqliteQueue::open(options) else { continue };
        let _ = queue.list(&kvern_queue::Filter::default(), None, 500).await;
        let _ = queue.submit(job("f")).await;
        let _ = queue.sweep(&Vec::new(), 100).await;
        queue.crash();
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_read_holds_up_no_other() {
    let t = Setup::new();
    let (bad, good) = (t.submit(job("f")).await, t.submit(job("f")).await);
    let (database, clock, dir) = t.stop().await;
    let key = bad.sequence().get().cast_signed();
    assert_eq!(database.execute("UPDATE jobs SET tags = '{' WHERE seq = ?1", [key]).expect("damages it"), 1);
    drop(database);
    let t = Setup { queue: open(dir.path(), &clock), clock, dir };
    assert_eq!(t.lease("f", 9).await.iter().map(|leased| leased.job.id).collect::<Vec<_>>(), [good]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_expires_and_cannot_be_read_holds_up_no_other() {
    let t = Setup::new();
    let hurried = || NewJob { expires_at: Some(t.clock.now().after(MINUTE)), ..job("f") };
    let (bad, good) = (t.submit(hurried()).await, t.submit(hurried()).await);
    let (database, clock, dir) = t.stop().await;
    let key = bad.sequence().get().cast_signed();
    assert_eq!(database.execute("UPDATE jobs SET tags = '{' WHERE seq = ?1", [key]).expect("damages it"), 1);
    drop(database);
    let t = Setup { queue: open(dir.path(), &clock), clock, dir };
    t.clock.advance(MINUTE);
    assert_eq!(t.queue.sweep(&Vec::new(), 10).await.expect("it sweeps").expired, 1);
    assert_eq!(t.state(good).await, State::Failed);
}

/// A job whose input goes over several pages, the first of which names no next one that there is.
async fn with_a_page_that_cannot_be_read(t: Setup, new: NewJob) -> (Setup, JobId) {
    let id = t.submit(NewJob { input: Payload::Inline(vec![b'p'; 5 * PAGE].into()), ..new }).await;
    let (database, clock, dir) = t.stop().await;
    drop(database);
    let path = dir.path().join("queue.db");
    let mut bytes = std::fs::read(&path).expect("the database");
    let page = bytes.chunks_mut(PAGE).find(|page| page[4..PAGE / 2].iter().all(|byte| *byte == b'p')).expect("a page");
    page[..4].fill(0xff);
    std::fs::write(&path, bytes).expect("writes");
    (Setup { queue: open(dir.path(), &clock), clock, dir }, id)
}

async fn assert_failed_as_damaged(t: &Setup, id: JobId) {
    until("the job fails", async || t.state(id).await == State::Failed).await;
    let error = t.queue.get(id).await.expect("it is shown").error.expect("it says why");
    assert_eq!(error.code, FailureCode::Damaged);
    let failed = Filter { states: vec![State::Failed], ..Filter::default() };
    for filter in [failed, Filter::default()] {
        let page = t.queue.list(&filter, None, 100).await.expect("lists");
        let listed: Vec<_> = page.jobs.iter().filter(|job| job.id == id).map(|job| job.state).collect();
        assert_eq!(listed, [State::Failed], "{filter:?}");
    }
    let counts = t.queue.stats().functions.iter().find(|(function, _)| *function == name("f")).expect("counts").1;
    assert_eq!((counts.scheduled, counts.failed), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_cannot_be_read_fails_its_job_and_the_others_of_its_function_run() {
    let t = Setup::new();
    let before = t.submit(job("f")).await;
    let (t, bad) = with_a_page_that_cannot_be_read(t, job("f")).await;
    let behind = t.submit(job("f")).await;
    let mut ran = Vec::new();
    until("the others are leased", async || {
        ran.extend(t.lease("f", 9).await.iter().map(|leased| leased.job.id));
        ran.len() >= 2
    })
    .await;
    assert_eq!(ran, [before, behind]);
    assert_failed_as_damaged(&t, bad).await;
    // A person's word cannot be written either, and says so.
    assert!(t.queue.cancel(bad).await.is_err() && t.queue.retry(bad).await.is_err());
    let t = t.kill();
    until("the damage is found again", async || {
        t.lease("f", 0).await.is_empty() && t.state(bad).await == State::Failed
    })
    .await;
    assert_failed_as_damaged(&t, bad).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_cannot_be_read_keeps_no_other_job_from_coming_due_or_expiring() {
    for expires in [false, true] {
        let t = Setup::new();
        let later = Some(t.clock.now().after(MINUTE));
        let new = |function: &str| match expires {
            true => NewJob { expires_at: later, not_before: Some(t.clock.now().after(HOUR)), ..job(function) },
            false => NewJob { not_before: later, ..job(function) },
        };
        let (bad, good) = (new("f"), new("g"));
        let (t, bad) = with_a_page_that_cannot_be_read(t, bad).await;
        let good = t.submit(good).await;
        t.clock.advance(MINUTE);
        if expires {
            assert_eq!(t.queue.sweep(&Vec::new(), 10).await.expect("it sweeps").expired, 1);
            assert_eq!(t.state(good).await, State::Failed);
        } else {
            assert_eq!(t.lease("g", 9).await.iter().map(|leased| leased.job.id).collect::<Vec<_>>(), [good]);
        }
        assert_failed_as_damaged(&t, bad).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_cannot_be_read_keeps_no_other_job_from_being_forgotten() {
    let t = Setup::new();
    let bad = NewJob { input: Payload::Inline(vec![b'p'; 5 * PAGE].into()), ..job("f") };
    let bad = t.submit(bad).await;
    t.queue.cancel(bad).await.expect("it waits");
    let (t, _) = with_a_page_that_cannot_be_read(t, job("other")).await;
    let good = t.submit(job("f")).await;
    t.queue.cancel(good).await.expect("it waits");
    let at_once = vec![(name("f"), Keep { succeeded: Duration::ZERO, failed: Duration::ZERO, ..Keep::default() })];
    t.queue.sweep(&at_once, 10).await.expect("it sweeps");
    assert!(matches!(t.queue.get(good).await, Err(Error::UnknownJob(_))), "it is kept");
    t.queue.get(bad).await.expect("it cannot be removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_cannot_be_read_hold_up_no_other_function_and_no_processor() {
    let t = Setup::new();
    let good = t.submit(job("g")).await;
    let (t, bad) = with_a_page_that_cannot_be_read(t, job("f")).await;
    assert_eq!(t.lease("g", 9).await.iter().map(|leased| leased.job.id).collect::<Vec<_>>(), [good]);
    let rounds = t.queue.commits().rounds;
    let wants = vec![Want { function: name("f"), slots: 1 }];
    let ask = Ask { worker: "tester".to_owned(), wants, max: 1, wait: Duration::from_millis(1500) };
    assert!(t.queue.lease(ask).await.expect("it is open").is_empty());
    let more = t.queue.commits().rounds - rounds;
    assert!(more < 20, "the writer looked {more} times");
    assert_failed_as_damaged(&t, bad).await;
}
