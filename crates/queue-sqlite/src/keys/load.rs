//! Load: what a start reads of the keys. The filters of the sorted runs and the keys that are not sorted yet; not the rest.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc;

use rusqlite::types::FromSqlError;
use rusqlite::{Connection, OptionalExtension, Result as SqlResult, params};

use super::entry::{Key, decode, place, run_at};
use super::filter::{Filter, Filters};
use super::sort::Sorting;
use super::{CHUNK, Keys, Young};
use crate::schema::{open_reader, path_of};

/// Threads that read filters at a start.
const READERS_MAX: usize = 8;

const UNSORTED: &str = "SELECT at, entries FROM new_keys WHERE at >= ?1 ORDER BY at";

/// The keys as the life before left them. If it ended while a run was sorted, sorting goes on where it was.
pub(crate) fn load(connection: &Connection, run_keys: usize) -> SqlResult<Keys> {
    let sql = "SELECT value FROM meta WHERE name = 'key_run'";
    let last_sorted: i64 = connection.query_row(sql, [], |row| row.get(0))?;
    let (mut young, mut sorting) = (Young { run: last_sorted + 1, rows: 0, jobs: BTreeMap::new() }, None);
    let mut statement = connection.prepare(UNSORTED)?;
    let mut rows = statement.query([place(young.run, 0)])?;
    while let Some(row) = rows.next()? {
        let at: i64 = row.get(0)?;
        if run_at(at) != young.run {
            let before = std::mem::replace(&mut young, Young { run: run_at(at), rows: 0, jobs: BTreeMap::new() });
            let last = last_in_chunks(connection, before.run)?;
            sorting = Some(Sorting::new(before.run, before.jobs, last));
        }
        young.rows = (at as u32).saturating_add(1);
        young.jobs.extend(decode(row.get_ref(1)?.as_blob()?).map(|entry| (entry.key, entry.seq)));
    }
    let newest = newest(connection)?;
    let filters = filters(connection, &newest.keys().copied().collect::<Vec<_>>())?;
    let mut keys = Keys { run_keys: run_keys.max(1), young, sorting, newest, filters, clean_from: 0 };
    keys.sort_if_full();
    Ok(keys)
}

/// The newest job of each sorted run.
fn newest(connection: &Connection) -> SqlResult<BTreeMap<i64, i64>> {
    let mut statement = connection.prepare("SELECT run, newest FROM key_runs")?;
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// The filters of these runs, read on several threads: the pages lie anywhere, and each may be a wait for the disk.
fn filters(connection: &Connection, runs: &[i64]) -> SqlResult<Filters> {
    let path = &path_of(connection);
    let mut filters = Filters::default();
    std::thread::scope(|scope| {
        let (sender, read) = mpsc::sync_channel(READERS_MAX);
        for part in runs.chunks(runs.len().div_ceil(READERS_MAX).max(1)) {
            let sender = sender.clone();
            scope.spawn(move || send_filters(path, part, &sender));
        }
        drop(sender);
        for read in read {
            let (run, filter) = read?;
            filters.add(run, &filter);
        }
        Ok(filters)
    })
}

fn send_filters(path: &Path, runs: &[i64], to: &mpsc::SyncSender<SqlResult<(i64, Filter)>>) {
    let send_all = || {
        let connection = open_reader(path)?;
        let mut statement = connection.prepare("SELECT filter FROM key_runs WHERE run = ?1")?;
        for run in runs {
            let filter = statement.query_row([run], |row| Ok(Filter::from_bytes(row.get_ref(0)?.as_blob()?)))?;
            // Who does not listen any more has met an error.
            let _ = to.send(Ok((*run, filter.ok_or(FromSqlError::InvalidType)?)));
        }
        Ok(())
    };
    if let Err(error) = send_all() {
        let _ = to.send(Err(error));
    }
}

fn last_in_chunks(connection: &Connection, run: i64) -> SqlResult<Option<Key>> {
    let places = params![place(run, 0), place(run, u32::MAX)];
    let last = |row: &rusqlite::Row<'_>| Ok(decode(row.get_ref(0)?.as_blob()?).next_back().map(|entry| entry.key));
    Ok(connection.query_row(CHUNK, places, last).optional()?.flatten())
}
