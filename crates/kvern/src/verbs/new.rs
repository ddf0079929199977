//! `kvern new`: a function that works, in the language asked for, and its lines in kvern.toml.

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::cli::{Format, Global, New, Template};
use crate::exit::{Code, Outcome, Stop};
use crate::print;

const MANIFEST: &str = "kvern.toml";
const PYTHON: &str = include_str!("../templates/function.py");
const NODE: &str = include_str!("../templates/function.mjs");
const SHELL: &str = include_str!("../templates/function.sh");

/// Writes the file and declares it; overwrites nothing.
pub(crate) fn run(global: &Global, new: &New) -> Outcome {
    let name: kvern_core::FunctionName =
        new.name.parse().map_err(|bad: kvern_core::name::BadName| Stop::usage(bad.to_string()))?;
    let stem = name.as_str().replace('-', "_");
    let (file, text, declaration) = match new.language {
        Template::Python => (format!("{stem}.py"), PYTHON, format!("handler = \"{stem}.py:{stem}\"")),
        Template::Node => (format!("{stem}.mjs"), NODE, format!("handler = \"{stem}.mjs\"")),
        Template::Shell => (format!("{stem}.sh"), SHELL, format!("exec = [\"./{stem}.sh\"]")),
    };
    let declared = declared(&name, &declaration)?;
    write_new(Path::new(&file), &text.replace("FUNCTION", &stem))?;
    if new.language == Template::Shell {
        make_executable(Path::new(&file))?;
    }
    fs::write(MANIFEST, declared).map_err(|error| Stop::failed(format!("cannot write {MANIFEST}: {error}")))?;
    match global.output {
        Format::Table => {
            print::say(&format!("wrote {file} and declared it in kvern.toml"));
            print::say("next: kvern dev");
        }
        Format::Json => print::json(&serde_json::json!({ "function": name.as_str(), "file": file })),
    }
    Ok(())
}

/// Writes a file that must not exist yet.
pub(crate) fn write_new(path: &Path, text: &str) -> Outcome {
    let mut file = fs::File::create_new(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Stop::new(Code::Conflict, format!("{} is there already", path.display())).hint("choose another name")
        }
        _ => Stop::failed(format!("cannot write {}: {error}", path.display())),
    })?;
    Ok(file.write_all(text.as_bytes())?)
}

/// kvern.toml with the function, if the whole is still a good manifest.
fn declared(name: &kvern_core::FunctionName, declaration: &str) -> Result<String, Stop> {
    let path = Path::new(MANIFEST);
    let before = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Stop::failed(format!("cannot read kvern.toml: {error}"))),
    };
    if before.contains(&format!("[functions.{name}]")) {
        return Err(Stop::new(Code::Conflict, format!("kvern.toml declares a function `{name}` already")));
    }
    let gap = if before.is_empty() || before.ends_with("\n\n") { "" } else { "\n" };
    let after = format!("{before}{gap}[functions.{name}]\n{declaration}\n");
    crate::manifest::check(&after, path)?;
    Ok(after)
}

fn make_executable(path: &Path) -> Outcome {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}
