//! Backups: exact although the queue goes on, recognised when they are not whole, restored to what was acknowledged.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kvern_core::{JobId, Keep, State, UnixMs};
use kvern_queue::{Clock, Idempotency, NewJob, Queue};
use kvern_queue_sqlite::{
    BackupError, Label, Made, OpenError, Options, Report, SqliteQueue, create_backup, restore_backup, verify_backup,
};
use tempfile::TempDir;

use crate::check::{filled, found, look};
use crate::setup::{EPOCH, Setup, inline, job, name, open, until};

fn backup(data: &Path, dir: &Path) -> Made {
    create_backup(data, dir, &mut |_| {}).expect("a backup")
}

fn restore(backup: &Path, dir: &Path) {
    let restored = restore_backup(backup, dir, &mut |_| {}).expect("it is restored");
    assert_eq!(restored.findings, []);
}

fn verify(dir: &Path) -> (Label, Report) {
    verify_backup(dir, &mut |_| {}).expect("it can be read")
}

fn files_below(dir: &Path) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    for path in crate::setup::files_in(dir) {
        files.extend(if path.is_dir() { files_below(&path) } else { BTreeSet::from([path]) });
    }
    files
}

#[tokio::test]
async fn a_backup_brings_everything_back() {
    let (t, ids) = filled().await;
    let running = t.lease("g", 1).await.remove(0);
    let idempotency = Some(Idempotency { key: [7; 16], body: [8; 16] });
    let keyed = t.submit(NewJob { idempotency, ..job("f") }).await;
    let outer = TempDir::new().expect("a directory");
    let (saved, data) = (outer.path().join("saved"), outer.path().join("data"));
    let made = backup(t.dir.path(), &saved);
    assert_eq!((made.label.jobs_in_all(), made.label.files, made.findings.len()), (5, 3, 0));
    let after = t.submit(job("f")).await;
    t.succeed(running, inline(b"after")).await;

    let (label, report) = verify(&saved);
    assert_eq!((label, found(&report)), (made.label, vec![]));
    let before = files_below(&saved);
    restore(&saved, &data);
    assert_eq!(files_below(&saved), before, "a backup stays as it is");
    assert_eq!(found(&look(&data)), []);
    let clock = Clock::manual(t.clock.now());
    let t = Setup { queue: open(&data, &clock), clock, dir: outer };
    for (id, state) in ids.iter().zip([State::Succeeded, State::Succeeded, State::Queued, State::Queued]) {
        assert_eq!(t.state(*id).await, state);
        t.queue.input(*id).await.expect("its input is whole");
    }
    assert!(t.queue.get(after).await.is_err(), "it came later");
    let twin = t.queue.submit(NewJob { idempotency, ..job("f") }).await.expect("a twin");
    assert_eq!((twin.id, twin.duplicate), (keyed, true));
    // What ran is leased again, with its whole input.
    let leased: BTreeSet<JobId> = t.lease("g", 9).await.iter().map(|leased| leased.job.id).collect();
    assert_eq!(leased, BTreeSet::from([ids[2], ids[3]]));
}

#[tokio::test]
async fn ids_go_on_after_those_of_the_backup() {
    let t = Setup::new();
    let first = t.submit(job("f")).await;
    let outer = TempDir::new().expect("a directory");
    let (saved, data) = (outer.path().join("saved"), outer.path().join("data"));
    backup(t.dir.path(), &saved);
    t.clock.advance(Duration::from_secs(1));
    let lost: Vec<JobId> = [t.submit(job("f")).await, t.submit(job("f")).await].into();
    restore(&saved, &data);
    // As a rule the clock has gone on since.
    let later = open(&data, &Clock::manual(t.clock.now().after(Duration::from_millis(1))));
    let next = later.submit(job("f")).await.expect("accepted").id;
    assert!(lost.iter().all(|id| *id < next), "greater than all that were ever given out");
    later.close().await;
    drop(later);
    // A clock that went back: greater than those of the backup, and by their random part other than the lost ones.
    let dir = outer.path().join("again");
    restore(&saved, &dir);
    let early = open(&dir, &Clock::manual(UnixMs(EPOCH.0 - 1000)));
    for _ in 0..50 {
        let id = early.submit(job("f")).await.expect("accepted").id;
        assert!(id > first && !lost.contains(&id));
    }
}

/// Submits, settles and forgets, with files, until it is told to stop. What was acknowledged goes to the list.
async fn work(t: &Setup, acknowledged: &Mutex<Vec<JobId>>, is_over: &AtomicBool) {
    let keep = Keep { succeeded: Duration::ZERO, failed: Duration::ZERO };
    for turn in 0_u8.. {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let kept = t.submit(NewJob { input: t.staged(turn).await, ..job("kept") }).await;
        acknowledged.lock().expect("no panic").push(kept);
        t.submit(NewJob { input: t.staged(turn).await, ..job("gone") }).await;
        let result = t.staged(turn).await;
        for leased in t.lease("gone", 1).await {
            t.succeed(leased, result.clone()).await;
        }
        // Waiting jobs stay; what has ended goes at once, and its files with it.
        t.queue.sweep(&vec![(name("gone"), keep)], 100).await.expect("sweeps");
        t.clock.advance(Duration::from_millis(1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_is_whole_and_exact() {
    let t = Arc::new(Setup::new());
    let (acknowledged, is_over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
    let worker = tokio::spawn({
        let (t, acknowledged, is_over) = (Arc::clone(&t), Arc::clone(&acknowledged), Arc::clone(&is_over));
        async move { work(&t, &acknowledged, &is_over).await }
    });
    let outer = TempDir::new().expect("a directory");
    for round in 0..5 {
        let wanted = 10 * (round + 1);
        until("work to be done", async || acknowledged.lock().expect("no panic").len() >= wanted).await;
        let before: Vec<JobId> = acknowledged.lock().expect("no panic").clone();
        let (saved, data) = (outer.path().join(format!("saved-{round}")), outer.path().join(format!("data-{round}")));
        let made = tokio::task::spawn_blocking({
            let (from, to) = (t.dir.path().to_owned(), saved.clone());
            move || backup(&from, &to)
        });
        assert_eq!(made.await.expect("no panic").findings, []);
        let (_, report) = verify(&saved);
        assert_eq!(found(&report), []);
        restore(&saved, &data);
        let queue = open(&data, &Clock::manual(t.clock.now()));
        for id in before {
            queue.input(id).await.expect("it was acknowledged before the backup began");
        }
        queue.close().await;
    }
    is_over.store(true, Ordering::Relaxed);
    worker.await.expect("no panic");
}

#[tokio::test]
async fn files_wait_for_the_end_of_a_backup() {
    let t = Setup::new();
    t.submit(NewJob { input: t.staged(1).await, ..job("f") }).await;
    t.succeed(t.lease("f", 1).await.remove(0), inline(b"done")).await;
    t.clock.advance(Duration::from_secs(1));
    let outer = TempDir::new().expect("a directory");
    let keep = vec![(name("f"), Keep { succeeded: Duration::ZERO, failed: Duration::ZERO })];
    let (queue, handle, mut swept) = (Arc::clone(&t.queue), tokio::runtime::Handle::current(), false);
    let (data, saved) = (t.dir.path().to_owned(), outer.path().join("saved"));
    let copying = tokio::task::spawn_blocking(move || {
        create_backup(&data, &saved, &mut |progress| {
            // The snapshot is taken and names the file, which is not copied yet.
            if progress.doing == "copying the database" && !swept {
                swept = true;
                handle.block_on(queue.sweep(&keep, 10)).expect("sweeps");
            }
        })
    });
    let made = copying.await.expect("no panic").expect("a backup");
    assert_eq!((made.label.files, made.label.jobs["succeeded"], made.findings.len()), (1, 1, 0));
    assert!(t.queue.stats().functions.is_empty(), "it was forgotten meanwhile");
    assert_eq!(crate::setup::files_in(t.queue.blobs()).len(), 1, "its file waits");
    t.submit(job("f")).await;
    until("the file goes with the next batch", async || crate::setup::files_in(t.queue.blobs()).is_empty()).await;
}

#[tokio::test]
async fn a_file_that_was_lost_is_named_and_the_rest_is_saved() {
    let (t, ids) = filled().await;
    let input = t.queue.input(ids[3]).await.expect("there").payload;
    let kvern_queue::Payload::Blob(blob) = input else { panic!("it is large enough for a file") };
    std::fs::remove_file(&blob.path).expect("there");
    let outer = TempDir::new().expect("a directory");
    let made = backup(t.dir.path(), &outer.path().join("saved"));
    assert_eq!(made.findings.iter().map(|finding| finding.job).collect::<Vec<_>>(), [Some(ids[3])]);
    let (_, report) = verify(&outer.path().join("saved"));
    assert_eq!(found(&report), [("input", Some(ids[3]))]);
}

#[tokio::test]
async fn nothing_is_written_where_something_is() {
    let (t, _) = filled().await;
    let outer = TempDir::new().expect("a directory");
    let saved = outer.path().join("saved");
    backup(t.dir.path(), &saved);
    let create = |dir: &Path| create_backup(t.dir.path(), dir, &mut |_| {}).expect_err("it must not be made");
    let again = create(&saved);
    assert!(
        again.to_string().ends_with("holds a backup already; choose another directory, or an empty one"),
        "{again}"
    );
    let onto = create(t.dir.path());
    assert!(matches!(onto, BackupError::Inside { .. }), "{onto:?}");
    for inside in ["backup", "blobs/deeper/backup"] {
        let error = create(&t.dir.path().join(inside));
        assert!(matches!(error, BackupError::Inside { .. }) && !t.dir.path().join("backup").exists(), "{error:?}");
    }
    let full = outer.path().join("full");
    std::fs::create_dir(&full).expect("a directory");
    std::fs::write(full.join("notes"), b"mine").expect("written");
    for refused in [create(&full), restore_backup(&saved, &full, &mut |_| {}).expect_err("it is not empty")] {
        assert!(matches!(refused, BackupError::NotEmpty { what: "is not empty", .. }), "{refused:?}");
    }
    let over = restore_backup(&saved, t.dir.path(), &mut |_| {}).expect_err("a server works there");
    assert!(matches!(over, BackupError::NotEmpty { what: "holds the jobs of a server", .. }), "{over:?}");
    assert_eq!(crate::setup::files_in(&full).len(), 1);
}

#[tokio::test]
async fn a_backup_that_was_cut_off_is_none() {
    let (t, _) = filled().await;
    let outer = TempDir::new().expect("a directory");
    let saved = outer.path().join("saved");
    backup(t.dir.path(), &saved);
    // As a kill before the last step leaves it.
    std::fs::remove_file(saved.join("backup.json")).expect("there");
    std::fs::rename(saved.join("queue.db"), saved.join("queue.partial")).expect("there");
    let refused = verify_backup(&saved, &mut |_| {}).expect_err("it is not finished");
    assert!(matches!(refused, BackupError::Unfinished { .. }), "{refused:?}");
    let data = outer.path().join("data");
    let refused = restore_backup(&saved, &data, &mut |_| {}).expect_err("it is not finished");
    assert!(matches!(refused, BackupError::Unfinished { .. }) && !data.exists(), "{refused:?}");
    // The same is what a restore that was cut off looks like: no server may take it for an empty queue.
    let options = Options { dir: saved.clone(), clock: Clock::manual(EPOCH) };
    let refused = SqliteQueue::open(options).expect_err("it is not finished");
    assert!(matches!(refused, OpenError::Unfinished { .. }), "{refused:?}");
    let refused = create_backup(t.dir.path(), &saved, &mut |_| {}).expect_err("it is not empty");
    assert!(refused.to_string().contains("was begun and not finished: remove it"), "{refused}");
    let nothing = verify_backup(t.dir.path(), &mut |_| {}).expect_err("that is no backup");
    assert!(matches!(nothing, BackupError::NoBackup { .. }), "{nothing:?}");
}

#[tokio::test]
async fn no_server_works_in_a_backup() {
    let (t, _) = filled().await;
    let outer = TempDir::new().expect("a directory");
    let saved = outer.path().join("saved");
    backup(t.dir.path(), &saved);
    let refused = SqliteQueue::open(Options { dir: saved, clock: Clock::manual(EPOCH) }).expect_err("it is a backup");
    assert!(matches!(refused, OpenError::Backup { .. }), "{refused:?}");
}

#[tokio::test]
async fn flipped_bytes_in_a_backup_are_found_and_not_restored() {
    let (t, _) = filled().await;
    let outer = TempDir::new().expect("a directory");
    let saved = outer.path().join("saved");
    backup(t.dir.path(), &saved);
    let path = saved.join("queue.db");
    let whole = std::fs::read(&path).expect("there");
    for at in (0..whole.len()).step_by(whole.len() / 10) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).expect("written");
        let is_told = verify_backup(&saved, &mut |_| {}).map_or(true, |(_, report)| report.is_damaged);
        assert!(is_told, "byte {at}");
        let data = outer.path().join("data");
        let refused = restore_backup(&saved, &data, &mut |_| {}).expect_err("it is damaged");
        assert!(matches!(refused, BackupError::Damaged { .. }) && !data.exists(), "{refused:?}");
    }
    std::fs::write(&path, whole).expect("written");
    let blob = crate::setup::files_in(&saved.join("blobs")).remove(0);
    std::fs::write(&blob, b"short").expect("written");
    let (_, report) = verify(&saved);
    assert!(report.is_damaged && report.findings[0].job.is_some(), "{report:?}");
    // One lost payload keeps nobody from the other jobs.
    let restored = restore_backup(&saved, &outer.path().join("data"), &mut |_| {}).expect("the rest is whole");
    assert_eq!(restored.findings.len(), 1);
}

#[tokio::test]
async fn newer_backups_are_refused() {
    let (t, _) = filled().await;
    let outer = TempDir::new().expect("a directory");
    let saved = outer.path().join("saved");
    backup(t.dir.path(), &saved);
    let label = std::fs::read_to_string(saved.join("backup.json")).expect("there");
    for (ours, theirs) in [("\"format\": 1", "\"format\": 2"), ("\"schema\": 1", "\"schema\": 1000")] {
        let newer = label.replace(ours, theirs);
        assert_ne!(newer, label, "{ours}");
        std::fs::write(saved.join("backup.json"), newer).expect("written");
        let refused = restore_backup(&saved, &outer.path().join("data"), &mut |_| {}).expect_err("it is newer");
        assert!(matches!(refused, BackupError::Newer { .. }), "{refused:?}");
    }
    std::fs::write(saved.join("backup.json"), &label[..label.len() / 2]).expect("written");
    let refused = verify_backup(&saved, &mut |_| {}).expect_err("its label is cut off");
    assert!(matches!(refused, BackupError::Damaged { .. }), "{refused:?}");
}
