//! What the commits cost: counters that the gateway renders.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets of [`CommitStats::buckets`], in microseconds.
pub const BOUNDS_US: [u64; 12] = [50, 100, 200, 300, 500, 1_000, 2_000, 5_000, 10_000, 50_000, 250_000, 1_000_000];

/// Counters since the queue was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CommitStats {
    /// Times that the writer looked for something to do. Not many more than there were reasons to.
    pub rounds: u64,
    /// Commits; each is one fsync of the write-ahead log.
    pub commits: u64,
    /// Operations in them.
    pub operations: u64,
    /// Commits by the time they took, at most the bound of the same index in [`BOUNDS_US`]; the last has no bound.
    pub buckets: [u64; BOUNDS_US.len() + 1],
    /// The time they took together.
    pub took: Duration,
    /// Times that the write-ahead log was copied into the database; each is two fsyncs more.
    pub checkpoints: u64,
    /// The time that took.
    pub checkpoints_took: Duration,
}

/// The counters, kept by the writer alone and read by anyone.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    rounds: AtomicU64,
    commits: AtomicU64,
    operations: AtomicU64,
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    took_us: AtomicU64,
    checkpoints: AtomicU64,
    checkpoints_us: AtomicU64,
}

impl Commits {
    /// The writer looks for something to do.
    pub(crate) fn count_round(&self) {
        add(&self.rounds, 1);
    }

    /// A commit of so many operations took so long.
    pub(crate) fn count(&self, operations: usize, took: Duration) {
        let us = micros(took);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < us);
        add(&self.commits, 1);
        add(&self.operations, operations as u64);
        add(&self.buckets[bucket], 1);
        add(&self.took_us, us);
    }

    /// A checkpoint took so long.
    pub(crate) fn count_checkpoint(&self, took: Duration) {
        add(&self.checkpoints, 1);
        add(&self.checkpoints_us, micros(took));
    }

    /// The counters now.
    pub(crate) fn stats(&self) -> CommitStats {
        CommitStats {
            rounds: read(&self.rounds),
            commits: read(&self.commits),
            operations: read(&self.operations),
            buckets: std::array::from_fn(|at| read(&self.buckets[at])),
            took: Duration::from_micros(read(&self.took_us)),
            checkpoints: read(&self.checkpoints),
            checkpoints_took: Duration::from_micros(read(&self.checkpoints_us)),
        }
    }
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
