//! Opening: who may, what is refused, and with which words.

use std::os::unix::fs::PermissionsExt;

use kvern_queue::{Clock, Error, Queue};
use kvern_queue_sqlite::{OpenError, Options, SCHEMA, SqliteQueue};
use tempfile::TempDir;

use crate::setup::{EPOCH, Setup, job};

fn refused(dir: &TempDir) -> OpenError {
    let options = Options { dir: dir.path().to_owned(), clock: Clock::manual(EPOCH) };
    SqliteQueue::open(options).expect_err("the directory must not open")
}

#[tokio::test]
async fn a_data_directory_may_have_any_name() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::TempDir::new().expect("a directory");
    let odd = dir.path().join(std::ffi::OsStr::from_bytes(b"data-\xff\xfe"));
    let clock = kvern_queue::Clock::manual(crate::setup::EPOCH);
    let queue = crate::setup::open(&odd, &clock);
    // Enough keys for a few runs of them, which a start reads.
    let mut first = Vec::new();
    for number in 0..40 {
        first.push(queue.submit(crate::setup::keyed("f", number)).await.expect("there is room").id);
    }
    queue.crash();
    drop(queue);
    let queue = crate::setup::open(&odd, &clock);
    for (number, id) in (0..).zip(first) {
        let again = queue.submit(crate::setup::keyed("f", number)).await.expect("a twin");
        assert_eq!((again.id, again.duplicate), (id, true));
    }
}

#[tokio::test]
async fn a_second_server_is_refused_and_told_who_has_it() {
    let t = Setup::new();
    let error = refused(&t.dir);
    assert!(matches!(error, OpenError::InUse { pid: Some(pid), .. } if pid == std::process::id()), "{error:?}");
    assert!(error.to_string().contains("is in use by another server (process "), "{error}");

    t.queue.close().await;
    let again = crate::setup::open(t.dir.path(), &t.clock);
    again.submit(job("f")).await.expect("the directory is free after a close");
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let (database, _, dir) = Setup::new().stop().await;
    database.pragma_update(None, "user_version", SCHEMA + 1).expect("sets the version");
    drop(database);
    let error = refused(&dir);
    assert!(matches!(error, OpenError::Newer { found, known: SCHEMA, .. } if found == SCHEMA + 1), "{error:?}");
    assert!(error.to_string().contains("newer Kvern"), "{error}");
}

#[tokio::test]
async fn the_database_of_another_program_is_refused_untouched() {
    let (database, _, dir) = Setup::new().stop().await;
    drop(database);
    for name in ["queue.db", "queue.db-wal", "queue.db-shm"] {
        let _ = std::fs::remove_file(dir.path().join(name));
    }
    let path = dir.path().join("queue.db");
    let theirs = rusqlite::Connection::open(&path).expect("a database");
    theirs.execute_batch("CREATE TABLE jobs (x)").expect("a table");
    drop(theirs);
    let before = std::fs::read(&path).expect("a file");
    let error = refused(&dir);
    assert!(matches!(error, OpenError::Foreign { .. }), "{error:?}");
    assert!(error.to_string().contains("no database of Kvern"), "{error}");
    assert!(std::fs::read(&path).expect("a file") == before, "it was written to");
}

#[tokio::test]
async fn what_is_no_database_is_refused() {
    let (database, _, dir) = Setup::new().stop().await;
    drop(database);
    std::fs::write(dir.path().join("queue.db"), b"this is not a database, but long enough to look at").expect("writes");
    let error = refused(&dir);
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
    let said = error.to_string();
    assert!(said.contains("kvern doctor --data ") && said.contains("kvern restore BACKUP"), "{said}");
}

#[tokio::test]
async fn what_is_stored_is_for_its_owner_alone() {
    let dir = TempDir::new().expect("a directory");
    let open_to_all = |mode| std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(dir.path(), open_to_all(0o755)).expect("a mode");
    let names = ["queue.db", "queue.db-wal", "queue.db-shm", "queue.lock", "blobs"];
    let looks = || {
        let mode = |name: &&str| dir.path().join(name).metadata().map_or(0, |file| file.permissions().mode() & 0o077);
        names.iter().filter(|name| mode(name) != 0).copied().collect::<Vec<_>>()
    };
    let clock = Clock::manual(EPOCH);
    let queue = crate::setup::open(dir.path(), &clock);
    queue.submit(job("f")).await.expect("it is stored");
    assert_eq!(looks(), [""; 0], "as made");
    queue.close().await;
    // As an older version left them.
    std::fs::set_permissions(dir.path().join("queue.db"), open_to_all(0o644)).expect("a mode");
    std::fs::set_permissions(dir.path().join("blobs"), open_to_all(0o755)).expect("a mode");
    let queue = crate::setup::open(dir.path(), &clock);
    queue.submit(job("f")).await.expect("it is stored");
    assert_eq!(looks(), [""; 0], "as found");
    assert_eq!(dir.path().metadata().expect("it is there").permissions().mode() & 0o777, 0o755);
}

#[tokio::test]
async fn the_directory_is_made_for_its_owner_alone() {
    let outer = TempDir::new().expect("a directory");
    let dir = outer.path().join("data/deeper");
    let queue = crate::setup::open(&dir, &Clock::manual(EPOCH));
    let mode = std::fs::metadata(&dir).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    queue.close().await;
}

#[tokio::test]
async fn a_closed_queue_refuses_and_still_shows() {
    let t = Setup::new();
    let id = t.submit(job("f")).await;
    t.queue.close().await;
    t.queue.close().await;
    assert!(matches!(t.queue.submit(job("f")).await, Err(Error::Closed(_))));
    assert!(matches!(t.queue.health(), Err(Error::Closed(_))));
    assert_eq!(t.queue.get(id).await.expect("reads go on").id, id);
}

#[tokio::test]
async fn a_clean_close_leaves_no_log_behind() {
    let t = Setup::new();
    t.submit(job("f")).await;
    t.queue.close().await;
    let log = std::fs::metadata(t.dir.path().join("queue.db-wal")).map_or(0, |log| log.len());
    assert_eq!(log, 0, "the log is copied into the database");
}
