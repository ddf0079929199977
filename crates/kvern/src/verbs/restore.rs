//! `kvern restore`: from a backup to a data directory.

use crate::cli::{Global, Restore};
use crate::exit::{Outcome, Stop};
use crate::upkeep::{self, Told};
use crate::verbs::backup::tell;
use crate::wire::{self, kept};

/// Copies a backup to where a server may start.
pub(crate) fn run(global: &Global, restore: &Restore) -> Outcome {
    let data = upkeep::data_dir(restore.data.as_ref())?;
    let mut told = Told::new();
    let restored = kept::restore_backup(&restore.backup, &data, &mut |progress| told.hear(progress));
    let restored = restored.map_err(|error| wire::cannot_keep(&error))?;
    upkeep::print_findings(&restored.findings);
    tell(global, &data, &restored.label, "restored", &restored.findings);
    upkeep::judge(upkeep::damaged(&restored.findings), |damaged| {
        Stop::failed(format!("it is restored, but {damaged} files are damaged in the backup"))
            .hint("their jobs fail with reason `damaged` when they run; all others are whole")
    })
}
