//! A write or a sync that fails: the store is sealed, those who wait hear "unknown", and what was acknowledged is kept.
//!
//! For the write, the log is made immutable under the server. That needs root and ext4 or XFS. For the sync, `strace`
//! answers in the place of the kernel, once. What is missing is skipped, loudly.

use std::fs::File;
use std::process::Command;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use kvern_core::State;
use kvern_queue::{Error, Queue};
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use crate::setup::{Setup, inline, job, success};

/// The log, immutable until this is dropped.
struct Immutable(File, IFlags);

impl Immutable {
    #[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
    fn log_of(t: &Setup) -> Option<Self> {
        let log = File::open(t.dir.path().join("queue.db-wal")).expect("a queue has a log");
        let set = ioctl_getflags(&log).and_then(|flags| {
            ioctl_setflags(&log, flags | IFlags::IMMUTABLE)?;
            Ok(flags)
        });
        if let Ok(flags) = set {
            return Some(Self(log, flags));
        }
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI must be root on ext4 or XFS");
        eprintln!("SKIPPED: this test makes a file immutable, which needs root and ext4 or XFS");
        None
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        let _ = ioctl_setflags(&self.0, self.1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_write_seals_the_store_and_loses_nothing() {
    let t = Setup::new();
    let (running, queued) = (t.submit(job("f")).await, t.submit(job("f")).await);
    let leased = t.lease("f", 1).await.remove(0);
    let settlement = success(&leased.job, inline(b"too late"));
    let Some(immutable) = Immutable::log_of(&t) else { return };

    let refused = t.queue.submit(job("f")).await;
    assert!(matches!(refused, Err(Error::Unknown(_))), "{refused:?}");
    assert!(matches!(t.queue.health(), Err(Error::Closed(why)) if why.contains("failed")));
    assert!(matches!(t.queue.submit(job("f")).await, Err(Error::Closed(_))));
    assert!(matches!(t.queue.settle(leased.lease, settlement).await, Err(Error::Closed(_))));
    let wants = vec![kvern_queue::Want { function: crate::setup::name("f"), slots: 1 }];
    let ask = kvern_queue::Ask { worker: "w".to_owned(), wants, max: 1, wait: Duration::from_secs(60) };
    assert!(matches!(t.queue.lease(ask).await, Err(Error::Closed(_))), "nobody waits at a sealed store");

    drop(immutable);
    assert!(matches!(t.queue.submit(job("f")).await, Err(Error::Closed(_))), "it stays sealed");
    let t = t.kill();
    assert_eq!((t.state(running).await, t.state(queued).await), (State::Queued, State::Queued));
    assert_eq!(t.lease("f", 9).await.len(), 2, "the refused job was not kept");
}

/// The writer wakes whoever waits for it, and whoever waits like this makes it panic.
struct Panic;

impl Wake for Panic {
    fn wake(self: Arc<Self>) {
        panic!("a failpoint: the writer panics after a commit, while it answers");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_panics_seals_the_store_and_loses_nothing() {
    let t = Setup::new();
    let before = t.submit(job("f")).await;
    let waker = Waker::from(Arc::new(Panic));
    let mut unlucky = Box::pin(t.queue.submit(job("f")));
    assert!(unlucky.as_mut().poll(&mut Context::from_waker(&waker)).is_pending(), "a commit takes its time");
    let error = tokio::time::timeout(Duration::from_secs(30), t.queue.closed()).await.expect("the server hears of it");
    assert!(matches!(&error, Error::Closed(why) if why.contains("its writer ended")), "{error}");
    assert!(matches!(t.queue.health(), Err(Error::Closed(_))));
    // Unknown, if it came in while the inbox was being closed.
    let late = t.queue.submit(job("f")).await;
    assert!(matches!(late, Err(Error::Closed(_) | Error::Unknown(_))), "nothing is acknowledged any more: {late:?}");
    // Its answer was under way, after the commit.
    let told = unlucky.await.map(|submitted| submitted.id);
    assert!(matches!(told, Ok(_) | Err(Error::Unknown(_))), "{told:?}");
    let t = t.kill();
    for id in [before].into_iter().chain(told.ok()) {
        assert_eq!(t.state(id).await, State::Queued);
    }
}

/// The sync of the writer that fails, and more submits than that.
const FAILING_SYNC: u32 = 20;
const SUBMITS_MAX: u32 = 2 * FAILING_SYNC;

#[test]
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
fn a_failed_sync_seals_the_store_and_loses_nothing() {
    let own = std::env::current_exe().expect("a test has a path");
    let inject = format!("inject=fdatasync:error=EIO:when={FAILING_SYNC}");
    let mut traced = Command::new("strace");
    traced.args(["-f", "-q", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", &inject]).arg(own);
    traced.args(["--exact", "sealed::where_one_sync_fails", "--ignored"]);
    let Ok(traced) = traced.output() else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI must have strace");
        eprintln!("SKIPPED: this test makes a sync fail, which needs strace");
        return;
    };
    let said = String::from_utf8_lossy(&traced.stdout);
    assert!(traced.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "is run under strace by the test above"]
async fn where_one_sync_fails() {
    let t = Setup::new();
    let mut accepted = Vec::new();
    let mut refused = None;
    while refused.is_none() && accepted.len() < SUBMITS_MAX as usize {
        match t.queue.submit(job("f")).await {
            Ok(submitted) => accepted.push(submitted.id),
            Err(error) => refused = Some(error),
        }
    }
    assert!(refused.is_some(), "a sync failed, and nobody heard of it");
    assert!(matches!(refused, Some(Error::Unknown(_))), "{refused:?}");
    assert!(matches!(t.queue.health(), Err(Error::Closed(why)) if why.contains("failed")));
    assert!(matches!(t.queue.submit(job("f")).await, Err(Error::Closed(_))), "the next sync would succeed");
    let t = t.kill();
    for id in accepted {
        assert_eq!(t.state(id).await, State::Queued);
    }
}
