//! Checks: what is damaged is found and named, with its job; what is whole is not blamed.

use std::path::Path;

use kvern_core::{JobId, State};
use kvern_queue::{Queue, Settlement};
use kvern_queue_sqlite::{BackupError, Finding, Level, Report, SCHEMA, check};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::setup::{Setup, inline, job};

pub(crate) fn look(dir: &Path) -> Report {
    let mut heard = 0;
    let report = check(dir, &mut |_| heard += 1).expect("it can be looked at");
    assert!(heard >= 2, "a long check would have been silent");
    report
}

/// Codes of what was found, and the jobs concerned.
pub(crate) fn found(report: &Report) -> Vec<(&'static str, Option<JobId>)> {
    report.findings.iter().map(|finding| (finding.code, finding.job)).collect()
}

fn of(report: &Report, id: JobId) -> &Finding {
    report.findings.iter().find(|finding| finding.job == Some(id)).expect("it is found")
}

fn run(database: &Connection, sql: &str, id: JobId) {
    assert_eq!(database.execute(sql, [id.sequence().get().cast_signed()]).expect("runs"), 1, "{sql}");
}

/// Some of everything: waiting and ended jobs, payloads in rows and in files, a log.
pub(crate) async fn filled() -> (Setup, Vec<JobId>) {
    let t = Setup::new();
    let mut ids = vec![t.submit(job("f")).await];
    t.succeed(t.lease("f", 1).await.remove(0), inline(b"forty-two")).await;
    ids.push(t.submit(kvern_queue::NewJob { input: t.staged(1).await, ..job("f") }).await);
    let result = t.staged(2).await;
    t.succeed(t.lease("f", 1).await.remove(0), result).await;
    ids.push(t.submit(job("g")).await);
    ids.push(t.submit(kvern_queue::NewJob { input: t.staged(3).await, ..job("g") }).await);
    (t, ids)
}

#[tokio::test]
async fn what_is_whole_is_whole_beside_a_server_and_after_it() {
    let (t, ids) = filled().await;
    let running = t.lease("g", 1).await;
    let report = look(t.dir.path());
    assert_eq!((report.findings.as_slice(), report.is_damaged), (&[][..], false));
    assert_eq!((report.jobs, report.files, report.schema), (ids.len() as u64, 3, SCHEMA));
    assert_eq!(report.server_pid, Some(std::process::id()));
    // What is on its way to a row is nobody's yet.
    let staged = t.staged(9).await;
    assert_eq!(found(&look(t.dir.path())), []);
    drop(staged);
    let lease = running.into_iter().next().expect("one").lease;
    t.queue.settle(lease, Settlement::Release).await.expect("it stands");
    let (_, _, dir) = t.stop().await;
    let report = look(dir.path());
    assert_eq!((found(&report), report.server_pid), (vec![], None));
}

#[tokio::test]
async fn each_damage_is_named_with_its_job() {
    let (t, ids) = filled().await;
    let names = crate::setup::files_in(t.queue.blobs());
    let (database, _, dir) = t.stop().await;
    run(&database, "UPDATE jobs SET input = CAST('not the very i' AS BLOB) WHERE seq = ?1", ids[0]);
    run(&database, "UPDATE results SET attempts = 'no JSON' WHERE seq = ?1", ids[1]);
    run(&database, "UPDATE jobs SET input = CAST('too short' AS BLOB) WHERE seq = ?1", ids[2]);
    let name: String = database
        .query_row("SELECT input FROM jobs WHERE seq = ?1", [ids[3].sequence().get().cast_signed()], |row| row.get(0))
        .expect("a name");
    drop(database);
    assert_eq!(names.len(), 3);
    std::fs::write(dir.path().join("blobs").join(name), b"short").expect("written");

    let report = look(dir.path());
    assert!(report.is_damaged && report.findings.iter().all(|finding| finding.level == Level::Damaged));
    let expected = [("input", ids[0]), ("record", ids[1]), ("input", ids[2]), ("input", ids[3])];
    assert_eq!(found(&report), expected.map(|(code, id)| (code, Some(id))));
    let first = of(&report, ids[0]);
    assert_eq!((first.state, first.function.as_ref().expect("known").as_str()), (Some(State::Succeeded), "f"));
    assert_eq!(first.what, "the input is damaged: it does not match its checksum");
    assert_eq!(of(&report, ids[2]).state, Some(State::Queued));
    assert!(of(&report, ids[3]).what.contains("its file has 5 bytes and not "), "{report:?}");
    assert!(report.findings.iter().all(|finding| !finding.fix.is_empty()));
}

#[tokio::test]
async fn files_and_rows_that_do_not_agree_are_found() {
    let (t, ids) = filled().await;
    let lost = t.staged(7).await;
    lost.staged().expect("a file").keep();
    let blobs = t.queue.blobs().to_owned();
    std::fs::write(blobs.join("notes.txt"), b"mine").expect("written");
    let (database, _, dir) = t.stop().await;
    run(&database, "DELETE FROM blobs WHERE seq = ?1", ids[3]);
    database.execute("INSERT INTO logs VALUES (1, 0, CAST('x' AS BLOB))", []).expect("runs");
    database.execute("UPDATE functions SET queued = queued + 1 WHERE name = 'g'", []).expect("runs");
    database.execute("DELETE FROM arrivals", []).expect("runs");
    drop(database);
    let mut codes: Vec<_> = found(&look(dir.path()));
    codes.sort_unstable();
    let expected = [
        ("counts", None),
        ("foreign_file", None),
        ("input", Some(ids[3])),
        ("lost_rows", None),
        ("strays", None),
        // Of the lost stage, and the one that the next start would remove too.
        ("unowned_file", None),
        ("unowned_file", None),
    ];
    assert_eq!(codes, expected);
}

#[tokio::test]
async fn a_damaged_structure_is_told_and_never_a_panic() {
    let (t, _) = filled().await;
    let (database, _, dir) = t.stop().await;
    drop(database);
    let path = dir.path().join("queue.db");
    let whole = std::fs::read(&path).expect("the database");
    for page in (0..whole.len()).step_by(4096) {
        let mut bytes = whole.clone();
        // Behind what makes the file a database of ours; without that there is nothing to look at.
        let begin = page.max(100);
        bytes[begin..begin + 64].fill(0xa5);
        std::fs::write(&path, &bytes).expect("written");
        let report = look_quietly(dir.path());
        assert!(report.is_damaged, "page at {page}: {report:?}");
    }
    std::fs::write(&path, b"this is not a database, but long enough to look at").expect("written");
    assert_eq!(found(&look_quietly(dir.path())), [("structure", None)]);
}

#[tokio::test]
async fn a_damaged_page_hides_no_more_jobs_than_it_holds() {
    let t = Setup::new();
    let mut ids = Vec::new();
    for _ in 0..300 {
        ids.push(t.submit(job("f")).await);
    }
    let (database, _, dir) = t.stop().await;
    let leaf: i64 = database
        .query_row("SELECT pageno FROM dbstat WHERE name = 'jobs' AND pagetype = 'leaf' LIMIT 1 OFFSET 3", [], |row| {
            row.get(0)
        })
        .expect("a leaf");
    drop(database);
    let path = dir.path().join("queue.db");
    let mut bytes = std::fs::read(&path).expect("there");
    let at = (usize::try_from(leaf).expect("a page") - 1) * 4096;
    bytes[at..at + 8].fill(0);
    std::fs::write(&path, bytes).expect("written");
    let report = look_quietly(dir.path());
    let lost = report.findings.iter().find(|finding| finding.code == "lost_jobs").expect("they are named");
    assert!(report.jobs >= 200 && report.jobs < 300, "{report:?}");
    let named: Vec<_> = ids.iter().filter(|id| lost.what.contains(&id.to_string())).collect();
    let [first, last] = named[..] else { panic!("two of them: {}", lost.what) };
    let between = ids.iter().filter(|id| first < id && *id < last).count() as u64;
    assert_eq!(report.jobs + between, 300, "all others were looked at");
}

fn look_quietly(dir: &Path) -> Report {
    check(dir, &mut |_| {}).expect("it can be looked at")
}

#[tokio::test]
async fn where_nothing_is_there_is_nothing_to_check() {
    let dir = TempDir::new().expect("a directory");
    for place in [dir.path().to_owned(), dir.path().join("nowhere")] {
        let refused = check(&place, &mut |_| {}).expect_err("nothing is there");
        assert!(matches!(refused, BackupError::NoData { .. }), "{refused:?}");
    }
    let (database, _, dir) = Setup::new().stop().await;
    database.pragma_update(None, "user_version", SCHEMA + 1).expect("sets the version");
    drop(database);
    let refused = check(dir.path(), &mut |_| {}).expect_err("it is newer");
    assert!(matches!(refused, BackupError::Newer { .. }), "{refused:?}");
}
