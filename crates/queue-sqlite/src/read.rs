//! Readers: a few connections that only read, used on tokio's blocking threads so that no worker of the runtime waits
//! for the disk. They see every commit that was made before they began.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use kvern_core::{Job, JobId, State};
use kvern_queue::{Error, Stored as StoredBytes};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Result as SqlResult};
use tokio::sync::Semaphore;

use crate::error::broken;
use crate::log;
use crate::rows::{self, IsDamaged, Stored, input_columns};
use crate::schema;
use crate::shared::Shared;

/// Most reads at once.
const READERS_MAX: usize = 4;

const INPUT: &str = concat!("SELECT random, content_type, ", input_columns!(), " FROM jobs WHERE seq = ?1");
const RESULT: &str = "SELECT content_type, bytes, crc32c, body FROM results WHERE seq = ?1 AND body IS NOT NULL";

/// The connections.
#[derive(Debug)]
pub(crate) struct Readers {
    path: PathBuf,
    idle: Arc<Mutex<Vec<Connection>>>,
    turns: Arc<Semaphore>,
}

// === impl Readers ===

impl Readers {
    /// Readers of this database; each is opened when it is first needed.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, idle: Arc::default(), turns: Arc::new(Semaphore::new(READERS_MAX)) }
    }

    /// Asks the database something.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> SqlResult<Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| closed())?;
        let (path, idle) = (self.path.clone(), Arc::clone(&self.idle));
        let answered = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let kept = lock(&idle).pop();
            let connection = kept.map_or_else(|| schema::open_reader(&path), Ok);
            let answer = connection.and_then(|connection| {
                let answer = question(&connection);
                lock(&idle).push(connection);
                answer
            });
            answer.unwrap_or_else(|error| Err(failed(&path, &error)))
        });
        match answered.await {
            Ok(answer) => answer,
            Err(error) => Err(Error::Broken(error.to_string())),
        }
    }
}

/// The record of a job as it stands.
pub(crate) fn get(connection: &Connection, shared: &Shared, id: JobId) -> SqlResult<Result<Job, Error>> {
    // The overlay first: what it shows has not ended before this look, and a row that has moved on since is right.
    let (running, stuck) = {
        let memory = shared.memory();
        (memory.running.get(&id).map(|running| Arc::clone(&running.job)), memory.stuck(id))
    };
    if let Some(stuck) = stuck {
        return Ok(Ok(Arc::unwrap_or_clone(stuck)));
    }
    let found = Stored::find(connection, id, |function| shared.name(function))?;
    Ok(match found {
        None => Err(Error::UnknownJob(id)),
        Some(stored) => Ok(overlaid(stored.job, running)),
    })
}

/// The stored record, or the running one if that is still the same attempt.
pub(crate) fn overlaid(stored: Job, running: Option<Arc<Job>>) -> Job {
    match running {
        Some(running) if stored.state == State::Queued && stored.tally == running.tally => {
            Arc::unwrap_or_clone(running)
        }
        _ => stored,
    }
}

/// The input of a job.
pub(crate) fn input(connection: &Connection, shared: &Shared, id: JobId) -> SqlResult<Result<StoredBytes, Error>> {
    let mut statement = connection.prepare_cached(INPUT)?;
    let found = statement.query_row([rows::key(id)], |row| {
        let is_it = row.get::<_, i64>(0)?.cast_unsigned() == id.random();
        let payload = rows::read_input(row, 2, &shared.blobs)?;
        Ok(is_it.then_some((row.get(1)?, payload)))
    });
    Ok(match found.optional()?.flatten() {
        None => Err(Error::UnknownJob(id)),
        Some((_, Err(IsDamaged))) => Err(Error::Damaged(id)),
        Some((content_type, Ok(payload))) => Ok(StoredBytes { content_type, payload }),
    })
}

/// The result of a job, if it has one.
pub(crate) fn result(
    connection: &Connection,
    shared: &Shared,
    id: JobId,
) -> SqlResult<Result<Option<StoredBytes>, Error>> {
    if !exists(connection, id)? {
        return Ok(Err(Error::UnknownJob(id)));
    }
    let mut statement = connection.prepare_cached(RESULT)?;
    let found = statement.query_row([rows::key(id)], |row| {
        Ok((row.get::<_, Option<String>>(0)?, rows::read_input(row, 1, &shared.blobs)?))
    });
    Ok(match found.optional()? {
        None => Ok(None),
        Some((_, Err(IsDamaged))) => Err(Error::Damaged(id)),
        Some((content_type, Ok(payload))) => Ok(Some(StoredBytes { content_type, payload })),
    })
}

/// A piece of the log of a job.
pub(crate) fn log(connection: &Connection, id: JobId, offset: u64, limit: usize) -> SqlResult<Result<Bytes, Error>> {
    if !exists(connection, id)? {
        return Ok(Err(Error::UnknownJob(id)));
    }
    log::read(connection, rows::key(id), offset, limit).map(Ok)
}

fn exists(connection: &Connection, id: JobId) -> SqlResult<bool> {
    let mut statement = connection.prepare_cached("SELECT random FROM jobs WHERE seq = ?1")?;
    let random = statement.query_row([rows::key(id)], |row| row.get::<_, i64>(0)).optional()?;
    Ok(random.is_some_and(|random| random.cast_unsigned() == id.random()))
}

/// SQLite does not say why it cannot open a file. The system does when it is asked for the same; if that succeeds, what
/// was missing is there again.
fn failed(path: &Path, error: &rusqlite::Error) -> Error {
    if error.sqlite_error_code() != Some(ErrorCode::CannotOpen) {
        return broken(error);
    }
    match File::open(path) {
        Ok(_) => Error::Busy(error.to_string()),
        Err(error) => Error::of_io("the database cannot be read", &error),
    }
}

fn closed() -> Error {
    Error::Closed("its readers are gone".to_owned())
}

fn lock(idle: &Mutex<Vec<Connection>>) -> std::sync::MutexGuard<'_, Vec<Connection>> {
    // A list of connections is whole at any time.
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}
