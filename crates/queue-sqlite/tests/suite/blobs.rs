//! Files of large payloads: there while a row names them, gone when none does.

use std::path::PathBuf;
use std::time::Duration;

use kvern_core::{Keep, limits};
use kvern_queue::{Error, Idempotency, NewJob, Payload, Queue};

use crate::setup::{Setup, files_in, inline, job, name, until};

fn path_of(payload: &Payload) -> PathBuf {
    match payload {
        Payload::Blob(blob) => blob.path.clone(),
        Payload::Inline(_) => panic!("it is large enough for a file"),
    }
}

#[tokio::test]
async fn a_restart_removes_files_that_no_job_names_and_no_other() {
    let t = Setup::new();
    let kept = t.staged(1).await;
    let lost = t.staged(2).await;
    let (kept_path, lost_path) = (path_of(&kept), path_of(&lost));
    let id = t.submit(NewJob { input: kept, ..job("f") }).await;
    // As a kill leaves it: nobody removes it.
    lost.staged().expect("a file").keep();
    let t = t.kill();
    until("the file without a job goes", async || !lost_path.exists()).await;
    assert!(kept_path.exists());
    let input = t.queue.input(id).await.expect("the input is there").payload;
    assert_eq!(path_of(&input), kept_path);
}

#[tokio::test]
async fn files_of_the_present_life_are_never_swept_away() {
    let t = Setup::new().kill();
    let staged = t.staged(3).await;
    let blobs = t.queue.blobs().to_owned();
    t.submit(job("f")).await;
    assert_eq!(files_in(&blobs), [path_of(&staged)]);
}

#[tokio::test]
async fn a_refused_or_repeated_submit_leaves_no_file() {
    let t = Setup::new();
    let idempotency = Some(Idempotency { key: [7; 16], body: [7; 16] });
    t.submit(NewJob { idempotency, ..job("f") }).await;

    let twin = NewJob { input: t.staged(4).await, idempotency, ..job("f") };
    assert!(t.queue.submit(twin).await.expect("a twin").duplicate);
    let full = NewJob { input: t.staged(5).await, max_queued: 1, ..job("f") };
    assert!(matches!(t.queue.submit(full).await, Err(Error::Full { .. })));
    until("their files go", async || files_in(t.queue.blobs()).is_empty()).await;
}

#[tokio::test]
async fn a_forgotten_job_takes_its_files_along() {
    let t = Setup::new();
    t.submit(NewJob { input: t.staged(6).await, ..job("f") }).await;
    let result = t.staged(7).await;
    t.succeed(t.lease("f", 1).await.remove(0), result).await;
    assert_eq!(files_in(t.queue.blobs()).len(), 2);
    t.clock.advance(Duration::from_secs(2));
    let keep = Keep { succeeded: Duration::from_secs(1), failed: Duration::from_secs(1), ..Keep::default() };
    let swept = t.queue.sweep(&vec![(name("f"), keep)], 10).await.expect("sweeps");
    assert_eq!(swept.forgotten, 1);
    until("its files go", async || files_in(t.queue.blobs()).is_empty()).await;
}

#[tokio::test]
async fn a_file_of_somebody_else_is_not_taken() {
    let t = Setup::new();
    let elsewhere = t.dir.path().join("elsewhere");
    std::fs::write(&elsewhere, b"mine").expect("writes");
    let blob = kvern_queue::Blob::new(elsewhere.clone(), 4, 0);
    let refused = t.queue.submit(NewJob { input: Payload::Blob(blob), ..job("f") }).await;
    assert!(matches!(refused, Err(Error::Broken(_))), "{refused:?}");
    assert!(elsewhere.exists());
    let large = Payload::Inline(vec![0; kvern_core::limits::INLINE_BYTES_MAX + 1].into());
    assert!(matches!(t.queue.submit(NewJob { input: large, ..job("f") }).await, Err(Error::TooLarge { .. })));
    t.submit(NewJob { input: inline(b""), ..job("f") }).await;
}

#[tokio::test]
async fn a_payload_that_the_disk_refuses_is_told_so_and_is_no_end() {
    let t = Setup::new();
    let folder = t.queue.blobs().to_owned();
    std::fs::remove_dir(&folder).expect("it is empty");
    let mut stage = t.queue.stage().await.expect("an open queue stages");
    let refused = stage.write(vec![7; limits::INLINE_BYTES_MAX + 1].into()).await;
    assert!(matches!(refused, Err(Error::Disk(_))), "{refused:?}");
    std::fs::create_dir(folder).expect("a folder");
    t.staged(1).await;
    t.submit(job("f")).await;
}
