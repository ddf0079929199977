//! The embedded queue as a subject of the suites, on a disk that can be cut off and filled.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use kvern_queue::conformance::Subject;
use kvern_queue::{Clock, Queue};
use kvern_queue_sqlite::{Bounds, Options, SqliteQueue};
use tempfile::TempDir;

use crate::disk::SmallDisk;
use crate::setup::{EPOCH, bounds, files_in};

const MIB: u64 = 1 << 20;
/// Jobs are accepted on a disk of this size, and not on one of the smaller size, however little is used of them.
const DISK_MIB: u32 = 512;
const FULL_DISK_MIB: u32 = 24;
const FREE_BYTES_MIN: u64 = 128 * MIB;
/// What reaches a disk as a whole, or not.
const SECTOR_BYTES: usize = 512;

/// The queue given last, and its directory.
pub(crate) struct Sqlite {
    clock: Clock,
    disk: Option<SmallDisk>,
    current: Mutex<Option<(Arc<SqliteQueue>, TempDir)>>,
    noted: Mutex<Noted>,
}

/// The log as it was, and how often it had been copied.
#[derive(Default)]
struct Noted {
    log: Vec<u8>,
    checkpoints: u64,
}

// === impl Sqlite ===

impl Sqlite {
    pub(crate) fn new() -> Self {
        Self { clock: Clock::manual(EPOCH), disk: None, current: Mutex::default(), noted: Mutex::default() }
    }

    /// On a disk that can be full, if this machine lets us make one.
    pub(crate) fn on_small_disk() -> Self {
        Self { disk: SmallDisk::mount_of(DISK_MIB), ..Self::new() }
    }

    fn new_dir(&self) -> TempDir {
        let made = self.disk.as_ref().map_or_else(TempDir::new, |disk| TempDir::new_in(disk.path()));
        made.expect("a directory")
    }

    fn open_in(&self, dir: TempDir) -> Arc<dyn Queue> {
        let bounds = match self.disk {
            Some(_) => {
                Bounds { free_bytes_min: FREE_BYTES_MIN, reserve_bytes: MIB, look_every: Duration::ZERO, ..bounds() }
            }
            None => bounds(),
        };
        let options = Options { dir: dir.path().to_owned(), clock: self.clock.clone() };
        let queue = SqliteQueue::open_within(options, &bounds).expect("the directory opens");
        *self.current.lock().expect("no test panics here") = Some((Arc::clone(&queue), dir));
        queue
    }

    /// Kills the queue given last.
    fn kill(&self, queue: Arc<dyn Queue>) -> TempDir {
        drop(queue);
        let (old, dir) = self.current.lock().expect("no test panics here").take().expect("a queue is open");
        old.crash();
        dir
    }

    fn look<T: Default>(&self, look: impl FnOnce(&SqliteQueue, &TempDir) -> T) -> T {
        let current = self.current.lock().expect("no test panics here");
        current.as_ref().map(|(queue, dir)| look(queue, dir)).unwrap_or_default()
    }
}

#[async_trait]
impl Subject for Sqlite {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    async fn open(&self) -> Arc<dyn Queue> {
        self.open_in(self.new_dir())
    }

    async fn reopen(&self, queue: Arc<dyn Queue>) -> Arc<dyn Queue> {
        let dir = self.kill(queue);
        self.open_in(dir)
    }

    fn note_disk(&self) {
        let noted = self.look(|queue, dir| Noted {
            log: fs::read(dir.path().join("queue.db-wal")).expect("a queue has a log"),
            checkpoints: queue.commits().checkpoints,
        });
        *self.noted.lock().expect("no test panics here") = noted;
    }

    /// Of the sectors of the log that were written since, some are as before. Where the log was copied in between, it had
    /// been synced. A copy, because SQLite shares the index of the log, which nobody syncs, with every connection of this
    /// process to the same file, and the dead queue's cleaner may have one still.
    async fn cut_power(&self, queue: Arc<dyn Queue>, seed: u64) -> Arc<dyn Queue> {
        let noted = std::mem::take(&mut *self.noted.lock().expect("no test panics here"));
        let was_copied = self.look(|queue, _| queue.commits().checkpoints) > noted.checkpoints;
        let (dead, dir) = (self.kill(queue), self.new_dir());
        let log = fs::read(dead.path().join("queue.db-wal")).expect("a queue has a log");
        let left = if was_copied { log } else { torn(&noted.log, &log, seed) };
        fs::write(dir.path().join("queue.db-wal"), left).expect("writes");
        fs::copy(dead.path().join("queue.db"), dir.path().join("queue.db")).expect("copies");
        fs::rename(dead.path().join("blobs"), dir.path().join("blobs")).expect("moves");
        self.open_in(dir)
    }

    fn set_full(&self, is_full: bool) -> bool {
        let Some(disk) = &self.disk else { return false };
        disk.resize(if is_full { FULL_DISK_MIB } else { DISK_MIB });
        true
    }

    fn clock(&self) -> Clock {
        self.clock.clone()
    }

    fn files(&self) -> Vec<PathBuf> {
        self.look(|queue, _| files_in(queue.blobs()))
    }
}

/// What is left of a file that was being written: each sector is as it was before or as it is after, and the file ends
/// where a sector that was written last ends.
fn torn(before: &[u8], after: &[u8], seed: u64) -> Vec<u8> {
    let mut torn = before.to_vec();
    for (at, sector) in after.chunks(SECTOR_BYTES).enumerate() {
        // A quarter of the seeds lose nothing, as of a cut that came a moment too late.
        let is_written = seed.is_multiple_of(4) || splitmix(seed.wrapping_add(at as u64)) % 8 > seed % 8;
        if is_written {
            let from = at * SECTOR_BYTES;
            torn.resize(torn.len().max(from + sector.len()), 0);
            torn[from..from + sector.len()].copy_from_slice(sector);
        }
    }
    torn
}

/// `SplitMix64` of one number.
fn splitmix(number: u64) -> u64 {
    let z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
