//! Logs: pieces of bytes under the job's key and their offset.

use bytes::{Bytes, BytesMut};
use kvern_queue::log::fitting;
use kvern_queue::{Error, LeaseToken};
use rusqlite::{Connection, OptionalExtension, Result as SqlResult, params};

use crate::effects::Effects;
use crate::memory::Memory;
use crate::operation::Step;
use crate::rows;
use crate::shared::Answer;
use crate::transaction::Transaction;

/// Largest piece in one row.
const PIECE_BYTES_MAX: usize = 64 << 10;

/// More of the log of a running attempt.
#[derive(Debug)]
pub(crate) struct AppendLog {
    pub(crate) token: LeaseToken,
    pub(crate) bytes: Bytes,
    pub(crate) answer: Answer<()>,
}

impl Step for AppendLog {
    type Found = ();

    fn apply(&self, tx: &mut Transaction<'_, '_>) -> SqlResult<Result<(), Error>> {
        let id = self.token.job;
        let is_held = tx.shared.memory().running.get(&id).is_some_and(|running| running.token == self.token);
        if !is_held || tx.ended.contains(&id) {
            return Ok(Err(Error::StaleLease(id)));
        }
        append(tx, rows::key(id), &self.bytes).map(Ok)
    }

    fn finish(self, (): (), _: &mut Memory, effects: &mut Effects) {
        effects.answer_done(self.answer, Ok(()));
    }

    fn refuse(self, why: Error, _: &mut Memory, effects: &mut Effects) {
        effects.answer_done(self.answer, Err(why));
    }
}

/// Adds bytes at the end of a job's log, as far as they fit.
pub(crate) fn append(tx: &Transaction<'_, '_>, key: i64, bytes: &[u8]) -> SqlResult<()> {
    let end = end(tx, key)?;
    let (fitting, line) = fitting(end, bytes);
    let mut offset = end.cast_signed();
    for piece in fitting.chunks(PIECE_BYTES_MAX).chain((!line.is_empty()).then_some(line)) {
        tx.run("INSERT INTO logs VALUES (?1, ?2, ?3)", params![key, offset, piece])?;
        offset += piece.len().cast_signed() as i64;
    }
    Ok(())
}

/// The size of a job's log.
pub(crate) fn end(tx: &Transaction<'_, '_>, key: i64) -> SqlResult<u64> {
    let sql = "SELECT offset + length(bytes) FROM logs WHERE seq = ?1 ORDER BY offset DESC LIMIT 1";
    let mut statement = tx.desk.connection.prepare_cached(sql)?;
    let end = statement.query_row([key], |row| row.get::<_, i64>(0)).optional()?;
    Ok(end.map_or(0, i64::cast_unsigned))
}

/// At most `limit` bytes from `offset`; empty at the end.
pub(crate) fn read(connection: &Connection, key: i64, offset: u64, limit: usize) -> SqlResult<Bytes> {
    let from = i64::try_from(offset).unwrap_or(i64::MAX);
    let sql = "SELECT offset, bytes FROM logs WHERE seq = ?1 AND offset >= \
         ifnull((SELECT max(offset) FROM logs WHERE seq = ?1 AND offset <= ?2), 0) ORDER BY offset";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![key, from])?;
    let mut log = BytesMut::new();
    while let Some(row) = rows.next()? {
        let piece = row.get_ref(1)?.as_blob()?;
        let skip = usize::try_from(from.saturating_sub(row.get(0)?)).unwrap_or(0);
        let left = limit - log.len();
        let piece = piece.get(skip..).unwrap_or_default();
        log.extend_from_slice(&piece[..piece.len().min(left)]);
        if log.len() >= limit {
            break;
        }
    }
    Ok(log.freeze())
}
