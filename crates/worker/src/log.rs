//! The log of one attempt: its head and its tail are kept, what falls out between them is counted.
//!
//! What the head holds goes to the queue while the attempt runs, so that it can be followed; the rest goes with the
//! settlement.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use kvern_core::limits::{LOG_HEAD_BYTES_MAX, LOG_TAIL_BYTES_MAX};
use kvern_core::{FunctionName, JobId};
use kvern_runtime::Log;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::observer::Observer;

/// A log line is seen by a follower at most this much later.
const FOLLOW_EVERY: Duration = Duration::from_millis(250);
/// More than this goes to the queue sooner, so that 256 attempts which print much stay small in memory.
const PENDING_BYTES_MAX: usize = 64 << 10;

/// Takes what an attempt prints.
pub(crate) struct AttemptLog {
    kept: Mutex<Kept>,
    news: Notify,
    observer: Arc<dyn Observer>,
    function: FunctionName,
    job: Option<JobId>,
}

/// What is kept of a log. Pure.
#[derive(Debug, Default)]
struct Kept {
    /// The head, as far as it is not taken yet.
    pending: Vec<u8>,
    /// When `pending` got its first byte.
    since: Option<Instant>,
    /// Bytes of the head, taken or not.
    head_bytes: usize,
    /// The last bytes after the head.
    tail: VecDeque<u8>,
    /// Bytes between head and tail.
    dropped_bytes: u64,
}

// === impl AttemptLog ===

impl AttemptLog {
    /// An empty log. `job` is none for a call, whose log is only told to the observer.
    pub(crate) fn new(observer: Arc<dyn Observer>, function: FunctionName, job: Option<JobId>) -> Self {
        Self { kept: Mutex::default(), news: Notify::new(), observer, function, job }
    }

    /// Returns when something should be sent to the queue. May be dropped and called again.
    pub(crate) async fn ripe(&self) {
        loop {
            let at = {
                let kept = self.lock();
                if kept.pending.len() >= PENDING_BYTES_MAX {
                    return;
                }
                kept.since.map(|since| since + FOLLOW_EVERY)
            };
            match at {
                None => self.news.notified().await,
                Some(at) => tokio::select! {
                    biased;
                    // Both only wait: what they wait for is looked up again.
                    () = sleep_until(at) => return,
                    () = self.news.notified() => {}
                },
            }
        }
    }

    /// What is to be sent to the queue now.
    pub(crate) fn take_pending(&self) -> Bytes {
        self.lock().take_pending()
    }

    /// All that was not taken: for the settlement.
    pub(crate) fn take_rest(&self) -> Bytes {
        self.lock().take_rest()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing here panics midway, so a poisoned lock still guards whole data.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for AttemptLog {
    fn write(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.observer.printed(&self.function, self.job, bytes);
        if self.job.is_none() {
            return;
        }
        let mut kept = self.lock();
        let before = kept.pending.len();
        kept.add(bytes);
        let after = kept.pending.len();
        if before == 0 && after > 0 {
            kept.since = Some(Instant::now());
        }
        drop(kept);
        if (before == 0 && after > 0) || (before < PENDING_BYTES_MAX && after >= PENDING_BYTES_MAX) {
            self.news.notify_one();
        }
    }
}

// === impl Kept ===

impl Kept {
    fn add(&mut self, bytes: &[u8]) {
        let room = LOG_HEAD_BYTES_MAX - self.head_bytes;
        let (head, rest) = bytes.split_at(room.min(bytes.len()));
        self.pending.extend_from_slice(head);
        self.head_bytes += head.len();

        let (skipped, last) = rest.split_at(rest.len().saturating_sub(LOG_TAIL_BYTES_MAX));
        let excess = (self.tail.len() + last.len()).saturating_sub(LOG_TAIL_BYTES_MAX);
        self.tail.drain(..excess);
        self.tail.extend(last);
        self.dropped_bytes += (excess + skipped.len()) as u64;
    }

    fn take_pending(&mut self) -> Bytes {
        self.since = None;
        std::mem::take(&mut self.pending).into()
    }

    fn take_rest(&mut self) -> Bytes {
        if self.tail.is_empty() {
            return self.take_pending();
        }
        let mut rest = std::mem::take(&mut self.pending);
        if self.dropped_bytes > 0 {
            let line = format!("\n[kvern: {} bytes of this log were dropped here]\n", self.dropped_bytes);
            rest.extend_from_slice(line.as_bytes());
        }
        rest.extend(std::mem::take(&mut self.tail));
        rest.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_log_is_kept_whole() {
        let mut kept = Kept::default();
        kept.add(b"one\n");
        assert_eq!(kept.take_pending(), "one\n");
        kept.add(b"two\n");
        assert_eq!(kept.take_rest(), "two\n");
        assert!(kept.take_rest().is_empty());
    }

    #[test]
    fn a_log_between_head_and_tail_says_nothing_of_dropping() {
        let mut kept = Kept::default();
        kept.add(&vec![b'h'; LOG_HEAD_BYTES_MAX]);
        kept.add(b"tail");
        let rest = kept.take_rest();
        assert_eq!(rest.len(), LOG_HEAD_BYTES_MAX + 4);
        assert!(rest.ends_with(b"htail"));
    }

    #[test]
    fn a_gigabyte_is_bounded_and_counted() {
        let mut kept = Kept::default();
        let piece = vec![b'x'; 1 << 20];
        let mut taken = 0;
        for _ in 0..1024 {
            kept.add(&piece);
            taken += kept.take_pending().len();
            assert!(kept.tail.len() <= LOG_TAIL_BYTES_MAX);
        }
        kept.add(b"the end");
        assert_eq!(taken, LOG_HEAD_BYTES_MAX);
        let dropped = (1 << 30) + 7 - LOG_HEAD_BYTES_MAX - LOG_TAIL_BYTES_MAX;
        let rest = kept.take_rest();
        assert!(rest.ends_with(b"xthe end"));
        assert!(rest.starts_with(format!("\n[kvern: {dropped} bytes").as_bytes()));
        assert!(rest.len() < LOG_TAIL_BYTES_MAX + 100);
    }

    #[test]
    fn small_writes_roll_through_the_tail() {
        let mut kept = Kept::default();
        kept.add(&vec![b'h'; LOG_HEAD_BYTES_MAX]);
        for i in 0..20_000u32 {
            kept.add(format!("line {i}\n").as_bytes());
        }
        let rest = kept.take_rest();
        assert!(rest.ends_with(b"line 19998\nline 19999\n"));
        assert!(rest.len() < LOG_HEAD_BYTES_MAX + LOG_TAIL_BYTES_MAX + 100);
    }
}
