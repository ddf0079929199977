//! A full disk: submits are refused and say so, settlements still work, and nothing acknowledged is lost.

use std::path::Path;
use std::time::Duration;

use kvern_core::{JobId, Keep, State};
use kvern_queue::{Clock, Error, Idempotency, Lease, LeaseState, LeaseToken, NewJob, Payload, Queue, Settlement};
use kvern_queue_sqlite::{Bounds, OpenError, Options, SqliteQueue};
use rusqlite::Connection;
use rustix::fs::statvfs;
use tempfile::TempDir;

use crate::chores::assert_calm;
use crate::disk::SmallDisk;
use crate::setup::{EPOCH, Setup, bounds, inline, job, keyed, name, success, until};

const MIB: u64 = 1 << 20;

fn open(dir: &Path, free_bytes_min: u64) -> Setup {
    let clock = Clock::manual(EPOCH);
    let options = Options { dir: dir.to_owned(), clock: clock.clone() };
    let bounds = Bounds { free_bytes_min, reserve_bytes: MIB, ..bounds() };
    let queue = SqliteQueue::open_within(options, &bounds).expect("the directory opens");
    Setup { queue, clock, dir: TempDir::new().expect("a directory") }
}

/// Takes all the room that is left, also what the reserve and the free pages still give: the log of a job takes that.
async fn use_up(disk: &SmallDisk, t: &Setup, token: LeaseToken) {
    disk.fill();
    for bytes in [50_000, 1000, 1] {
        while t.queue.append_log(token, vec![b'x'; bytes].into()).await.is_ok() {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_submits_and_takes_settlements() {
    let Some(disk) = SmallDisk::mount() else { return };
    let dir = disk.path().join("data");
    let t = open(&dir, 0);
    let mut accepted: Vec<JobId> = Vec::new();
    for number in 0..300 {
        accepted.push(t.submit(keyed("f", number)).await);
    }
    let leased = t.lease("f", 200).await;
    disk.fill();

    // What the log still holds of free pages is used up first.
    let refused = loop {
        match t.queue.submit(keyed("f", accepted.len() as u64)).await {
            Ok(submitted) => accepted.push(submitted.id),
            Err(error) => break error,
        }
    };
    assert!(matches!(&refused, Error::NoSpace(why) if why.starts_with("0 bytes are free")), "{refused:?}");
    t.queue.health().expect("a full disk is no reason to end");
    let mut settled = Vec::new();
    for one in leased {
        settled.push(one.job.id);
        t.succeed(one, inline(b"a result for the full disk")).await;
    }

    disk.make_room();
    let next = accepted.len() as u64;
    until("submits work again", async || match t.queue.submit(keyed("f", next)).await {
        Ok(submitted) => {
            assert!(!submitted.duplicate, "what was refused left no key");
            accepted.push(submitted.id);
            true
        }
        Err(_) => false,
    })
    .await;
    // Sorting goes on from where the last commit left it.
    for number in next + 1..next + 50 {
        accepted.push(t.submit(keyed("f", number)).await);
    }
    t.queue.crash();
    drop(t);
    let t = open(&dir, 0);
    for (number, id) in (0..).zip(accepted) {
        let twin = t.queue.submit(keyed("f", number)).await.expect("a twin needs no room");
        assert_eq!((twin.id, twin.duplicate), (id, true), "key {number}");
        let expected = if settled.contains(&id) { State::Succeeded } else { State::Queued };
        assert_eq!(t.state(id).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_without_room_may_be_tried_again() {
    let Some(disk) = SmallDisk::mount() else { return };
    let t = open(&disk.path().join("data"), 0);
    t.submit(job("f")).await;
    let leased = t.lease("f", 1).await.remove(0);
    let mut stage = t.queue.stage().await.expect("there is room");
    stage.write(vec![7; 200_000].into()).await.expect("there is room");
    let result = stage.finish().await.expect("there is room");
    let token = leased.lease.token();
    use_up(&disk, &t, token).await;

    let settlement = success(&leased.job, result.clone());
    let refused = t.queue.settle(leased.lease, settlement.clone()).await;
    assert!(matches!(refused, Err(Error::NoSpace(_))), "{refused:?}");
    disk.make_room();
    until("it is stored", async || t.queue.settle(Lease::new(token), settlement.clone()).await.is_ok()).await;
    let stored = t.queue.result(token.job).await.expect("the job is there").expect("it has a result");
    let Payload::Blob(blob) = stored.payload else { panic!("the result is a file") };
    blob.verify().await.expect("the file is still there, and whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_without_room_cancels_nothing() {
    let Some(disk) = SmallDisk::mount() else { return };
    let dir = disk.path().join("data");
    let t = open(&dir, 0);
    let id = t.submit(job("f")).await;
    let leased = t.lease("f", 1).await.remove(0);
    let token = leased.lease.token();
    // A cancel overwrites one page: it finds room while the log may begin anew, which a reader keeps it from.
    let reader = Connection::open(dir.join("queue.db")).expect("a database");
    reader.execute_batch("BEGIN; SELECT * FROM jobs").expect("reads");
    use_up(&disk, &t, token).await;

    assert!(matches!(t.queue.cancel(id).await, Err(Error::NoSpace(_))));
    assert!(!t.queue.get(id).await.expect("it is there").cancel_requested);
    assert_eq!(t.queue.renew(&[token]).await.expect("it is open"), [LeaseState::Held]);
    drop(reader);
    disk.make_room();
    until("it is marked", async || t.queue.cancel(id).await.is_ok()).await;
    assert!(t.queue.get(id).await.expect("it is there").cancel_requested);
    assert_eq!(t.queue.renew(&[token]).await.expect("it is open"), [LeaseState::CancelRequested]);
    let released = t.queue.settle(leased.lease, Settlement::Release).await;
    assert_eq!(released.expect("the lease stands"), State::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_does_not_keep_it_from_opening() {
    let Some(disk) = SmallDisk::mount() else { return };
    let dir = disk.path().join("data");
    let t = open(&dir, 0);
    let id = t.submit(job("f")).await;
    // In order: no log stays, and the first commit must make one.
    t.queue.close().await;
    drop(t);
    disk.fill();

    let t = open(&dir, 0);
    assert_eq!(t.lease("f", 1).await.remove(0).job.id, id);
    assert!(!dir.join("queue.reserve").exists(), "that is what the reserve is for");

    t.queue.close().await;
    drop(t);
    disk.fill();
    let refused = SqliteQueue::open(Options { dir: dir.clone(), clock: Clock::system() }).expect_err("no room at all");
    assert!(matches!(refused, OpenError::Full { .. }), "{refused:?}");
    disk.make_room();
    assert_eq!(open(&dir, 0).state(id).await, State::Queued);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_due_job_waits_for_room_in_peace() {
    let Some(disk) = SmallDisk::mount() else { return };
    let t = open(&disk.path().join("data"), 0);
    let due_at = EPOCH.after(Duration::from_secs(1));
    let scheduled = t.submit(NewJob { not_before: Some(due_at), ..job("f") }).await;
    t.submit(job("g")).await;
    let token = t.lease("g", 1).await.remove(0).lease.token();
    use_up(&disk, &t, token).await;

    t.clock.advance(Duration::from_secs(1));
    assert_calm(&t).await;
    t.queue.health().expect("a full disk is no reason to end");
    disk.make_room();
    until("it runs", async || t.lease("f", 1).await.iter().any(|leased| leased.job.id == scheduled)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_floor_submits_wait_for_room() {
    let Some(disk) = SmallDisk::mount() else { return };
    let t = open(&disk.path().join("data"), 4 * MIB);
    let keyed = |body| NewJob { idempotency: Some(Idempotency { key: [7; 16], body: [body; 16] }), ..job("f") };
    let id = t.submit(keyed(1)).await;
    disk.fill();
    until("the floor is noticed", async || matches!(t.queue.submit(job("f")).await, Err(Error::NoSpace(_)))).await;
    let refused = t.queue.room().expect_err("no job is accepted").to_string();
    assert!(refused.contains("4 MiB"), "{refused}");
    t.queue.health().expect("it has not ended");
    let twin = t.queue.submit(keyed(1)).await.expect("it is stored already");
    assert_eq!((twin.id, twin.duplicate), (id, true));
    assert!(matches!(t.queue.submit(keyed(2)).await, Err(Error::KeyReused(first)) if first == id));
    disk.make_room();
    until("there is room without a submit", async || t.queue.room().is_ok()).await;
    until("submits work again", async || t.queue.submit(job("f")).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_jobs_at_once_stop_at_the_floor() {
    let Some(disk) = SmallDisk::mount() else { return };
    for bytes in [60_000, 200_000] {
        let t = open(&disk.path().join(format!("data{bytes}")), 4 * MIB);
        // All within the second in which the free space need not be looked at.
        let refused = loop {
            let mut stage = t.queue.stage().await.expect("it is open");
            let staged = async {
                stage.write(vec![7; bytes].into()).await?;
                stage.finish().await
            };
            let input = staged.await.expect("the floor comes before the end of the disk");
            if let Err(error) = t.queue.submit(NewJob { input, ..job("f") }).await {
                break error;
            }
        };
        assert!(matches!(refused, Error::NoSpace(_)), "{refused:?}");
        // The log may be copied into the database after the last look.
        let disk = statvfs(disk.path()).expect("it is mounted");
        let free = disk.f_bavail * disk.f_frsize;
        assert!(free >= MIB, "only {free} bytes are free");
        let dir = t.queue.blobs().parent().expect("the data directory").to_owned();
        drop(t);
        std::fs::remove_dir_all(dir).expect("nobody uses it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_room_of_forgotten_jobs_is_room_for_new_ones() {
    // The log grows to 16 MiB before it is copied, and then the database by as much.
    let Some(disk) = SmallDisk::mount_of(96) else { return };
    let dir = disk.path().join("data");
    let t = open(&dir, 24 * MIB);
    let large = || NewJob { input: Payload::Inline(vec![7; 60_000].into()), ..job("f") };
    let fill = async || {
        let mut accepted = Vec::new();
        while let Ok(submitted) = t.queue.submit(large()).await {
            accepted.push(submitted.id);
        }
        accepted
    };
    let first = fill().await;
    assert!(matches!(t.queue.room(), Err(Error::NoSpace(_))));

    for id in &first {
        t.queue.cancel(*id).await.expect("it waits");
    }
    let at_once = vec![(name("f"), Keep { succeeded: Duration::ZERO, failed: Duration::ZERO, ..Keep::default() })];
    let swept = t.queue.sweep(&at_once, 10_000).await.expect("it is open");
    assert_eq!(swept.forgotten, first.len());
    t.queue.room().expect("the database has room");
    let second = fill().await;
    assert!(second.len() * 2 > first.len(), "{} jobs after {}", second.len(), first.len());

    t.queue.crash();
    let t = open(&dir, 24 * MIB);
    for id in second {
        assert_eq!(t.state(id).await, State::Queued);
    }
}
