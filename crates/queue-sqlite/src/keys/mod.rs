//! Idempotency keys: which job a key made.
//!
//! What a key stands for is in the row of its job, or in `spent_keys` if the job is forgotten before its key may be. So a
//! key costs an accept little more than the bytes in that row. What finds the row by its key are *entries*, and random
//! keys in one big tree would cost a page of the log each. They go through three stages instead, all of them appends:
//!
//! 1. *young*: in memory, and on the disk in the order of acceptance, one row of `new_keys` for each commit.
//! 2. *sorted little by little*: 65,536 of them become a run. Each commit writes twice as many of it into `key_chunks`, in
//!    the order of the keys, as it adds itself, so that no commit stops and the run is done before the next one begins.
//! 3. *in a run*: a filter in memory says which runs are worth a look.
//!
//! An entry is a hint and may outlive its key: the row that it leads to decides. So nothing here changes when a job is
//! forgotten, and old runs are cleaned later. The memory changes only after the commit, so there is nothing to roll back.

pub(crate) mod clean;
mod entry;
mod filter;
mod load;
pub(crate) mod sort;

use std::collections::BTreeMap;

use kvern_core::JobId;
use kvern_core::id::Sequence;
use kvern_core::limits::IDEMPOTENCY_KEEP;
use kvern_queue::Idempotency;
use rusqlite::{Connection, OptionalExtension, Result as SqlResult, params};

pub(crate) use self::clean::sweep;
use self::entry::{Key, place, search, top};
use self::filter::Filters;
pub(crate) use self::load::load;
pub(crate) use self::sort::write;
use self::sort::{Sorted, Sorting};
use crate::rank::Rank;
use crate::rows;
use crate::transaction::Transaction;

/// Keys of a run. A look-up asks the filters of 64 runs at once, so larger ones make it cheaper; what is kept in memory
/// and read again at a start are the keys of up to two.
pub(crate) const RUN_KEYS: usize = 65_536;

pub(crate) const FIRST_JOB: &str = "SELECT random, key_body, rank FROM jobs WHERE seq = ?1 \
     UNION ALL SELECT random, body, rank FROM spent_keys WHERE seq = ?1";
/// The last chunk between two places.
pub(crate) const CHUNK: &str = "SELECT entries FROM key_chunks WHERE at BETWEEN ?1 AND ?2 ORDER BY at DESC LIMIT 1";
const OUTLIVE: &str = "INSERT INTO spent_keys SELECT seq, random, key_body, rank FROM jobs WHERE seq = ?1";

/// What a key stands for.
#[derive(Debug)]
pub(crate) struct FirstJob {
    pub(crate) id: JobId,
    pub(crate) body: [u8; 16],
    /// The rank that the job has, or had when it was forgotten.
    pub(crate) rank: Option<Rank>,
}

/// What the memory knows of the keys.
#[derive(Debug)]
pub(crate) struct Keys {
    /// See [`RUN_KEYS`].
    run_keys: usize,
    young: Young,
    /// The run that is being sorted.
    sorting: Option<Sorting>,
    /// The newest job of each sorted run.
    newest: BTreeMap<i64, i64>,
    filters: Filters,
    /// The run with which cleaning goes on.
    clean_from: i64,
}

/// Keys that wait to be sorted, and their jobs.
#[derive(Debug)]
struct Young {
    /// The run that they will be.
    run: i64,
    /// Rows of `new_keys` that it has, or more.
    rows: u32,
    jobs: BTreeMap<Key, i64>,
}

/// What a transaction changes. Gone with it after a rollback.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// Keys and their jobs.
    added: BTreeMap<Key, i64>,
    sorted: Option<Sorted>,
    /// Runs that are no more.
    emptied: Vec<i64>,
    /// The run with which cleaning goes on.
    clean_from: Option<i64>,
}

/// The job that a key made.
pub(crate) fn find(tx: &Transaction<'_, '_>, idempotency: &Idempotency) -> SqlResult<Option<FirstJob>> {
    let (key, keys) = (&Key::from_be_bytes(idempotency.key), &tx.desk.keys);
    let sorting = keys.sorting.as_ref().and_then(|sorting| sorting.job(key));
    let in_memory = [tx.keys.added.get(key).copied(), keys.young.jobs.get(key).copied(), sorting];
    for seq in in_memory.into_iter().flatten() {
        if let Some(first) = first_job(tx.desk.connection, seq)? {
            return Ok(Some(first));
        }
    }
    for run in keys.filters.candidates(key) {
        if let Some(seq) = find_in(tx.desk.connection, run, key)?
            && let Some(first) = first_job(tx.desk.connection, seq)?
        {
            return Ok(Some(first));
        }
    }
    Ok(None)
}

/// A key made this job.
pub(crate) fn insert(tx: &mut Transaction<'_, '_>, idempotency: &Idempotency, id: JobId) {
    tx.keys.added.insert(Key::from_be_bytes(idempotency.key), rows::key(id));
}

/// The job is about to be forgotten: what its key stands for stays if it must be kept longer.
pub(crate) fn outlive(tx: &Transaction<'_, '_>, id: JobId) -> SqlResult<()> {
    if id.accepted_at().after(IDEMPOTENCY_KEEP) > tx.now {
        tx.run(OUTLIVE, [rows::key(id)])?;
    }
    Ok(())
}

fn find_in(connection: &Connection, run: i64, key: &Key) -> SqlResult<Option<i64>> {
    let mut statement = connection.prepare_cached(CHUNK)?;
    let places = params![place(run, 0), place(run, top(key))];
    let found = statement.query_row(places, |row| Ok(search(row.get_ref(0)?.as_blob()?, key))).optional()?;
    Ok(found.flatten())
}

fn first_job(connection: &Connection, seq: i64) -> SqlResult<Option<FirstJob>> {
    let mut statement = connection.prepare_cached(FIRST_JOB)?;
    let found = statement.query_row([seq], |row| {
        let id = JobId::new(Sequence::from_bits(seq.cast_unsigned()), row.get::<_, i64>(0)?.cast_unsigned());
        Ok(FirstJob { id, body: row.get(1)?, rank: Rank::from_stored(row.get(2)?) })
    });
    found.optional()
}

// === impl Keys ===

impl Keys {
    /// After the commit: the memory follows.
    pub(crate) fn follow(&mut self, change: Change) {
        if !change.added.is_empty() {
            self.young.rows += 1;
            self.young.jobs.extend(change.added);
        }
        if let Some(sorted) = change.sorted {
            self.follow_sorted(sorted);
        }
        for run in change.emptied {
            self.newest.remove(&run);
            self.filters.remove(run);
        }
        self.clean_from = change.clean_from.unwrap_or(self.clean_from);
        self.sort_if_full();
    }

    fn follow_sorted(&mut self, sorted: Sorted) {
        let Some(mut sorting) = self.sorting.take() else { return };
        match sorted {
            Sorted::Some(progress) => {
                sorting.progress = progress;
                self.sorting = Some(sorting);
            }
            Sorted::All => {
                self.newest.insert(sorting.run, sorting.newest());
                self.filters.add(sorting.run, &sorting.filter);
            }
        }
    }

    fn sort_if_full(&mut self) {
        if self.sorting.is_none() && self.young.jobs.len() >= self.run_keys {
            let next = Young { run: self.young.run + 1, rows: 0, jobs: BTreeMap::new() };
            let full = std::mem::replace(&mut self.young, next);
            self.sorting = Some(Sorting::new(full.run, full.jobs, None));
        }
    }
}
