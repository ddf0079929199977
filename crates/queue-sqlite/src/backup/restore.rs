//! Restore: from a backup to a data directory that a server may start on.

use std::fs;
use std::path::Path;

use crate::backup::copy::{Hears, PARTIAL, Progress, copy_file, make_blobs, open_still, sync_dir};
use crate::backup::create::Begun;
use crate::backup::error::BackupError;
use crate::backup::files::copy_files;
use crate::backup::label::Label;
use crate::finding::Finding;
use crate::queue::database;

/// A backup that was restored.
#[derive(Debug)]
pub struct Restored {
    /// What is in it.
    pub label: Label,
    /// Files that are damaged in the backup: their jobs fail when they run.
    pub findings: Vec<Finding>,
}

/// Copies a backup into a new or empty directory. The name of the database comes last: until then no server starts there.
///
/// # Errors
/// [`BackupError`] says why it was not restored. What was begun is removed.
pub fn restore(backup: &Path, dir: &Path, hears: Hears<'_>) -> Result<Restored, BackupError> {
    let label = Label::read(backup)?;
    let begun = Begun::begin(dir)?;
    let (from, partial) = (database(backup), dir.join(PARTIAL));
    let mut done = 0;
    let told = &mut |bytes| {
        done += bytes;
        hears(Progress { doing: "copying the database", done, of: label.database_bytes });
    };
    let found = copy_file(&from, &partial, told)?;
    if found != (label.database_bytes, label.database_crc32c) {
        let what = "it is not what was backed up (`kvern backup verify` says what is damaged)".to_owned();
        return Err(BackupError::Damaged { path: from, what });
    }
    let connection = open_still(&partial).map_err(|error| BackupError::of_database("read", &partial, error))?;
    let copied = copy_files(&connection, &partial, (&backup.join("blobs"), &make_blobs(dir)?), hears)?;
    drop(connection);
    sync_dir(dir)?;
    fs::rename(&partial, database(dir)).map_err(|error| BackupError::of_io("name", &partial, error))?;
    sync_dir(dir)?;
    begun.finish()?;
    Ok(Restored { label, findings: copied.findings })
}
