//! `kvern doctor`: looks for damage in a data directory.

use kvern_core::Size;
use serde_json::json;

use crate::cli::{Doctor, Format, Global};
use crate::exit::{Outcome, Stop};
use crate::print;
use crate::upkeep::{self, Told};
use crate::wire::{self, kept};

/// Looks at everything that is stored, and says what to do about what it found.
pub(crate) fn run(global: &Global, doctor: &Doctor) -> Outcome {
    let data = upkeep::data_dir(doctor.data.as_ref())?;
    upkeep::step_back();
    let mut told = Told::new();
    let report = kept::check(&data, &mut |progress| told.hear(progress)).map_err(|error| wire::cannot_keep(&error))?;
    match global.output {
        Format::Json => {
            let seen = serde_json::to_value(&report).map_err(|error| Stop::failed(error.to_string()))?;
            print::json(&upkeep::with(json!({ "data": data }), &seen));
        }
        Format::Table => {
            upkeep::print_findings(&report.findings);
            let rows = [
                ("data", data.display().to_string()),
                ("server", report.server_pid.map_or("none".to_owned(), |pid| format!("process {pid}"))),
                ("schema", report.schema.to_string()),
                ("jobs", report.jobs.to_string()),
                ("database", Size(report.database_bytes).to_string()),
                ("files", report.files.to_string()),
                ("free", Size(report.free_bytes).to_string()),
                ("damaged", if report.is_damaged { "yes" } else { "no" }.to_owned()),
            ];
            for (name, value) in rows {
                print::line(&format!("{name:<10}{value}"));
            }
        }
    }
    upkeep::judge(upkeep::damaged_of(&report), |damaged| {
        let stop = Stop::failed(format!("damage in {}: {damaged} found", data.display()));
        match report.findings_more {
            0 => stop.hint("what to do is said with each"),
            more => stop.hint(format!("what to do is said with each; {more} more are not shown")),
        }
    })
}
