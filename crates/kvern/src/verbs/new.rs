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
/// Where the name of the function stands in them.
const PLACE_OF_NAME: &str = "FUNCTION";
/// Words that no function may be called in Python 3.
const PYTHON_WORDS: &str = "and as assert async await break class continue def del elif else except finally for from \
    global if import in is lambda nonlocal not or pass raise return try while with yield";
/// The same in a module of JavaScript.
const NODE_WORDS: &str = "arguments await break case catch class const continue debugger default delete do else enum \
    eval export extends false finally for function if implements import in instanceof interface let new null package \
    private protected public return static super switch this throw true try typeof var void while with yield";
/// What a function is called whose own name is a word of the language.
const OTHER_NAME: &str = "handler";

/// Writes the file and declares it; overwrites nothing.
pub(crate) fn run(global: &Global, new: &New) -> Outcome {
    let name: kvern_core::FunctionName =
        new.name.parse().map_err(|bad: kvern_core::name::BadName| Stop::usage(bad.to_string()))?;
    let stem = name.as_str().replace('-', "_");
    let called = called(&stem, new.language);
    let (file, text, declaration) = match new.language {
        Template::Python => (format!("{stem}.py"), PYTHON, format!("handler = \"{stem}.py:{called}\"")),
        Template::Node => (format!("{stem}.mjs"), NODE, format!("handler = \"{stem}.mjs\"")),
        Template::Shell => (format!("{stem}.sh"), SHELL, format!("exec = [\"./{stem}.sh\"]")),
    };
    let declared = declared(&name, &declaration)?;
    write_new(Path::new(&file), &text.replace(PLACE_OF_NAME, called))?;
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

/// The name of the function in the file.
fn called(stem: &str, language: Template) -> &str {
    let words = match language {
        Template::Python => PYTHON_WORDS,
        Template::Node => NODE_WORDS,
        Template::Shell => return stem,
    };
    if words.split_whitespace().any(|word| word == stem) { OTHER_NAME } else { stem }
}

/// A Python function of this name.
pub(crate) fn python(called: &str) -> String {
    PYTHON.replace(PLACE_OF_NAME, called)
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
