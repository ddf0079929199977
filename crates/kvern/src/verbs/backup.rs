//! `kvern backup`: create and verify.

use std::path::Path;

use kvern_core::Size;
use serde_json::json;

use crate::cli::{BackupVerb, Format, Global};
use crate::exit::{Outcome, Stop};
use crate::print;
use crate::upkeep::{self, Told};
use crate::wire::{self, kept};

/// Said only of a backup that is whole.
const VERIFIED: &str = "verified";

/// Does what the verb says.
pub(crate) fn run(global: &Global, verb: &BackupVerb) -> Outcome {
    upkeep::step_back();
    match verb {
        BackupVerb::Create { dir, data } => create(global, &upkeep::data_dir(data.as_ref())?, dir),
        BackupVerb::Verify { dir } => verify(global, dir),
    }
}

fn create(global: &Global, data: &Path, dir: &Path) -> Outcome {
    let mut told = Told::new();
    let made = kept::create_backup(data, dir, &mut |progress| told.hear(progress));
    let made = made.map_err(|error| wire::cannot_keep(&error))?;
    upkeep::print_findings(&made.findings);
    tell(global, dir, &made.label, "backed up", &made.findings);
    upkeep::judge(upkeep::damaged(&made.findings), |damaged| {
        Stop::failed(format!("the backup is made, but {damaged} files were damaged in {} already", data.display()))
            .hint("`kvern doctor` says which jobs are concerned; an older backup may have them whole")
    })
}

fn verify(global: &Global, dir: &Path) -> Outcome {
    let mut told = Told::new();
    let verified = kept::verify_backup(dir, &mut |progress| told.hear(progress));
    let (label, report) = verified.map_err(|error| wire::cannot_keep(&error))?;
    upkeep::print_findings(&report.findings);
    tell(global, dir, &label, VERIFIED, &report.findings);
    upkeep::judge(upkeep::damaged_of(&report), |damaged| {
        Stop::failed(format!("the backup in {} is damaged: {damaged} found", dir.display()))
            .hint("use another one; jobs that are not named above are whole")
    })
}

/// What is in a backup.
pub(crate) fn tell(global: &Global, dir: &Path, label: &kept::Label, done: &str, findings: &[kept::Finding]) {
    match global.output {
        Format::Json => {
            let label = serde_json::to_value(label).unwrap_or_default();
            print::json(&upkeep::with(json!({ "dir": dir, "findings": findings }), &label));
        }
        Format::Table if done == VERIFIED && !findings.is_empty() => {}
        Format::Table => {
            let bytes = Size(label.database_bytes + label.file_bytes);
            print::say(&format!("{done}: {} jobs, {bytes}, {}", label.jobs_in_all(), dir.display()));
        }
    }
}
