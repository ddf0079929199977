//! Load: what a start reads of the keys. The filters of the sorted runs and the keys that are not sorted yet; not the rest.

use std::collections::BTreeMap;

use rusqlite::types::FromSqlError;
use rusqlite::{Connection, OptionalExtension, Result as SqlResult, params};

use super::entry::{Key, decode, place, run_at};
use super::filter::{Filter, Filters};
use super::sort::Sorting;
use super::{CHUNK, Keys, Young};

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
    let (newest, filters) = runs(connection)?;
    let mut keys = Keys { run_keys: run_keys.max(1), young, sorting, newest, filters, clean_from: 0 };
    keys.sort_if_full();
    Ok(keys)
}

/// The newest job of each sorted run, and the filters.
fn runs(connection: &Connection) -> SqlResult<(BTreeMap<i64, i64>, Filters)> {
    let (mut newest, mut filters) = (BTreeMap::new(), Filters::default());
    let mut statement = connection.prepare("SELECT run, newest, filter FROM key_runs ORDER BY run")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let run = row.get(0)?;
        newest.insert(run, row.get(1)?);
        filters.add(run, &Filter::from_bytes(row.get_ref(2)?.as_blob()?).ok_or(FromSqlError::InvalidType)?);
    }
    Ok((newest, filters))
}

fn last_in_chunks(connection: &Connection, run: i64) -> SqlResult<Option<Key>> {
    let places = params![place(run, 0), place(run, u32::MAX)];
    let last = |row: &rusqlite::Row<'_>| Ok(decode(row.get_ref(0)?.as_blob()?).next_back().map(|entry| entry.key));
    Ok(connection.query_row(CHUNK, places, last).optional()?.flatten())
}
