//! Verify: whether a backup is whole, without restoring it.

use std::path::Path;

use crate::backup::copy::Hears;
use crate::backup::create::sum;
use crate::backup::error::BackupError;
use crate::backup::label::Label;
use crate::check::{Report, check_backup};
use crate::finding::{Finding, Level};
use crate::queue::database;

const FIX: &str =
    "use another backup; what can be read of this one can be copied by hand and looked at with `kvern doctor`";

/// Reads all of a backup.
///
/// # Errors
/// [`BackupError`] if it is none, or cannot be read. Damage is no error.
pub fn verify(dir: &Path, hears: Hears<'_>) -> Result<(Label, Report), BackupError> {
    let label = Label::read(dir)?;
    let (bytes, crc32c) = sum(&database(dir), hears)?;
    let mut report = check_backup(dir, hears)?;
    let mut differs = |what: String| report.add(Finding::new(Level::Damaged, "backup", what, FIX));
    if bytes != label.database_bytes {
        differs(format!("queue.db has {bytes} bytes, and had {} when it was made", label.database_bytes));
    } else if crc32c != label.database_crc32c {
        differs("queue.db does not match the checksum that it had when it was made".to_owned());
    }
    let jobs = label.jobs_in_all();
    if report.jobs != jobs {
        let what = format!("{} jobs can be found, and there were {jobs} when it was made", report.jobs);
        report.add(Finding::new(Level::Damaged, "backup", what, FIX));
    }
    Ok((label, report))
}
