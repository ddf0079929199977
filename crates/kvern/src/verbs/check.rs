//! `kvern check`: every mistake in a manifest at once, or the schema of manifests.

use kvern_core::Function;
use kvern_manifest::Manifest;
use kvern_runtime::prepare;

use crate::cli::{Check, Format, Global};
use crate::exit::{Code, Outcome, Stop};
use crate::print;

/// Checks the manifest, or prints the schema.
pub(crate) fn run(global: &Global, check: &Check) -> Outcome {
    if check.schema {
        print::json(&kvern_manifest::schema());
        return Ok(());
    }
    let manifest = crate::manifest::load(&check.file)?;
    look_for_files(&manifest)?;
    if manifest.functions.is_empty() {
        return Err(Stop::new(Code::Usage, format!("{} declares no function", check.file.display()))
            .hint("add one with `kvern new NAME`"));
    }
    match global.output {
        Format::Json => print::json(&serde_json::json!({
            "file": check.file,
            "functions": manifest.functions.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(),
        })),
        Format::Table => {
            let rows: Vec<Vec<String>> =
                manifest.functions.iter().map(|f| vec![f.name.to_string(), f.door.describe()]).collect();
            print::table(&["function", "runs"], &rows);
            print::say(&format!("{}: good", check.file.display()));
        }
    }
    Ok(())
}

/// A server would serve the others. Whoever asks before wants to know.
fn look_for_files(manifest: &Manifest) -> Outcome {
    let missing = |function: &Function| Some(format!("`{}`: {}", function.name, prepare::check(function).err()?));
    let missing: Vec<String> = manifest.functions.iter().filter_map(missing).collect();
    match &missing[..] {
        [] => Ok(()),
        [first, others @ ..] => Err(others.iter().fold(Stop::usage(first), Stop::hint)),
    }
}
