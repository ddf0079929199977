//! The write-ahead log of the database: how long it is, and when it is copied into the database.
//!
//! Only the writer's connection copies it, between two batches, so no commit waits behind a copy that it caused. Once
//! all of it is copied, the next commit begins the log anew and overwrites the file in place: a file that does not grow
//! is synced faster.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use kvern_queue::Error;
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, Result as SqlResult};

use crate::commits::Commits;
use crate::full::is_full_for;

/// The log is copied when it has this many pages (4 KiB each). Commits wait for a copy, so it is the slowest hundredth of
/// the answers that this decides: measured at 75,000 jobs a second, 256, 512, 1024 and 4096 pages gave them 3.6, 2.9, 3.7
/// and 7.6 ms; with fewer than 1024, fewer jobs were accepted.
const PAGES_MAX: u32 = 1024;
/// Its size then.
pub(crate) const WAL_BYTES_MAX: u64 = PAGES_MAX as u64 * 4096;
/// A log that a reader keeps from being begun anew is copied again after this many pages more.
const PAGES_MORE: u32 = PAGES_MAX / 4;

/// Copies a log of the life before, so that the first commit begins it anew.
///
/// What that life wrote last it may have failed to sync. Then the kernel shows those bytes as if they were stored, syncs
/// without complaint, and loses them in a power cut; and with them everything that stands behind them in the log, for
/// that is read up to the first gap. Copied, they are written once more.
pub(crate) fn settle(connection: &Connection) -> SqlResult<()> {
    match connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::PASSIVE) {
        // As in `copy_if_long`: the log keeps what the database has no room for.
        Err(error) if !is_full_for(&error, connection) => Err(error),
        _ => Ok(()),
    }
}

/// The log as the writer sees it.
#[derive(Debug)]
pub(crate) struct Log {
    /// Pages after the last commit.
    pages: Arc<AtomicU32>,
    copy_at: u32,
}

// === impl Log ===

impl Log {
    /// Watches the log of the writer's connection.
    pub(crate) fn watch(connection: &mut Connection) -> SqlResult<Self> {
        let pages = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&pages);
        let count = move |_: &mut rusqlite::hooks::Wal, pages: std::ffi::c_int| {
            counted.store(pages.unsigned_abs(), Ordering::Relaxed);
            Ok(())
        };
        connection.wal_hook(Some(count))?;
        Ok(Self { pages, copy_at: PAGES_MAX })
    }

    /// Copies the log when it has grown enough. An error is the end of the store: pages that failed to reach the disk
    /// may be lost, and asking again would hide that.
    pub(crate) fn copy_if_long(&mut self, connection: &Connection, commits: &Commits) -> Result<(), Error> {
        if self.pages.load(Ordering::Relaxed) < self.copy_at {
            return Ok(());
        }
        match self.copy(connection, commits) {
            // The log keeps what the database has no room for.
            Err(error) if !is_full_for(&error, connection) => {
                Err(Error::Closed(format!("the store failed while it copied its log: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// Copies what no reader holds back.
    pub(crate) fn copy(&mut self, connection: &Connection, commits: &Commits) -> SqlResult<()> {
        let began = Instant::now();
        let copied = connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::PASSIVE);
        commits.count_checkpoint(began.elapsed());
        self.pages.store(0, Ordering::Relaxed);
        let whole = copied.as_ref().is_ok_and(|(pages, copied)| pages == copied);
        let pages = copied.as_ref().map_or(0, |(pages, _)| pages.unsigned_abs());
        self.copy_at = if whole { PAGES_MAX } else { pages.max(PAGES_MAX) + PAGES_MORE };
        copied.map(drop)
    }
}
