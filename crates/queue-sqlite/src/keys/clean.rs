//! Clean: keys that outlived their jobs are forgotten, and old runs are emptied.
//!
//! A run in which few keys are left would cost as much memory and disk as a full one, and one dead letter can hold it for
//! weeks. So the few are carried over: they become young keys again. Keys are hashes, so any chunk tells how much of its
//! run is left: chunk by chunk, a run goes as long as few keys in them stand for something.

use std::collections::BTreeMap;

use kvern_core::UnixMs;
use kvern_core::id::Sequence;
use kvern_core::limits::IDEMPOTENCY_KEEP;
use rusqlite::{Connection, OptionalExtension, Result as SqlResult, params};

use super::entry::{Key, decode, place};
use crate::sweep::limit;
use crate::transaction::Transaction;

/// A chunk is emptied if at most one in so many of its keys is left: that bounds how often a key is carried over.
const CHUNK_KEYS_PER_LEFT: usize = 8;

const FORGET_SPENT: &str =
    "DELETE FROM spent_keys WHERE seq IN (SELECT seq FROM spent_keys WHERE seq < ?1 ORDER BY seq LIMIT ?2)";
pub(crate) const FIRST_CHUNK: &str =
    "SELECT at, entries FROM key_chunks WHERE at BETWEEN ?1 AND ?2 ORDER BY at LIMIT 1";
const STANDS: &str =
    "SELECT EXISTS (SELECT 1 FROM jobs WHERE seq = ?1) OR EXISTS (SELECT 1 FROM spent_keys WHERE seq = ?1)";

/// Forgets at most `most` keys that outlived their jobs and now have lived long enough themselves, and looks at about
/// twice as many in old runs, so that these go no slower than their jobs. False if there may be more of the former.
pub(crate) fn sweep(tx: &mut Transaction<'_, '_>, most: usize) -> SqlResult<bool> {
    let kept = kept_from(tx.now);
    let forgotten = tx.run(FORGET_SPENT, params![kept, limit(most)])?;
    empty_runs(tx, kept, most.saturating_mul(2))?;
    Ok(forgotten < most)
}

/// The first job whose key must be kept for its own sake.
fn kept_from(now: UnixMs) -> i64 {
    let keep = u64::try_from(IDEMPOTENCY_KEEP.as_millis()).unwrap_or(u64::MAX);
    let Some(last) = now.0.checked_sub(keep) else { return 0 };
    Sequence::first_of(UnixMs(last).after(std::time::Duration::from_millis(1))).get().cast_signed()
}

/// Empties chunks of runs whose keys are all older than `kept`, until it meets one that must stay.
fn empty_runs(tx: &mut Transaction<'_, '_>, kept: i64, most: usize) -> SqlResult<()> {
    let connection = tx.desk.connection;
    let (mut run_from, mut looked) = (tx.desk.keys.clean_from, 0);
    while looked < most {
        let mut runs = tx.desk.keys.newest.range(run_from..);
        let Some((&run, _)) = runs.find(|(_, newest)| **newest < kept) else {
            run_from = 0;
            break;
        };
        let Some((at, chunk)) = first_chunk(connection, run)? else {
            tx.run("DELETE FROM key_runs WHERE run = ?1", [run])?;
            tx.keys.emptied.push(run);
            run_from = run + 1;
            continue;
        };
        let Some(left) = left_of(connection, &chunk)? else {
            run_from = run + 1;
            break;
        };
        tx.keys.added.extend(left);
        tx.run("DELETE FROM key_chunks WHERE at = ?1", [at])?;
        looked += decode(&chunk).len().max(1);
    }
    tx.keys.clean_from = Some(run_from);
    Ok(())
}

fn first_chunk(connection: &Connection, run: i64) -> SqlResult<Option<(i64, Vec<u8>)>> {
    let mut statement = connection.prepare_cached(FIRST_CHUNK)?;
    let places = params![place(run, 0), place(run, u32::MAX)];
    statement.query_row(places, |row| Ok((row.get(0)?, row.get(1)?))).optional()
}

/// The keys of a chunk that still stand for something, if they are few.
fn left_of(connection: &Connection, chunk: &[u8]) -> SqlResult<Option<BTreeMap<Key, i64>>> {
    let mut stands = connection.prepare_cached(STANDS)?;
    let entries = decode(chunk);
    let most = entries.len() / CHUNK_KEYS_PER_LEFT;
    let mut left = BTreeMap::new();
    for entry in entries {
        if stands.query_row([entry.seq], |row| row.get(0))? {
            left.insert(entry.key, entry.seq);
        }
        if left.len() > most {
            return Ok(None);
        }
    }
    Ok(Some(left))
}
