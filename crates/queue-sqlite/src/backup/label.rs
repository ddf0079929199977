//! The label of a backup: what is in it, written last.
//!
//! What makes a backup invalid: no label (it was not finished), a label that is not whole, a `format` or `schema` above
//! ours, a database with another size or checksum. The files need no checksums here: the rows of the database have them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use kvern_core::UnixMs;
use serde::{Deserialize, Serialize};

use crate::backup::error::BackupError;
use crate::schema::SCHEMA;

/// The newest format of labels that this program knows.
pub(crate) const FORMAT: u32 = 1;

/// What is in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// The format of this label.
    pub format: u32,
    /// The version of Kvern that made it.
    pub kvern: String,
    /// The schema of the database.
    pub schema: i64,
    /// The moment that it shows, in Unix milliseconds.
    pub taken_at_ms: UnixMs,
    /// Size of the database.
    pub database_bytes: u64,
    /// CRC-32C of the database.
    pub database_crc32c: u32,
    /// Files of large payloads.
    pub files: u64,
    /// Their size together.
    pub file_bytes: u64,
    /// Jobs by state; those that ran are counted as queued.
    pub jobs: BTreeMap<String, u64>,
}

/// Whether a directory is a backup, finished or not.
pub(crate) fn is_labelled(dir: &Path) -> bool {
    path(dir).exists()
}

// === impl Label ===

impl Label {
    /// Jobs in all.
    #[must_use]
    pub fn jobs_in_all(&self) -> u64 {
        self.jobs.values().sum()
    }

    /// The label of a backup.
    pub(crate) fn read(dir: &Path) -> Result<Self, BackupError> {
        let path = path(dir);
        let text = fs::read(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if super::copy::is_begun(dir) => BackupError::Unfinished { dir: dir.to_owned() },
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => BackupError::NoBackup { dir: dir.to_owned() },
            _ => BackupError::of_io("read", &path, error),
        })?;
        let damaged = |error: serde_json::Error| BackupError::Damaged { path: path.clone(), what: error.to_string() };
        let newer = |what| Err(BackupError::Newer { path: path.clone(), what });
        // A newer label may have other fields.
        let value: serde_json::Value = serde_json::from_slice(&text).map_err(damaged)?;
        if let Some(format) = value["format"].as_u64().filter(|format| *format > u64::from(FORMAT)) {
            return newer(format!("format {format}, this one knows up to {FORMAT}"));
        }
        let label: Self = serde_json::from_value(value).map_err(damaged)?;
        if label.schema > SCHEMA {
            return newer(format!("schema {}, this one knows up to {SCHEMA}", label.schema));
        }
        Ok(label)
    }

    /// Makes the backup one: everything else in it is on disk already. The name appears with the whole label or not at all.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), BackupError> {
        let (path, begun) = (path(dir), dir.join("backup.partial"));
        let write = || {
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&begun)?;
            let mut text = serde_json::to_vec_pretty(self)?;
            text.push(b'\n');
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&begun, &path)?;
            File::open(dir)?.sync_all()
        };
        write().map_err(|error| BackupError::of_io("write", &path, error))
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join("backup.json")
}
