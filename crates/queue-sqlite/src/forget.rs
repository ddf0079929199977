//! Forget: a finished job goes, with its input, result, log and key.

use std::path::PathBuf;

use kvern_core::id::Sequence;
use kvern_core::{JobId, State, UnixMs};
use rusqlite::{OptionalExtension, Result as SqlResult, params};

use crate::keys;
use crate::rank::{Rank, in_index};
use crate::rows::stored_time;
use crate::sweep::limit;
use crate::transaction::Transaction;

pub(crate) const OLDEST: &str = concat!(
    "SELECT seq, random, key IS NOT NULL, CASE typeof(input) WHEN 'text' THEN input END, past FROM jobs \
     WHERE function = ?1 AND rank = ?2 AND pos <= ?3 AND ",
    in_index!(),
    " ORDER BY pos, seq LIMIT ?4"
);

/// A job to forget.
struct Finished {
    key: i64,
    id: JobId,
    has_key: bool,
    input_file: Option<String>,
    has_past: bool,
}

/// Forgets at most `most` jobs of a function that reached this state at or before a time. How many, and whether there
/// are more.
pub(crate) fn finished(
    tx: &mut Transaction<'_, '_>,
    function: usize,
    state: State,
    before: UnixMs,
    most: usize,
    files: &mut Vec<PathBuf>,
) -> SqlResult<(usize, bool)> {
    let rank = Rank::of(state, 0);
    let mut found = oldest(tx, function, rank, before, most.saturating_add(1))?;
    let more = found.len() > most;
    found.truncate(most);
    for job in &found {
        forget(tx, job, files)?;
        tx.count_gone(function, state);
    }
    if !found.is_empty() {
        // Ids must not go back, even if the newest rows are gone.
        tx.run("UPDATE meta SET value = ?1 WHERE name = 'sequence'", [tx.desk.last.get().cast_signed()])?;
    }
    Ok((found.len(), more))
}

fn oldest(
    tx: &Transaction<'_, '_>,
    function: usize,
    rank: Rank,
    before: UnixMs,
    most: usize,
) -> SqlResult<Vec<Finished>> {
    let mut statement = tx.desk.connection.prepare_cached(OLDEST)?;
    let values = params![function.cast_signed() as i64, rank.get(), stored_time(before), limit(most)];
    let rows = statement.query_map(values, |row| {
        let key: i64 = row.get(0)?;
        let sequence = Sequence::from_bits(key.cast_unsigned());
        let id = JobId::new(sequence, row.get::<_, i64>(1)?.cast_unsigned());
        Ok(Finished { key, id, has_key: row.get(2)?, input_file: row.get(3)?, has_past: row.get(4)? })
    })?;
    rows.collect()
}

fn forget(tx: &Transaction<'_, '_>, job: &Finished, files: &mut Vec<PathBuf>) -> SqlResult<()> {
    if job.has_key {
        keys::outlive(tx, job.id)?;
    }
    let result_file = if job.has_past { result_file(tx, job.key)? } else { None };
    for name in job.input_file.iter().chain(&result_file) {
        tx.run("DELETE FROM blobs WHERE name = ?1", [name])?;
        files.push(tx.shared.blobs.path(name));
    }
    if job.has_past {
        tx.run("DELETE FROM results WHERE seq = ?1", [job.key])?;
    }
    tx.run("DELETE FROM logs WHERE seq = ?1", [job.key])?;
    tx.run("DELETE FROM jobs WHERE seq = ?1", [job.key])?;
    Ok(())
}

fn result_file(tx: &Transaction<'_, '_>, key: i64) -> SqlResult<Option<String>> {
    let sql = "SELECT body FROM results WHERE seq = ?1 AND typeof(body) = 'text'";
    tx.desk.connection.prepare_cached(sql)?.query_row([key], |row| row.get(0)).optional()
}
