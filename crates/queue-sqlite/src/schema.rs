//! The schema and its versions, and how connections are set up.
//!
//! What makes a database invalid: a `user_version` above [`SCHEMA`]. Migrations run one by one, each in a transaction
//! with the new version number; they are never edited once released.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Result as SqlResult, Row};

use crate::error::OpenError;

/// Migrations, the first from an empty database.
const MIGRATIONS: [&str; 1] = [include_str!("../migrations/0001.sql")];
/// The newest schema that this program knows.
pub const SCHEMA: i64 = MIGRATIONS.len() as i64;

/// SQLite before this has a bug in the reset of the write-ahead log that can damage the database.
const SQLITE_MIN: i32 = 3_051_003;

/// The write-ahead log keeps at most this size once it is copied.
const LOG_BYTES_KEPT: i64 = 64 << 20;
/// Page cache of the writer, in KiB.
const WRITER_CACHE_KIB: i64 = 16 << 10;
/// Page cache of each reader, in KiB.
const READER_CACHE_KIB: i64 = 2 << 10;
/// Statements that a connection keeps prepared.
const STATEMENTS_MAX: usize = 64;

/// The writer's connection, with the schema up to date.
pub(crate) fn open_writer(path: &Path) -> Result<Connection, OpenError> {
    if rusqlite::version_number() < SQLITE_MIN {
        return Err(OpenError::OldSqlite { found: rusqlite::version() });
    }
    let failed = |source| OpenError::of_database(path, source);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    if found > SCHEMA {
        return Err(OpenError::Newer { path: path.to_owned(), found, known: SCHEMA });
    }
    if found == 0 && has_tables(&connection).map_err(failed)? {
        return Err(OpenError::Foreign { path: path.to_owned() });
    }
    set_up_writer(&connection).map_err(failed)?;
    migrate(&mut connection, found).map_err(failed)?;
    Ok(connection)
}

/// Our own tables come in one transaction with the version.
fn has_tables(connection: &Connection) -> SqlResult<bool> {
    connection.query_row("SELECT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))
}

/// A connection that only reads.
pub(crate) fn open_reader(path: &Path) -> SqlResult<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    set_up(&connection, READER_CACHE_KIB)?;
    Ok(connection)
}

fn set_up_writer(connection: &Connection) -> SqlResult<()> {
    set_up(connection, WRITER_CACHE_KIB)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // A log that a long read made long is cut when it begins anew.
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT)?;
    // The writer checkpoints between batches, where nobody waits for a commit.
    connection.pragma_update(None, "wal_autocheckpoint", 0)
}

fn set_up(connection: &Connection, cache_kib: i64) -> SqlResult<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // A store that failed must not be written again by the mere end of the process.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "temp_store", "MEMORY")
}

/// The file of a database. (What rusqlite says of it is only there where it is UTF-8.)
pub(crate) fn path_of(connection: &Connection) -> PathBuf {
    let sql = "SELECT file FROM pragma_database_list WHERE name = 'main'";
    let read = |row: &Row<'_>| Ok(PathBuf::from(OsStr::from_bytes(row.get_ref(0)?.as_bytes()?)));
    // A database that was opened from a file has one.
    connection.query_row(sql, [], read).unwrap_or_default()
}

/// Bytes in free pages of the database: what forgotten jobs leave, and new ones take. A look at one page.
pub(crate) fn free_bytes(connection: &Connection) -> u64 {
    let sql = "SELECT freelist_count * page_size FROM pragma_freelist_count, pragma_page_size";
    let counted = connection.prepare_cached(sql).and_then(|mut count| count.query_row([], |row| row.get(0)));
    // Who cannot count them does not count on them.
    counted.map_or(0, i64::cast_unsigned)
}

fn migrate(connection: &mut Connection, found: i64) -> SqlResult<()> {
    for (step, sql) in (1..).zip(MIGRATIONS).filter(|(step, _)| *step > found) {
        let tx = connection.transaction()?;
        tx.execute_batch(sql)?;
        tx.pragma_update(None, "user_version", step)?;
        tx.commit()?;
    }
    Ok(())
}
