//! Forget: a finished job goes, with its input, result, log and key: once its time is over, or when somebody says so.

use std::path::PathBuf;

use kvern_core::id::Sequence;
use kvern_core::{JobId, State, UnixMs};
use kvern_queue::Error;
use rusqlite::{OptionalExtension, Result as SqlResult, Row, params};

use crate::effects::Effects;
use crate::keys;
use crate::log;
use crate::memory::Memory;
use crate::operation::Step;
use crate::rank::{Rank, in_index};
use crate::rows::{self, stored_time};
use crate::shared::Answer;
use crate::stuck::{self, Bad};
use crate::sweep::{limit, runs};
use crate::transaction::{Transaction, finished_bytes};

pub(crate) const OLDEST: &str = concat!(
    "SELECT seq, random, key IS NOT NULL, CASE typeof(input) WHEN 'text' THEN input END, past, pos, input_bytes FROM jobs \
     WHERE function = ?1 AND rank = ?2 AND pos <= ?3 AND ",
    in_index!(),
    " ORDER BY pos, seq LIMIT ?4"
);

const ONE: &str = "SELECT seq, random, key IS NOT NULL, CASE typeof(input) WHEN 'text' THEN input END, past, pos, input_bytes \
                   FROM jobs WHERE seq = ?1";

/// Forgets a finished job before its time.
#[derive(Debug)]
pub(crate) struct Forget {
    pub(crate) id: JobId,
    pub(crate) answer: Answer<()>,
}

/// A job to forget.
struct Finished {
    key: i64,
    id: JobId,
    state: State,
    finished_at: i64,
    has_key: bool,
    input_bytes: u64,
    input_file: Option<String>,
    has_past: bool,
}

impl Step for Forget {
    /// Its files.
    type Found = Vec<PathBuf>;

    fn apply(&self, tx: &mut Transaction<'_, '_>) -> SqlResult<Result<Vec<PathBuf>, Error>> {
        let id = self.id;
        let (function, state) = match tx.find(id)? {
            Ok(stored) => (usize::try_from(stored.function).unwrap_or(usize::MAX), stored.job.state),
            Err(unknown) => return Ok(Err(unknown)),
        };
        let state = if runs(tx, id) { State::Running } else { state };
        if !state.is_final() {
            return Ok(Err(Error::WrongState { id, state }));
        }
        let mut files = Vec::new();
        let job = tx.desk.connection.prepare_cached(ONE)?.query_row([rows::key(id)], |row| finished(row, state))?;
        forget(tx, function, &job, &mut files)?;
        keep_sequence(tx, 1)?;
        Ok(Ok(files))
    }

    fn finish(self, files: Vec<PathBuf>, _: &mut Memory, effects: &mut Effects) {
        effects.files.extend(files);
        effects.answer_done(self.answer, Ok(()));
    }

    fn refuse(self, why: Error, _: &mut Memory, effects: &mut Effects) {
        effects.answer_done(self.answer, Err(why));
    }
}

/// Forgets at most `most` jobs of a function that reached this state at or before a time. How many, and whether there
/// are more.
pub(crate) fn over_age(
    tx: &mut Transaction<'_, '_>,
    function: usize,
    state: State,
    before: UnixMs,
    most: usize,
    files: &mut Vec<PathBuf>,
) -> SqlResult<(usize, bool)> {
    let mut found = oldest(tx, function, state, before, most.saturating_add(1))?;
    let more = found.len() > most;
    found.truncate(most);
    for job in &found {
        forget(tx, function, job, files).map_err(|error| stuck::note(tx, job.key, Bad::Unwritable, error))?;
    }
    keep_sequence(tx, found.len())?;
    Ok((found.len(), more))
}

/// Forgets at most `most` finished jobs of a function, the oldest first, while they take more than they may together. How
/// many, and whether they still do.
pub(crate) fn over_size(
    tx: &mut Transaction<'_, '_>,
    function: usize,
    bytes_max: u64,
    most: usize,
    files: &mut Vec<PathBuf>,
) -> SqlResult<(usize, bool)> {
    if tx.finished_bytes(function) <= bytes_max {
        return Ok((0, false));
    }
    let mut found = Vec::new();
    for state in [State::Succeeded, State::Failed, State::Cancelled] {
        found.append(&mut oldest(tx, function, state, UnixMs(u64::MAX), most)?);
    }
    found.sort_by_key(|job| (job.finished_at, job.key));
    let mut gone = 0;
    for job in found.iter().take(most) {
        if tx.finished_bytes(function) <= bytes_max {
            break;
        }
        forget(tx, function, job, files).map_err(|error| stuck::note(tx, job.key, Bad::Unwritable, error))?;
        gone += 1;
    }
    keep_sequence(tx, gone)?;
    // Fewer than it might: then nothing is left, whatever the sum says.
    Ok((gone, gone == most && tx.finished_bytes(function) > bytes_max))
}

/// Ids must not go back, even if the newest rows are gone.
fn keep_sequence(tx: &Transaction<'_, '_>, gone: usize) -> SqlResult<()> {
    if gone > 0 {
        tx.run("UPDATE meta SET value = ?1 WHERE name = 'sequence'", [tx.desk.last.get().cast_signed()])?;
    }
    Ok(())
}

fn oldest(
    tx: &Transaction<'_, '_>,
    function: usize,
    state: State,
    before: UnixMs,
    most: usize,
) -> SqlResult<Vec<Finished>> {
    let mut statement = tx.desk.connection.prepare_cached(OLDEST)?;
    let rank = Rank::of(state, 0);
    let values = params![function.cast_signed() as i64, rank.get(), stored_time(before), limit(most)];
    let rows = statement.query_map(values, |row| finished(row, state))?;
    let mut found: Vec<Finished> = rows.collect::<SqlResult<_>>()?;
    // What cannot be removed stays for ever, and must not keep all others.
    let memory = tx.shared.memory();
    found.retain(|job| memory.bad(job.key).is_none());
    Ok(found)
}

/// A row of [`OLDEST`] or [`ONE`].
fn finished(row: &Row<'_>, state: State) -> SqlResult<Finished> {
    let key: i64 = row.get(0)?;
    let sequence = Sequence::from_bits(key.cast_unsigned());
    Ok(Finished {
        key,
        id: JobId::new(sequence, row.get::<_, i64>(1)?.cast_unsigned()),
        state,
        finished_at: row.get(5)?,
        has_key: row.get(2)?,
        input_bytes: row.get::<_, i64>(6)?.cast_unsigned(),
        input_file: row.get(3)?,
        has_past: row.get(4)?,
    })
}

fn forget(tx: &mut Transaction<'_, '_>, function: usize, job: &Finished, files: &mut Vec<PathBuf>) -> SqlResult<()> {
    if job.has_key {
        keys::outlive(tx, job.id)?;
    }
    let (result_bytes, result_file) = if job.has_past { result(tx, job.key)? } else { (0, None) };
    let bytes = finished_bytes(job.input_bytes, result_bytes, log::end(tx, job.key)?);
    for name in job.input_file.iter().chain(&result_file) {
        tx.run("DELETE FROM blobs WHERE name = ?1", [name])?;
        files.push(tx.shared.blobs.path(name));
    }
    if job.has_past {
        tx.run("DELETE FROM results WHERE seq = ?1", [job.key])?;
    }
    tx.run("DELETE FROM logs WHERE seq = ?1", [job.key])?;
    tx.run("DELETE FROM jobs WHERE seq = ?1", [job.key])?;
    tx.count_gone(function, job.state);
    tx.count_finished_bytes(function, -bytes);
    Ok(())
}

/// The size of a result, and its file if it has one.
fn result(tx: &Transaction<'_, '_>, key: i64) -> SqlResult<(u64, Option<String>)> {
    let sql = "SELECT ifnull(bytes, 0), CASE typeof(body) WHEN 'text' THEN body END FROM results WHERE seq = ?1";
    let mut statement = tx.desk.connection.prepare_cached(sql)?;
    let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?));
    Ok(statement.query_row([key], read).optional()?.unwrap_or_default())
}
