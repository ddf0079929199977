//! Room on the disk: a floor below which submits are refused, and a reserve that is freed so that settlements still work.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// Submits are refused when less than this is free on the disk of the data directory.
pub const FREE_BYTES_MIN: u64 = 64 << 20;
/// Size of the file that is removed to make room for settlements when the disk is full.
pub const RESERVE_BYTES: u64 = 8 << 20;
/// How often the free space is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Watches the disk of the data directory.
#[derive(Debug)]
pub(crate) struct Space {
    dir: PathBuf,
    free_bytes_min: u64,
    reserve_bytes: u64,
    has_reserve: bool,
    looked_at: Option<Instant>,
    is_low: bool,
}

impl Space {
    /// Watches a directory and sets the reserve aside, if there is room for it.
    pub(crate) fn new(dir: &Path, free_bytes_min: u64, reserve_bytes: u64) -> Self {
        let mut space = Self {
            dir: dir.to_owned(),
            free_bytes_min,
            reserve_bytes,
            has_reserve: reserve_path(dir).exists(),
            looked_at: None,
            is_low: false,
        };
        space.look();
        space
    }

    /// Whether there is too little room for another job; asks the file system at most once a second.
    pub(crate) fn is_low(&mut self) -> bool {
        if self.looked_at.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            self.look();
        }
        self.is_low
    }

    /// The disk is full: gives the reserve away. False if it was given away before.
    pub(crate) fn free_reserve(&mut self) -> bool {
        self.is_low = true;
        self.looked_at = Some(Instant::now());
        let had = std::mem::take(&mut self.has_reserve);
        had && std::fs::remove_file(reserve_path(&self.dir)).is_ok()
    }

    fn look(&mut self) {
        self.looked_at = Some(Instant::now());
        // A file system that cannot say is not full.
        let free = statvfs(&self.dir).map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        self.is_low = free < self.free_bytes_min;
        if !self.has_reserve && free > self.free_bytes_min.saturating_add(2 * self.reserve_bytes) {
            self.has_reserve = set_aside(&reserve_path(&self.dir), self.reserve_bytes);
        }
    }
}

fn reserve_path(dir: &Path) -> PathBuf {
    dir.join("queue.reserve")
}

fn set_aside(path: &Path, bytes: u64) -> bool {
    let made = OpenOptions::new().write(true).create(true).truncate(true).open(path);
    let is_there = made.is_ok_and(|file| fallocate(&file, FallocateFlags::empty(), 0, bytes).is_ok());
    if !is_there {
        // No reserve is no reason not to start; the next look tries again.
        let _ = std::fs::remove_file(path);
    }
    is_there
}
