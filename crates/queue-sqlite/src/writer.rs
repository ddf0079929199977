//! The writer: one thread that makes everything durable. It takes what waits, applies all of it in one transaction,
//! commits with one fsync, brings the memory up to date, and answers.
//!
//! A refused operation does not spoil the batch. A statement that fails takes its operation out and the rest is applied
//! again. A commit that fails is the end: nobody knows what is on the disk, so the store is sealed, and nothing is tried
//! again (the kernel reports a failed fsync once and then claims success).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvern_core::JobId;
use kvern_queue::{Error, KnownBad};
use rusqlite::{Connection, Result as SqlResult};

use crate::damage;
use crate::due::{self, CameDue};
use crate::effects::Effects;
use crate::error::broken;
use crate::full::{is_failed_sync, is_full_for};
use crate::inbox::End;
use crate::keys;
use crate::memory::NEVER;
use crate::operation::{Found, Operation};
use crate::refill::{Refilled, refill};
use crate::schema::free_bytes;
use crate::shared::Shared;
use crate::transaction::{Counts, Desk, Transaction};
use crate::wal::Log;

/// A disk whose commits take longer than this is slow: there a fuller batch is worth a short wait.
const SLOW_COMMIT: Duration = Duration::from_micros(500);
/// The wait is this part of a commit.
const LINGER_PART: u32 = 50;
/// The wait after jobs that came due could not be queued.
const CHORES_AGAIN: Duration = Duration::from_secs(1);
/// The wait after jobs could not be read.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// The longest sleep until a due time: the wall clock may jump.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// The thread's own things.
#[derive(Debug)]
pub(crate) struct Writer<'c> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) desk: Desk<'c>,
    /// The write-ahead log.
    pub(crate) log: Log,
    /// What a commit takes, smoothed.
    pub(crate) commit_takes: Duration,
    /// Jobs whose input turned out to be damaged.
    pub(crate) damaged: BTreeSet<JobId>,
    /// When to look after due and damaged jobs again, after that failed.
    pub(crate) chores_at: Instant,
    /// When to read the jobs of functions again that could not be read, or not to the end.
    pub(crate) read_at: Option<Instant>,
    /// Functions of which this round has read as much as it may.
    pub(crate) cut: BTreeSet<usize>,
}

/// What is to be committed.
struct Batch {
    operations: Vec<Operation>,
    /// Why not, by operation.
    refused: Vec<Option<Error>>,
    /// Why no new job is stored.
    no_room: Option<Error>,
}

/// A batch that is committed.
struct Committed {
    did_chores: bool,
    came_due: Option<CameDue>,
    failed: Vec<damage::Failed>,
    counts: Vec<Counts>,
    keys: keys::Change,
    found: Vec<Result<Found, Error>>,
}

/// Why a batch was not committed.
enum Spoiled {
    /// This operation failed before the commit.
    Operation(usize, rusqlite::Error),
    /// What the writer does by itself failed before the commit.
    Chores(rusqlite::Error),
    /// The transaction could not begin, or what its operations add up to could not be written: no one of them is at fault,
    /// and it failed before the commit.
    Whole(rusqlite::Error),
    /// The disk is full.
    Full,
    /// The commit failed: what is on the disk is unknown.
    Commit(rusqlite::Error),
}

// === impl Writer ===

impl Writer<'_> {
    /// Works until the end. Gives true if the store is whole and may be closed in order.
    pub(crate) fn run(mut self) -> bool {
        loop {
            self.shared.inbox.wait(self.deadline());
            self.shared.commits.count_round();
            self.damaged.append(&mut self.shared.take_damaged());
            if self.commit_takes > SLOW_COMMIT {
                self.shared.inbox.linger(self.commit_takes / LINGER_PART, self.commit_takes / 2);
            }
            let (operations, end) = self.shared.inbox.take();
            if end == Some(End::Abort) {
                return false;
            }
            if operations.is_empty() && end.is_some() {
                return true;
            }
            self.shared.pulse.begin();
            let done = self.round(operations);
            self.shared.pulse.end();
            if let Err(why) = done {
                self.seal(&why);
                return false;
            }
        }
    }

    /// When to look without being asked.
    fn deadline(&self) -> Option<Instant> {
        [self.chores_deadline(), self.read_at].into_iter().flatten().min()
    }

    /// At the next due time, at once if jobs are damaged.
    fn chores_deadline(&self) -> Option<Instant> {
        if !self.damaged.is_empty() {
            return Some(self.chores_at);
        }
        let next_due = self.shared.memory().next_due();
        if next_due == NEVER {
            return None;
        }
        let due_at = Instant::now() + next_due.since(self.shared.clock.now()).min(SLEEP_MAX);
        Some(due_at.max(self.chores_at))
    }

    /// Whether jobs are due or found damaged.
    fn has_chores(&self) -> bool {
        let is_due = || self.shared.memory().next_due() <= self.shared.clock.now();
        self.chores_at <= Instant::now() && (!self.damaged.is_empty() || is_due())
    }

    /// One batch, and what keeps the house in order after it. An error is the end.
    pub(crate) fn round(&mut self, operations: Vec<Operation>) -> Result<(), Error> {
        self.cut.clear();
        let mut effects = Effects::default();
        let units: usize = operations.iter().map(Operation::units).sum();
        let committed =
            if operations.is_empty() && !self.has_chores() { Ok(()) } else { self.batch(operations, &mut effects) };
        // Gaps are filled before anyone is answered: who retried a job and then leases must find it.
        self.refill(true);
        // As is the room that the batch made: who sweeps and then submits must find it.
        self.shared.space().give(|| free_bytes(self.desk.connection));
        effects.carry_out(&self.shared);
        self.shared.inbox.give_back(units);
        committed?;
        self.refill(false);
        self.shared.memory().waiters.wake_behind();
        if KnownBad::AckBeforeCommit.is_made() {
            // The transaction is still open, and the log cannot be copied beside it.
            return Ok(());
        }
        self.log.copy_if_long(self.desk.connection, &self.shared.commits)
    }

    /// Applies operations until they are committed or refused.
    fn batch(&mut self, operations: Vec<Operation>, effects: &mut Effects) -> Result<(), Error> {
        let refused = operations.iter().map(|_| None).collect();
        let bytes = operations.iter().map(Operation::disk_bytes).sum();
        let no_room = {
            let mut space = self.shared.space();
            let is_low = space.take(bytes, || free_bytes(self.desk.connection));
            is_low.then(|| space.no_space())
        };
        let mut batch = Batch { operations, refused, no_room };
        loop {
            let bad_rows = self.shared.memory().bad.len();
            match self.transact(&batch) {
                Ok(committed) => {
                    if committed.did_chores {
                        self.damaged.clear();
                    }
                    self.finish(batch.operations, committed, effects);
                    return Ok(());
                }
                Err(Spoiled::Full) => self.make_room(&mut batch),
                // Damage was met at a job, and noted: the next try passes over that one.
                Err(Spoiled::Operation(..) | Spoiled::Chores(_)) if self.shared.memory().bad.len() > bad_rows => {
                    continue;
                }
                Err(Spoiled::Operation(at, error)) => {
                    let error = broken(&error);
                    tracing::error!(%error, "an operation failed in the store");
                    batch.refused[at] = Some(error);
                }
                Err(Spoiled::Chores(error)) => {
                    // The jobs concerned stay as they are; everyone else's go on.
                    tracing::error!(%error, "due or damaged jobs cannot be moved; trying again later");
                    self.put_chores_off();
                }
                Err(Spoiled::Whole(error)) => self.refuse_whole(&mut batch, &error),
                Err(Spoiled::Commit(_)) if KnownBad::RetryFailedSync.is_made() => {
                    let _ = self.roll_back(self.desk.functions_stored);
                }
                Err(Spoiled::Commit(error)) => {
                    let why = Error::Closed(format!("the store failed while it wrote: {error}"));
                    let unknown = Error::Unknown(format!("the store failed while it wrote: {error}"));
                    let mut memory = self.shared.memory();
                    // Before anyone hears of it: whoever does finds the store sealed.
                    memory.close(why.clone());
                    for operation in batch.operations {
                        operation.end(Err(unknown.clone()), &mut memory, effects);
                    }
                    return Err(why);
                }
            }
            if batch.refused.iter().all(Option::is_some) {
                self.refuse_all(batch, effects);
                return Ok(());
            }
        }
    }

    /// One try. After an error nothing of it is left, unless the commit itself failed.
    fn transact(&mut self, batch: &Batch) -> Result<Committed, Spoiled> {
        let functions_stored = self.desk.functions_stored;
        if KnownBad::AckBeforeCommit.is_made() {
            let _ = self.desk.connection.execute_batch("COMMIT");
        }
        let applied = self.apply(batch);
        let committed = applied.and_then(|committed| {
            let began = Instant::now();
            let commit = || self.desk.connection.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([]));
            match if KnownBad::AckBeforeCommit.is_made() { Ok(0) } else { commit() } {
                Ok(_) => {
                    self.count_commit(batch.operations.len(), began.elapsed());
                    Ok(committed)
                }
                Err(error) => Err(full_or(error, self.desk.connection, Spoiled::Commit)),
            }
        });
        if !matches!(&committed, Ok(_) | Err(Spoiled::Commit(_))) {
            self.roll_back(functions_stored).map_err(Spoiled::Commit)?;
        }
        committed
    }

    fn apply(&mut self, batch: &Batch) -> Result<Committed, Spoiled> {
        let connection = self.desk.connection;
        let damaged = &self.damaged;
        let does_chores = self.chores_at <= Instant::now();
        let mut tx = Transaction::begin(&mut self.desk, &self.shared).map_err(Spoiled::Whole)?;
        tx.no_room.clone_from(&batch.no_room);
        let (mut came_due, mut failed) = (None, Vec::new());
        if does_chores {
            let is_due = tx.shared.memory().next_due() <= tx.now;
            let spoiled = |error| full_or(error, connection, Spoiled::Chores);
            came_due = is_due.then(|| due::apply(&mut tx)).transpose().map_err(spoiled)?;
            failed = damage::apply(&mut tx, damaged).map_err(spoiled)?;
        }
        let mut found = Vec::with_capacity(batch.operations.len());
        for (at, (operation, refused)) in batch.operations.iter().zip(&batch.refused).enumerate() {
            found.push(match refused {
                Some(why) => Err(why.clone()),
                None => {
                    let spoiled = |error| Spoiled::Operation(at, error);
                    operation.apply(&mut tx).map_err(|error| full_or(error, connection, spoiled))?
                }
            });
        }
        let sums = tx.write_sums().and_then(|counts| Ok((counts, keys::write(&mut tx)?)));
        let (counts, keys) = sums.map_err(|error| full_or(error, connection, Spoiled::Whole))?;
        Ok(Committed { did_chores: does_chores, came_due, failed, counts, keys, found })
    }

    /// After the commit: the memory follows.
    fn finish(&mut self, operations: Vec<Operation>, committed: Committed, effects: &mut Effects) {
        self.desk.keys.follow(committed.keys);
        let mut memory = self.shared.memory();
        for (index, counts) in committed.counts.iter().enumerate() {
            counts.add_to(&mut memory.functions[index].stored);
        }
        if let Some(came_due) = committed.came_due {
            came_due.finish(&mut memory, effects);
        }
        damage::finish(committed.failed, &mut memory, effects);
        for (operation, found) in operations.into_iter().zip(committed.found) {
            operation.end(found, &mut memory, effects);
        }
    }

    fn refuse_all(&self, batch: Batch, effects: &mut Effects) {
        let mut memory = self.shared.memory();
        for (operation, why) in batch.operations.into_iter().zip(batch.refused) {
            let why = why.unwrap_or_else(|| Error::Broken("not applied".to_owned()));
            operation.end(Err(why), &mut memory, effects);
        }
    }

    /// Nothing of the batch is stored. Its chores may be what is at fault, and whoever waits for an answer is worth a try
    /// without them.
    fn refuse_whole(&mut self, batch: &mut Batch, error: &rusqlite::Error) {
        tracing::error!(%error, "a batch cannot be written; nothing of it is stored");
        if self.has_chores() {
            return self.put_chores_off();
        }
        let why = broken(error);
        for no in batch.refused.iter_mut().filter(|no| no.is_none()) {
            *no = Some(why.clone());
        }
    }

    fn put_chores_off(&mut self) {
        self.chores_at = Instant::now() + CHORES_AGAIN;
    }

    /// The disk is full: submits are refused first, the reserve is freed for the rest.
    fn make_room(&mut self, batch: &mut Batch) {
        let submits_waited = batch.no_room.is_none() && batch.operations.iter().any(Operation::is_submit);
        let (freed, complains) = {
            let mut space = self.shared.space();
            let freed = space.free_reserve();
            batch.no_room.get_or_insert_with(|| space.no_space());
            (freed, space.complains())
        };
        if complains {
            tracing::warn!(freed, "the disk is full; new jobs are refused");
        }
        // Pages of the log that are copied can be written again. If that fails too, nothing is lost by trying.
        let _ = self.log.copy(self.desk.connection, &self.shared.commits);
        if submits_waited || freed {
            return;
        }
        if self.has_chores() {
            // They may be what has no room. Whoever waits for an answer goes first.
            self.put_chores_off();
        } else {
            for no in batch.refused.iter_mut().filter(|no| no.is_none()) {
                *no = Some(Error::NoSpace("the disk of the data directory is full".to_owned()));
            }
        }
    }

    fn roll_back(&mut self, functions_stored: usize) -> SqlResult<()> {
        if !self.desk.connection.is_autocommit() {
            self.desk.connection.execute_batch("ROLLBACK")?;
        }
        self.desk.functions_stored = functions_stored;
        // Jobs that were held back for a move that did not happen are ready again.
        let mut memory = self.shared.memory();
        for index in 0..memory.functions.len() {
            memory.with_window(index, crate::window::Window::reset);
        }
        Ok(())
    }

    /// Fills the windows that want it; `only_gaps` those alone from which nothing can be taken.
    fn refill(&mut self, only_gaps: bool) {
        if self.read_at.is_some_and(|at| at <= Instant::now()) {
            self.read_at = None;
            self.shared.memory().functions.iter_mut().for_each(|function| function.is_unreadable = false);
        }
        let mut wanting = self.wanting_refill(only_gaps);
        while let Some(function) = wanting.pop() {
            match refill(self.desk.connection, &self.shared, function) {
                Ok(Refilled { damaged, is_cut }) => {
                    self.damaged.extend(damaged);
                    self.cut.extend(is_cut.then_some(function));
                }
                Err(error) => self.leave_unread(function, &error),
            }
            if wanting.is_empty() {
                wanting = self.wanting_refill(true);
            }
        }
        if !self.cut.is_empty() {
            // Whatever waits for the writer comes first.
            self.read_at = Some(Instant::now());
        }
    }

    fn wanting_refill(&self, only_gaps: bool) -> Vec<usize> {
        let mut wanting = self.shared.memory().wanting_refill(only_gaps);
        wanting.retain(|function| !self.cut.contains(function));
        wanting
    }

    /// The others go on, and this one is tried again in a while: whoever waits for a job of it would ask again at once.
    fn leave_unread(&mut self, function: usize, error: &rusqlite::Error) {
        let name = {
            let mut memory = self.shared.memory();
            let function = &mut memory.functions[function];
            function.is_unreadable = true;
            function.name.clone()
        };
        tracing::error!(%error, function = %name, "the next jobs of a function cannot be read; trying again");
        self.read_at.get_or_insert(Instant::now() + READ_AGAIN);
    }

    fn count_commit(&mut self, operations: usize, took: Duration) {
        self.shared.commits.count(operations, took);
        self.commit_takes = (self.commit_takes * 7 + took) / 8;
    }

    /// The store takes nothing any more. What waits in the inbox was not begun.
    pub(crate) fn seal(&self, why: &Error) {
        tracing::error!(%why, "the store is sealed");
        self.shared.memory().close(why.clone());
        self.shared.inbox.end(End::Abort);
        let mut effects = Effects::default();
        loop {
            let (operations, _) = self.shared.inbox.take();
            if operations.is_empty() {
                break;
            }
            self.shared.inbox.give_back(operations.iter().map(Operation::units).sum());
            let mut memory = self.shared.memory();
            for operation in operations {
                operation.end(Err(why.clone()), &mut memory, &mut effects);
            }
        }
        effects.carry_out(&self.shared);
    }
}

/// What an error before the commit means. A large transaction writes to the log before its end, and the first write after
/// the log was begun anew syncs it: that is as fatal as the sync of a commit.
fn full_or(
    error: rusqlite::Error,
    connection: &Connection,
    otherwise: impl FnOnce(rusqlite::Error) -> Spoiled,
) -> Spoiled {
    if is_full_for(&error, connection) {
        Spoiled::Full
    } else if is_failed_sync(&error) {
        Spoiled::Commit(error)
    } else {
        otherwise(error)
    }
}
