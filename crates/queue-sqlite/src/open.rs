//! Open: from a data directory to a running queue.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use kvern_core::limits::FREE_BYTES_MIN;
use kvern_queue::{Clock, Error};
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, Result as SqlResult};

use crate::arrivals::Moves;
use crate::backup::copy::is_begun;
use crate::backup::label::is_labelled;
use crate::blob::BlobDir;
use crate::error::OpenError;
use crate::full::is_full_for;
use crate::keys;
use crate::lock::Lock;
use crate::memory::Memory;
use crate::private::{make_database, make_dir, make_own_dir};
use crate::queue::{SqliteQueue, database};
use crate::read::Readers;
use crate::recover::{self, Known};
use crate::schema;
use crate::scrub::{SCRUB_ROUND, Scrub};
use crate::shared::Shared;
use crate::space::{LOOK_EVERY, RESERVE_BYTES, Space, free_reserve};
use crate::transaction::{Desk, Prepared, Random};
use crate::wal::{self, Log};
use crate::writer::Writer;

/// What the queue needs.
#[derive(Debug, Clone)]
pub struct Options {
    /// The data directory; made if it is not there. The queue keeps `queue.*` and `blobs/` in it.
    pub dir: PathBuf,
    /// The clock.
    pub clock: Clock,
}

/// Bounds that only tests have a reason to change.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// See [`FREE_BYTES_MIN`].
    pub free_bytes_min: u64,
    /// See [`RESERVE_BYTES`].
    pub reserve_bytes: u64,
    /// See [`SCRUB_ROUND`].
    pub scrub_round: Duration,
    /// See [`LOOK_EVERY`].
    pub look_every: Duration,
    /// Idempotency keys that are sorted at a time.
    pub run_keys: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            free_bytes_min: FREE_BYTES_MIN,
            reserve_bytes: RESERVE_BYTES,
            scrub_round: SCRUB_ROUND,
            look_every: LOOK_EVERY,
            run_keys: keys::RUN_KEYS,
        }
    }
}

impl SqliteQueue {
    /// Opens a data directory. Blocks for some milliseconds, however many jobs it holds, and for one or two more for each
    /// 65,536 idempotency keys.
    ///
    /// # Errors
    /// [`OpenError`] says why and what to try.
    pub fn open(options: Options) -> Result<Arc<Self>, OpenError> {
        Self::open_within(options, &Bounds::default())
    }

    /// As [`SqliteQueue::open`], with other bounds.
    ///
    /// # Errors
    /// As [`SqliteQueue::open`].
    pub fn open_within(options: Options, bounds: &Bounds) -> Result<Arc<Self>, OpenError> {
        let Options { dir, clock } = options;
        check_place(&dir)?;
        make_dir(&dir)?;
        make_own_dir(&dir.join("blobs"))?;
        let lock = Lock::take(&dir)?;
        // A backup or a restore may have been made here, or begun, since the look above.
        check_place(&dir)?;
        let path = database(&dir);
        make_database(&path)?;
        let (connection, log, known) = match begin(&path) {
            // A log must be made, and a life that does not begin settles nothing.
            Err(OpenError::Full { .. }) if free_reserve(&dir) => begin(&path)?,
            begun => begun?,
        };
        let reusable_bytes = schema::free_bytes(&connection);
        let space = Space::new(&dir, bounds.clone(), reusable_bytes);
        let memory = Memory::new(known.epoch, known.functions.clone());
        let shared = Arc::new(Shared::new(memory, clock, BlobDir::new(&dir, known.epoch), space));
        let run_keys = bounds.run_keys;
        let thread = Thread { connection, known, run_keys, shared: Arc::clone(&shared), log, lock };
        let writer = thread.start().map_err(|error| match error {
            StartError::Thread(source) => OpenError::Thread(source),
            StartError::Database(source) => OpenError::of_database(&path, source),
        })?;
        remove_orphans(&shared.blobs, &path);
        let scrub = Scrub::start(&shared, &path, bounds.scrub_round);
        let (writer, scrub) = (Mutex::new(Some(writer)), Mutex::new(scrub));
        Ok(Arc::new(Self { shared, readers: Readers::new(path), writer, scrub }))
    }
}

/// An empty queue in place of a copy that was cut off would look as if all jobs were gone, and a backup that a server works
/// in is none any more.
fn check_place(dir: &Path) -> Result<(), OpenError> {
    if is_labelled(dir) {
        return Err(OpenError::Backup { dir: dir.to_owned() });
    }
    if is_begun(dir) {
        return Err(OpenError::Unfinished { dir: dir.to_owned() });
    }
    Ok(())
}

/// The writer's connection, its log, and what the database knows at the beginning of this life.
fn begin(path: &Path) -> Result<(Connection, Log, Known), OpenError> {
    let failed = |source| OpenError::of_database(path, source);
    let mut connection = schema::open_writer(path)?;
    let log = Log::watch(&mut connection).map_err(failed)?;
    wal::settle(&connection).map_err(failed)?;
    let known = recover::begin_life(&connection).map_err(failed)?;
    Ok((connection, log, known))
}

/// What the writer's thread takes with it.
struct Thread {
    connection: Connection,
    known: Known,
    run_keys: usize,
    shared: Arc<Shared>,
    log: Log,
    lock: Lock,
}

/// Refuses everything once the writer is gone, also if it went in a panic: nobody may wait for it for ever.
struct SealedAtTheEnd(Arc<Shared>);

impl Drop for SealedAtTheEnd {
    fn drop(&mut self) {
        self.0.memory().close(Error::Closed("its writer ended".to_owned()));
        self.0.inbox.abandon();
    }
}

enum StartError {
    Thread(std::io::Error),
    Database(rusqlite::Error),
}

// === impl Thread ===

impl Thread {
    /// Starts the thread, and waits until the life before is settled and the first jobs are in memory.
    fn start(self) -> Result<std::thread::JoinHandle<()>, StartError> {
        let (started, is_started) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("queue-writer".to_owned());
        let handle = thread.spawn(move || self.run(&started)).map_err(StartError::Thread)?;
        match is_started.recv() {
            Ok(Ok(())) => Ok(handle),
            Ok(Err(error)) => Err(StartError::Database(error)),
            Err(_) => Err(StartError::Thread(std::io::Error::other("the writer thread ended at once"))),
        }
    }

    fn run(self, started: &mpsc::SyncSender<SqlResult<()>>) {
        let Self { connection, known, run_keys, shared, log, lock } = self;
        let _sealed_at_the_end = SealedAtTheEnd(Arc::clone(&shared));
        let is_whole = match desk(&connection, &known, run_keys, &shared) {
            Ok(desk) => {
                let mut writer = Writer {
                    shared,
                    desk,
                    log,
                    commit_takes: Duration::ZERO,
                    damaged: BTreeSet::new(),
                    chores_at: Instant::now(),
                    read_at: None,
                };
                // What is due is queued and the windows are filled before the first caller looks.
                if let Err(why) = writer.round(Vec::new()) {
                    writer.seal(&why);
                }
                let _ = started.send(Ok(()));
                writer.run()
            }
            Err(error) => {
                let _ = started.send(Err(error));
                false
            }
        };
        if is_whole {
            close(&connection);
        }
        drop(connection);
        drop(lock);
    }
}

/// The writer's desk, once the life before is settled.
fn desk<'c>(connection: &'c Connection, known: &Known, run_keys: usize, shared: &Shared) -> SqlResult<Desk<'c>> {
    let mut desk = Desk {
        connection,
        prepared: Prepared::new(connection)?,
        clockwork: recover::clockwork(known),
        last: known.last,
        random: Random::new(),
        functions_stored: known.functions.len(),
        keys: keys::load(connection, run_keys)?,
        moves: Moves::default(),
    };
    match recover::end_attempts(&mut desk, shared) {
        Err(error) if is_full_for(&error, connection) && shared.space().free_reserve() => {
            recover::end_attempts(&mut desk, shared)?;
        }
        ended => ended?,
    }
    Ok(desk)
}

/// Leaves a database without a log behind, if nothing is wrong with it.
fn close(connection: &Connection) {
    if let Err(error) = connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::TRUNCATE) {
        // The log stays and is read at the next start: nothing is lost.
        tracing::warn!(%error, "the log of the database cannot be copied at the end");
    }
}

/// Removes files that no row names, on a thread of its own: there may be many, and nobody waits for it.
fn remove_orphans(blobs: &BlobDir, path: &Path) {
    let (blobs, path) = (blobs.clone(), path.to_owned());
    let cleaner = std::thread::Builder::new().name("queue-cleaner".to_owned());
    let spawned = cleaner.spawn(move || {
        let connection = schema::open_reader(&path).map_err(std::io::Error::other);
        match connection.and_then(|connection| blobs.remove_orphans(&connection)) {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "removed files that no job names"),
            Err(error) => tracing::warn!(%error, "files that no job names cannot be removed"),
        }
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "files that no job names cannot be looked for");
    }
}
