//! Recover: what opening does with the work of the life before.
//!
//! Nothing is undone, for a running job is stored as queued. Long attempts count as interrupted, and a job that somebody
//! had asked to cancel is cancelled: its attempt is over.

use kvern_core::id::Sequence;
use kvern_core::{Clockwork, FunctionName, State, UnixMs};
use kvern_queue::{FunctionStats, record};
use rusqlite::types::FromSqlError;
use rusqlite::{Connection, Result as SqlResult};

use crate::rows::{self, Stored};
use crate::settle::forget_attempt;
use crate::shared::Shared;
use crate::transaction::{Counts, Desk, Transaction};

/// What the database knows of itself.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) epoch: u64,
    /// The greatest sequence that was ever given out.
    pub(crate) last: Sequence,
    pub(crate) functions: Vec<(FunctionName, FunctionStats)>,
}

/// Begins a new life: the epoch moves on, durably.
pub(crate) fn begin_life(connection: &Connection) -> SqlResult<Known> {
    connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'epoch'", [])?;
    let meta =
        |name: &str| connection.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get::<_, i64>(0));
    let newest: Option<i64> = connection.query_row("SELECT max(seq) FROM jobs", [], |row| row.get(0))?;
    let last = meta("sequence")?.max(newest.unwrap_or(0));
    Ok(Known {
        epoch: meta("epoch")?.cast_unsigned(),
        last: Sequence::from_bits(last.cast_unsigned()),
        functions: functions(connection)?,
    })
}

/// Goes on after what is known.
pub(crate) fn clockwork(known: &Known) -> Clockwork {
    Clockwork::after(known.last)
}

/// The functions, in the order of their ids, with their counts as stored.
pub(crate) fn functions(connection: &Connection) -> SqlResult<Vec<(FunctionName, FunctionStats)>> {
    let sql = "SELECT id, name, paused, scheduled, queued, succeeded, failed, cancelled, finished_bytes \
         FROM functions ORDER BY id";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut functions = Vec::new();
    while let Some(row) = rows.next()? {
        let is_in_order = row.get::<_, i64>(0)? == functions.len().cast_signed() as i64;
        let name: Option<FunctionName> = row.get_ref(1)?.as_str()?.parse().ok().filter(|_| is_in_order);
        let name = name.ok_or(FromSqlError::InvalidType)?;
        let count = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
        let stats = FunctionStats {
            paused: row.get(2)?,
            scheduled: count(3)?,
            queued: count(4)?,
            running: 0,
            succeeded: count(5)?,
            failed: count(6)?,
            cancelled: count(7)?,
            finished_bytes: count(8)?,
        };
        functions.push((name, stats));
    }
    Ok(functions)
}

/// Ends the attempts of the life before, in one transaction. May be tried again.
pub(crate) fn end_attempts(desk: &mut Desk<'_>, shared: &Shared) -> SqlResult<()> {
    let cut_off = cut_off(desk.connection)?;
    if cut_off.is_empty() {
        return Ok(());
    }
    let ended = end_all(desk, shared, cut_off);
    if ended.is_err() && !desk.connection.is_autocommit() {
        desk.connection.execute_batch("ROLLBACK")?;
    }
    let mut memory = shared.memory();
    for (index, counts) in ended?.iter().enumerate() {
        counts.add_to(&mut memory.functions[index].stored);
    }
    Ok(())
}

/// The key of a job whose attempt left a row: when it began if it was long, and whether it was to be cancelled.
type CutOff = (i64, Option<UnixMs>, bool);

fn end_all(desk: &mut Desk<'_>, shared: &Shared, cut_off: Vec<CutOff>) -> SqlResult<Vec<Counts>> {
    let mut tx = Transaction::begin(desk, shared)?;
    for (key, started_at, is_cancelled) in cut_off {
        let found = Stored::find_by_key(tx.desk.connection, key, |function| tx.shared.name(function))?;
        if let Some(stored) = found.filter(|stored| stored.job.state == State::Queued) {
            end_attempt(&mut tx, stored, started_at, is_cancelled)?;
        }
        forget_attempt(&tx, key, started_at.is_some(), is_cancelled)?;
    }
    let counts = tx.write_sums()?;
    desk.connection.execute_batch("COMMIT")?;
    Ok(counts)
}

fn cut_off(connection: &Connection) -> SqlResult<Vec<CutOff>> {
    let sql = "SELECT seq, started_at, EXISTS (SELECT 1 FROM cancels WHERE cancels.seq = started.seq) FROM started \
         UNION ALL SELECT seq, NULL, 1 FROM cancels WHERE seq NOT IN (SELECT seq FROM started)";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        let started_at = row.get::<_, Option<i64>>(1)?.map(|at| UnixMs(at.cast_unsigned()));
        Ok((row.get(0)?, started_at, row.get(2)?))
    })?;
    rows.collect()
}

fn end_attempt(
    tx: &mut Transaction<'_, '_>,
    stored: Stored,
    started_at: Option<UnixMs>,
    is_cancelled: bool,
) -> SqlResult<()> {
    let function = usize::try_from(stored.function).unwrap_or(usize::MAX);
    let mut job = stored.job;
    let before = job.started_at;
    let began = started_at.unwrap_or(tx.now);
    let ended = record::start(&mut job, began).and_then(|()| {
        job.cancel_requested = is_cancelled;
        match started_at {
            Some(_) => record::interrupt(&mut job, tx.now),
            None => record::release(&mut job, before, tx.now),
        }
    });
    match ended {
        Ok(()) => tx.move_job(function, State::Running, &job, &crate::transaction::ResultRow::default()),
        Err(error) => {
            tracing::error!(job_id = %rows::key(job.id), %error, "an attempt of the life before cannot be ended");
            Ok(())
        }
    }
}
