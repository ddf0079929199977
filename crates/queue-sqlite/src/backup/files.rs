//! The files of large payloads: those that rows name are copied, each against its checksum.

use std::path::Path;

use kvern_core::JobId;
use kvern_core::id::Sequence;
use rusqlite::Connection;

use crate::backup::copy::{Hears, Named, Progress, copy_file, named_after, named_bytes, sync_dir};
use crate::backup::error::BackupError;
use crate::finding::{Finding, Level};

const FIX: &str = "the payload is lost, and its job is not concerned if it has ended; `kvern doctor` says more";

/// What was copied.
#[derive(Debug, Default)]
pub(crate) struct Copied {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// Files that are not what was stored. They are copied as they are.
    pub(crate) findings: Vec<Finding>,
}

/// Copies every file that the database at `path` names from one folder into another.
pub(crate) fn copy_files(
    connection: &Connection,
    path: &Path,
    (from, to): (&Path, &Path),
    hears: Hears<'_>,
) -> Result<Copied, BackupError> {
    let failed = |error| BackupError::of_database("read", path, error);
    let of = named_bytes(connection).map_err(failed)?;
    let (mut copied, mut done, mut last) = (Copied::default(), 0, String::new());
    loop {
        let named = named_after(connection, &last).map_err(failed)?;
        let Some(newest) = named.last() else { break };
        last.clone_from(&newest.name);
        for file in named {
            let told = &mut |bytes| {
                done += bytes;
                hears(Progress { doing: "copying files", done, of });
            };
            copied.add(&file, copy_file(&from.join(&file.name), &to.join(&file.name), told))?;
        }
    }
    sync_dir(to)?;
    Ok(copied)
}

// === impl Copied ===

impl Copied {
    fn add(&mut self, file: &Named, was: Result<(u64, u32), BackupError>) -> Result<(), BackupError> {
        let what = match was {
            Ok(found) => {
                self.files += 1;
                self.bytes += found.0;
                (found != (file.bytes, file.crc32c)).then(|| "does not match its checksum".to_owned())
            }
            // One bad place on a disk must not keep the rest from being saved.
            Err(BackupError::Io { doing: "read", source, .. }) => Some(format!("cannot be read: {source}")),
            Err(error) => return Err(error),
        };
        if let Some(what) = what {
            let what = format!("blobs/{} {what}", file.name);
            let job = JobId::new(Sequence::from_bits(file.key.cast_unsigned()), file.random.cast_unsigned());
            self.findings.push(Finding { job: Some(job), ..Finding::new(Level::Damaged, "file", what, FIX) });
        }
        Ok(())
    }
}
