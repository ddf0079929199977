//! What is copied of an exec function, and how the copy is run.
//!
//! - The program, if it is named with a `/` and lies in the function's home. A compiled program is copied alone; a
//!   script together with its folder, by the rule for handlers, because it may read what lies beside it.
//! - An argument that is code: a file in the home that begins with `#!` or whose name ends as code does, such as
//!   `hello.sh` in `["sh", "hello.sh"]`. It is copied as a script. Other arguments are left as they are: they may
//!   name what the program writes.
//!
//! Run where they are, and only hashed: programs outside of the home, links that lead out of it, and what lies in a
//! hidden folder, `venv` or `node_modules`, since such programs look for their like around themselves.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use kvern_core::Door;
use rustix::fs::Access;

use crate::contract::{FunctionVersion, PrepareError};

use super::rule::{self, Entry, Plan};
use super::tools::find;
use super::version::Content;
use super::{copy, error, failed};

/// Largest program: it is copied and hashed whenever the function is prepared.
const PROGRAM_BYTES_MAX: u64 = 512 << 20;

/// Program and arguments of an exec function, with what was copied replaced by the copy and a program of the home by
/// its absolute path; empty for a handler.
#[must_use]
pub fn exec_argv(version: &FunctionVersion) -> Vec<OsString> {
    let Door::Exec { argv } = &version.function.door else { return Vec::new() };
    let home = &version.function.home;
    let run = |(place, argument): (usize, &String)| {
        let is_program = place == 0 && argument.contains('/');
        let copied = below(home, argument).map(|path| version.code.join(path));
        match copied.filter(|copied| copied.is_file() && (is_program || is_code(copied))) {
            Some(copied) => copied.into_os_string(),
            None if is_program => at(home, argument).into_os_string(),
            None => argument.into(),
        }
    };
    argv.iter().enumerate().map(run).collect()
}

/// What is copied, and what is only hashed.
pub(super) fn plan(home: &Path, argv: &[String], data_dir: &Path) -> Result<(Plan, Vec<Content>), PrepareError> {
    check(home, argv)?;
    let mut plan = Plan::default();
    let mut in_place = Plan::default();
    let mut folders = BTreeSet::new();
    for (place, argument) in argv.iter().enumerate() {
        let source = at(home, argument);
        let is_program = place == 0 && argument.contains('/');
        if !is_program && (place == 0 || !source.is_file() || !is_code(&source)) {
            continue;
        }
        let Some(path) = inside(home, argument) else {
            in_place.files.push(Entry { path: argument.into(), source });
            continue;
        };
        if is_script(&source) {
            folders.insert(path.parent().map(PathBuf::from).unwrap_or_default());
        }
        plan.files.push(Entry { path, source });
    }
    for folder in folders {
        add_folder(&mut plan, home, &folder, data_dir)?;
    }
    // Once more, for the order: an argument that is named twice is copied once.
    plan.add_below(Path::new(""), Plan::default());
    Ok((plan, copy::hash(&in_place)?))
}

fn add_folder(plan: &mut Plan, home: &Path, folder: &Path, data_dir: &Path) -> Result<(), PrepareError> {
    let source = home.join(folder);
    let mut beside = rule::plan(&source, None, data_dir)?;
    // Nobody installs the packages of an exec function: a script finds those that are there.
    let modules = Entry::beside(&source, "node_modules");
    if modules.source.is_dir() {
        beside.links.push(modules);
    }
    plan.add_below(folder, beside);
    Ok(())
}

/// Whether the program can be started at all.
pub(super) fn check(home: &Path, argv: &[String]) -> Result<(), PrepareError> {
    let Some(argument) = argv.first() else { return Ok(()) };
    let source = &at(home, argument);
    if !argument.contains('/') {
        return match find(argument) {
            Some(_) => Ok(()),
            None if source.is_file() => Err(error(format!(
                "there is no program {argument} on PATH; to run the file beside kvern.toml write \"./{argument}\" in `exec`"
            ))),
            None => Err(error(format!("there is no program {argument} on PATH: install it, or correct `exec`"))),
        };
    }
    let shown = source.display();
    let metadata = match source.metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(error(format!("there is no file {shown}: build it, or correct `exec` in kvern.toml")));
        }
        metadata => metadata.map_err(|e| failed(format!("cannot read {shown}"), &e))?,
    };
    if !metadata.is_file() {
        return Err(error(format!("{shown} is no program but a folder or device: correct `exec` in kvern.toml")));
    }
    if rustix::fs::access(source, Access::EXEC_OK).is_err() {
        return Err(error(format!("{shown} is not executable. Try: chmod +x {shown}")));
    }
    if metadata.len() > PROGRAM_BYTES_MAX {
        let most = PROGRAM_BYTES_MAX >> 20;
        return Err(error(format!("{shown} is larger than {most} MiB, the most that is copied as a program")));
    }
    Ok(())
}

// === helpers ===

/// Where an argument is, without the `.` of `./bin`.
fn at(home: &Path, argument: &str) -> PathBuf {
    home.join(argument).components().collect()
}

/// The path of an argument in the copy, if it is to be copied.
fn inside(home: &Path, argument: &str) -> Option<PathBuf> {
    let path = below(home, argument)?;
    let real = fs::canonicalize(home.join(&path)).ok()?;
    real.starts_with(fs::canonicalize(home).ok()?).then_some(path)
}

/// The path that an argument would have in the copy, by its words alone.
fn below(home: &Path, argument: &str) -> Option<PathBuf> {
    let path = Path::new(argument);
    let path = if path.is_absolute() { path.strip_prefix(home).ok()? } else { path };
    let parts: Vec<_> = path.components().filter(|part| *part != Component::CurDir).collect();
    let (_, folders) = parts.split_last()?;
    let is_below = parts.iter().all(|part| matches!(part, Component::Normal(_)));
    let is_in_tools = folders.iter().any(|part| rule::is_tool_folder(part.as_os_str()));
    (is_below && !is_in_tools).then(|| parts.iter().collect())
}

/// Whether a file is code by its name or its first two bytes.
fn is_code(path: &Path) -> bool {
    rule::is_code_name(path) || begins_with(path, b"#!")
}

/// Whether a file is code that another program reads.
fn is_script(path: &Path) -> bool {
    !begins_with(path, b"\x7fELF") && is_code(path)
}

fn begins_with(path: &Path, magic: &[u8]) -> bool {
    let mut first = vec![0; magic.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut first)).is_ok() && first == magic
}
