//! Room on the disk: a floor below which submits are refused, and a reserve that is freed so that settlements still work.
//!
//! The database never shrinks: what forgotten jobs leave behind are free pages in it, and new jobs go there. So they count
//! as room, or a disk that was filled once would refuse jobs for ever. Only the writer can count them.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kvern_core::Size;
use kvern_core::limits::FREE_BYTES_MIN;
use kvern_queue::Error;
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::open::Bounds;
use crate::wal::WAL_BYTES_MAX;

/// Size of the file that is removed to make room for settlements when the disk is full.
pub const RESERVE_BYTES: u64 = 8 << 20;
/// How often the free space is looked at, unless what was written since may have used it up.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the log says that the disk is full, while it is.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
/// This part of the floor must be free on the disk itself, however many pages of the database are: its log, and the files
/// of large results, go nowhere else.
const DISK_PART: u64 = 4;

const _: () = assert!(WAL_BYTES_MAX <= FREE_BYTES_MIN / DISK_PART, "the log has room to grow to where it is copied");

/// Watches the disk of the data directory.
#[derive(Debug)]
pub(crate) struct Space {
    dir: PathBuf,
    bounds: Bounds,
    has_reserve: bool,
    looked_at: Instant,
    counted_at: Instant,
    complained_at: Option<Instant>,
    /// As it was at the last look.
    free_bytes: u64,
    /// Free pages of the database, as they were at the last count.
    reusable_bytes: u64,
    /// Since the last look.
    written_bytes: u64,
    is_low: bool,
}

impl Space {
    /// Watches a directory with a database that has so many bytes in free pages, and sets the reserve aside, if there is
    /// room for it.
    pub(crate) fn new(dir: &Path, bounds: Bounds, reusable_bytes: u64) -> Self {
        let mut space = Self {
            dir: dir.to_owned(),
            bounds,
            has_reserve: reserve_path(dir).exists(),
            looked_at: Instant::now(),
            counted_at: Instant::now(),
            complained_at: None,
            free_bytes: 0,
            reusable_bytes,
            written_bytes: 0,
            is_low: false,
        };
        space.refresh();
        if let Err(error) = space.room() {
            tracing::warn!(%error, "new jobs are refused until there is more room");
        }
        space
    }

    /// So many bytes are about to be written. Whether there is too little room for new jobs with them. `count` gives the
    /// bytes in free pages of the database.
    pub(crate) fn take(&mut self, bytes: u64, count: impl FnOnce() -> u64) -> bool {
        self.written_bytes = self.written_bytes.saturating_add(bytes);
        // A look at the file system costs less than a job that is refused without need.
        if self.counted_at.elapsed() >= self.bounds.look_every || (!self.is_low && self.is_used_up()) {
            self.counted_at = Instant::now();
            self.reusable_bytes = count();
            self.refresh();
            self.written_bytes = bytes;
            self.is_low = self.is_used_up();
        }
        self.is_low
    }

    /// A batch is over: what it freed in the database may be the room that was missing.
    pub(crate) fn give(&mut self, count: impl FnOnce() -> u64) {
        if !self.is_low {
            return;
        }
        let reusable_bytes = count();
        if reusable_bytes > self.reusable_bytes {
            self.reusable_bytes = reusable_bytes;
            self.is_low = self.is_used_up();
        }
    }

    /// # Errors
    /// [`Error::NoSpace`] while new jobs are refused, with what is free and what is needed.
    pub(crate) fn room(&mut self) -> Result<(), Error> {
        if self.looked_at.elapsed() >= self.bounds.look_every {
            self.look();
        }
        if self.is_low { Err(self.no_space()) } else { Ok(()) }
    }

    /// Why a job is refused.
    pub(crate) fn no_space(&self) -> Error {
        let (free, least) = (Size(self.free_bytes), Size(self.least()));
        Error::NoSpace(format!("{free} are free on the disk of the data directory; jobs are accepted from {least}"))
    }

    /// The disk is full: gives the reserve away. False if it was given away before.
    pub(crate) fn free_reserve(&mut self) -> bool {
        self.is_low = true;
        // Nothing for us, whatever the last look found.
        self.free_bytes = 0;
        (self.looked_at, self.counted_at) = (Instant::now(), Instant::now());
        std::mem::take(&mut self.has_reserve) && free_reserve(&self.dir)
    }

    /// Whether it is time to log that the disk is full.
    pub(crate) fn complains(&mut self) -> bool {
        let is_time = self.complained_at.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY);
        if is_time {
            self.complained_at = Some(Instant::now());
        }
        is_time
    }

    fn is_used_up(&self) -> bool {
        self.free_bytes.saturating_sub(self.written_bytes) < self.least()
    }

    /// What must be free on the disk: the floor, less what jobs find in the database.
    fn least(&self) -> u64 {
        // Whole MiB: it is told to people.
        let reusable_bytes = self.reusable_bytes >> 20 << 20;
        let least = self.bounds.free_bytes_min.saturating_sub(reusable_bytes);
        least.max(self.bounds.free_bytes_min / DISK_PART)
    }

    /// Looks at the disk, and sets the reserve aside once there is room for it again.
    fn refresh(&mut self) {
        self.look();
        self.keep_reserve();
    }

    /// Looks, and writes nothing.
    fn look(&mut self) {
        self.looked_at = Instant::now();
        // A file system that cannot say is not full.
        self.free_bytes = statvfs(&self.dir).map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        self.written_bytes = 0;
        self.is_low = self.is_used_up();
    }

    fn keep_reserve(&mut self) {
        if !self.has_reserve
            && self.free_bytes > self.bounds.free_bytes_min.saturating_add(2 * self.bounds.reserve_bytes)
        {
            self.has_reserve = set_aside(&reserve_path(&self.dir), self.bounds.reserve_bytes);
        }
    }
}

/// Gives the reserve of a directory away. False if there is none.
pub(crate) fn free_reserve(dir: &Path) -> bool {
    std::fs::remove_file(reserve_path(dir)).is_ok()
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
