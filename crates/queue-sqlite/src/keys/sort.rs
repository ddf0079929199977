//! Sort: what a commit adds to the young keys, and a part of the run before them, written in the order of its keys.

use std::collections::BTreeMap;
use std::ops::Bound;

use rusqlite::{Connection, Result as SqlResult, params};

use super::Change;
use super::entry::{Entry, Key, encode, place, top};
use super::filter::Filter;
use crate::transaction::Transaction;

/// Keys of a chunk: as many as a page of the database takes.
const CHUNK_KEYS: usize = 160;
/// A run has at least so many chunks, so that a small one is sorted little by little too.
const CHUNKS_MIN: usize = 8;
/// For each key that is added so many are sorted: a run is done when the next one is half full.
const SORTED_PER_ADDED: usize = 2;

const ADD_NEW: &str = "INSERT INTO new_keys VALUES (?1, ?2)";
/// A commit adds one row, so two at a time are enough.
pub(crate) const FORGET_SORTED: &str =
    "DELETE FROM new_keys WHERE at IN (SELECT at FROM new_keys WHERE at < ?1 ORDER BY at LIMIT 2)";
const ADD_CHUNK: &str = "INSERT INTO key_chunks VALUES (?1, ?2)";
const ADD_RUN: &str = "INSERT INTO key_runs VALUES (?1, ?2, ?3)";

/// A run that is being sorted. Its keys are found here until all of it is written.
#[derive(Debug)]
pub(super) struct Sorting {
    pub(super) run: i64,
    jobs: BTreeMap<Key, i64>,
    /// That of the keys in chunks, or of a few more after a rollback: they come again.
    pub(super) filter: Filter,
    pub(super) progress: Progress,
}

/// How far it is sorted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    /// The last key in a chunk.
    last: Option<Key>,
    /// Keys that may be sorted now.
    due: usize,
}

/// What a transaction sorted of it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sorted {
    Some(Progress),
    All,
}

/// Writes what the operations of a transaction add to the keys.
pub(crate) fn write(tx: &mut Transaction<'_, '_>) -> SqlResult<Change> {
    let mut change = std::mem::take(&mut tx.keys);
    if change.added.is_empty() {
        return Ok(change);
    }
    let young = &tx.desk.keys.young;
    let added = change.added.iter().map(|(key, seq)| Entry { key: *key, seq: *seq });
    tx.run(ADD_NEW, params![place(young.run, young.rows), encode(added)])?;
    let keys = &mut tx.desk.keys;
    let first_unsorted = keys.sorting.as_ref().map_or(keys.young.run, |sorting| sorting.run);
    if let Some(sorting) = &mut keys.sorting {
        let chunk_keys = keys.run_keys.div_ceil(CHUNKS_MIN).min(CHUNK_KEYS);
        let due = change.added.len() * SORTED_PER_ADDED;
        change.sorted = Some(sorting.go_on(tx.desk.connection, due, chunk_keys)?);
    }
    tx.run(FORGET_SORTED, [place(first_unsorted, 0)])?;
    Ok(change)
}

// === impl Sorting ===

impl Sorting {
    /// A run of which the keys up to `last` are in chunks.
    pub(super) fn new(run: i64, jobs: BTreeMap<Key, i64>, last: Option<Key>) -> Self {
        let mut filter = Filter::for_keys(jobs.len());
        if let Some(last) = &last {
            jobs.range(..=*last).for_each(|(key, _)| filter.insert(key));
        }
        Self { run, jobs, filter, progress: Progress { last, due: 0 } }
    }

    pub(super) fn job(&self, key: &Key) -> Option<i64> {
        self.jobs.get(key).copied()
    }

    /// The newest job of the run.
    pub(super) fn newest(&self) -> i64 {
        self.jobs.values().copied().max().unwrap_or(0)
    }

    /// Writes chunks as long as so many more keys are due.
    fn go_on(&mut self, connection: &Connection, due: usize, chunk_keys: usize) -> SqlResult<Sorted> {
        let Progress { mut last, due: before } = self.progress;
        let mut due = before + due;
        while due >= chunk_keys {
            let chunk = self.chunk_after(last, chunk_keys);
            let Some(first) = chunk.first() else {
                self.end(connection)?;
                return Ok(Sorted::All);
            };
            let row = params![place(self.run, top(&first.key)), encode(chunk.iter().copied())];
            connection.prepare_cached(ADD_CHUNK)?.execute(row)?;
            chunk.iter().for_each(|entry| self.filter.insert(&entry.key));
            due = due.saturating_sub(chunk.len());
            last = chunk.last().map(|entry| entry.key);
        }
        Ok(Sorted::Some(Progress { last, due }))
    }

    /// The next keys: so many, and those that differ from the last one only in what its chunk's place does not say.
    fn chunk_after(&self, last: Option<Key>, keys: usize) -> Vec<Entry> {
        let after = last.map_or(Bound::Unbounded, Bound::Excluded);
        let mut chunk: Vec<Entry> = Vec::with_capacity(keys);
        for (&key, &seq) in self.jobs.range((after, Bound::Unbounded)) {
            if chunk.len() >= keys && chunk.last().is_some_and(|entry| top(&entry.key) != top(&key)) {
                break;
            }
            chunk.push(Entry { key, seq });
        }
        chunk
    }

    fn end(&self, connection: &Connection) -> SqlResult<()> {
        connection.prepare_cached(ADD_RUN)?.execute(params![self.run, self.newest(), self.filter.to_bytes()])?;
        connection.prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'key_run'")?.execute([self.run])?;
        Ok(())
    }
}
