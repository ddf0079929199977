//! Idempotency keys: which job a key made. Kept in buckets of a day, so that random keys do not spread over one big tree.

use kvern_core::id::Sequence;
use kvern_core::limits::IDEMPOTENCY_KEEP;
use kvern_core::{JobId, UnixMs};
use kvern_queue::Idempotency;
use rusqlite::{Connection, OptionalExtension, Result as SqlResult, params};

use crate::rank::Rank;
use crate::rows::{self, stored_time};
use crate::transaction::Transaction;

const BUCKET_MS: u64 = 24 * 3600 * 1000;

/// What a key stands for.
#[derive(Debug)]
pub(crate) struct FirstJob {
    pub(crate) id: JobId,
    pub(crate) body: [u8; 16],
    /// The rank that the job had when it was forgotten.
    pub(crate) rank_if_forgotten: Option<i64>,
}

/// The job that a key made.
pub(crate) fn find(tx: &Transaction<'_, '_>, idempotency: &Idempotency) -> SqlResult<Option<FirstJob>> {
    let sql = "SELECT seq, random, body, rank FROM keys WHERE bucket = ?1 AND key = ?2";
    let mut statement = tx.desk.connection.prepare_cached(sql)?;
    for bucket in tx.desk.key_buckets.iter().rev() {
        let found = statement.query_row(params![bucket, idempotency.key], |row| {
            let sequence = Sequence::from_bits(row.get::<_, i64>(0)?.cast_unsigned());
            let id = JobId::new(sequence, row.get::<_, i64>(1)?.cast_unsigned());
            Ok(FirstJob { id, body: row.get(2)?, rank_if_forgotten: row.get(3)? })
        });
        if let Some(first) = found.optional()? {
            return Ok(Some(first));
        }
    }
    Ok(None)
}

/// Remembers that a key made this job.
pub(crate) fn insert(tx: &mut Transaction<'_, '_>, idempotency: &Idempotency, id: JobId) -> SqlResult<()> {
    let bucket = bucket_of(id);
    tx.desk.key_buckets.insert(bucket);
    let values = params![bucket, idempotency.key, rows::key(id), id.random().cast_signed(), idempotency.body];
    tx.run("INSERT INTO keys (bucket, key, seq, random, body) VALUES (?1, ?2, ?3, ?4, ?5)", values)?;
    Ok(())
}

/// The job is forgotten: its key too, or later if it must be kept longer.
pub(crate) fn forget(tx: &Transaction<'_, '_>, key: &[u8], id: JobId, rank: Rank) -> SqlResult<()> {
    let bucket = bucket_of(id);
    let until = id.accepted_at().after(IDEMPOTENCY_KEEP);
    if until <= tx.now {
        tx.run("DELETE FROM keys WHERE bucket = ?1 AND key = ?2", params![bucket, key])?;
        return Ok(());
    }
    let known = tx.run("UPDATE keys SET rank = ?3 WHERE bucket = ?1 AND key = ?2", params![bucket, key, rank.get()])?;
    if known > 0 {
        tx.run("INSERT OR IGNORE INTO spent_keys VALUES (?1, ?2, ?3)", params![stored_time(until), bucket, key])?;
    }
    Ok(())
}

/// Forgets keys that outlived their jobs and now have lived long enough themselves. False if there may be more.
pub(crate) fn sweep(tx: &mut Transaction<'_, '_>, limit: usize) -> SqlResult<bool> {
    let spent: Vec<(i64, i64, Vec<u8>)> = {
        let sql = "SELECT until, bucket, key FROM spent_keys WHERE until <= ?1 LIMIT ?2";
        let mut statement = tx.desk.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params![stored_time(tx.now), limit.cast_signed() as i64], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
        rows.collect::<SqlResult<_>>()?
    };
    for (until, bucket, key) in &spent {
        tx.run("DELETE FROM keys WHERE bucket = ?1 AND key = ?2", params![bucket, key])?;
        let values = params![until, bucket, key];
        tx.run("DELETE FROM spent_keys WHERE until = ?1 AND bucket = ?2 AND key = ?3", values)?;
    }
    drop_empty_bucket(tx)?;
    Ok(spent.len() < limit)
}

fn drop_empty_bucket(tx: &mut Transaction<'_, '_>) -> SqlResult<()> {
    let Some(oldest) = tx.desk.key_buckets.first().copied() else { return Ok(()) };
    let mut statement = tx.desk.connection.prepare_cached("SELECT 1 FROM keys WHERE bucket = ?1 LIMIT 1")?;
    if oldest < bucket_at(tx.now) && !statement.exists([oldest])? {
        tx.desk.key_buckets.remove(&oldest);
    }
    Ok(())
}

/// The buckets that hold a key.
pub(crate) fn buckets(connection: &Connection) -> SqlResult<std::collections::BTreeSet<i64>> {
    // One step of the index for each: a DISTINCT would walk all keys.
    let mut statement = connection.prepare("SELECT min(bucket) FROM keys WHERE bucket > ?1")?;
    let mut buckets = std::collections::BTreeSet::new();
    let mut last = i64::MIN;
    while let Some(bucket) = statement.query_row([last], |row| row.get::<_, Option<i64>>(0))? {
        buckets.insert(bucket);
        last = bucket;
    }
    Ok(buckets)
}

fn bucket_of(id: JobId) -> i64 {
    bucket_at(id.accepted_at())
}

fn bucket_at(at: UnixMs) -> i64 {
    stored_time(UnixMs(at.0 / BUCKET_MS))
}
