//! `package.json` beside a Node.js handler.

use std::fs;
use std::path::{Component, Path};
use std::process::Command;

use serde_json::{Map, Value};

use crate::contract::{PrepareError, Progress};

use super::install::{self, Job};
use super::rule::Plan;
use super::version::Fields;
use super::{Interpreter, Settings, copy, error, failed, rule};

/// The file.
const PACKAGE: &str = "package.json";
/// The lock file of npm.
const LOCK: &str = "package-lock.json";
/// Files that npm reads, beside the package itself.
const FILES: [&str; 2] = [LOCK, ".npmrc"];
/// What names dependencies that a function needs when it runs.
const DEPENDENCIES: [&str; 2] = ["dependencies", "optionalDependencies"];
/// What npm does besides installing: scripts of the project itself need the project, which is not there.
const NOT_STAGED: [&str; 4] = ["scripts", "workspaces", "description", "bin"];

/// The dependencies of a handler.
#[derive(Debug)]
pub(super) struct Packages {
    /// The name of the folder that they are installed into.
    pub(super) name: String,
    package: String,
    local: Plan,
}

/// The dependencies of a handler in `folder`; none if there are none.
///
/// The name is a hash of the interpreter, what of `package.json` matters to npm, the lock file, `.npmrc`, and the local
/// packages that are named by path (`file:`).
pub(super) fn packages(
    settings: &Settings,
    folder: &Path,
    node: &Interpreter,
) -> Result<Option<Packages>, PrepareError> {
    let Some(package) = read_package(folder)? else { return Ok(None) };
    let mut fields = Fields::new("kvern node 1");
    fields.put(node.abi.as_bytes());
    let text = Value::Object(package.clone()).to_string();
    fields.put(text.as_bytes());
    let mut local = local_packages(settings, folder, &package)?;
    local.files.extend(FILES.iter().map(|name| rule::Entry::beside(folder, name)).filter(|file| file.source.is_file()));
    fields.put_contents(&copy::hash(&local)?);
    Ok(Some(Packages { name: format!("node-{}", fields.short()), package: text, local }))
}

/// Installs the dependencies with npm.
pub(super) async fn install(
    settings: &Settings,
    function: &str,
    folder: &Path,
    packages: &Packages,
    progress: &dyn Progress,
) -> Result<(), PrepareError> {
    let Some(npm) = &settings.npm else {
        return Err(error(format!(
            "{} names dependencies, and there is no npm on PATH to install them. Try: apt install npm",
            folder.join(PACKAGE).display()
        )));
    };
    let has_lock = folder.join(LOCK).is_file();
    let job = Job {
        function,
        what: PACKAGE,
        packages: &packages.name,
        stage: &|target| stage(packages, target),
        command: &|target| command(npm, target, has_lock),
        explain: &|words| explain(words, has_lock),
    };
    install::install(settings, &job, progress).await
}

fn stage(packages: &Packages, target: &Path) -> Result<(), PrepareError> {
    copy::copy(&packages.local, target)?;
    // npm writes the lock file when there is none, and the copies are read-only.
    let file = target.join(PACKAGE);
    fs::write(&file, &packages.package).map_err(|e| failed(format!("cannot write {}", file.display()), &e))
}

fn command(npm: &Path, target: &Path, has_lock: bool) -> Command {
    let mut command = Command::new(npm);
    command.arg(if has_lock { "ci" } else { "install" });
    command.args(["--omit=dev", "--no-audit", "--no-fund", "--no-update-notifier", "--no-progress", "--color=false"]);
    command.current_dir(target);
    command
}

/// What the last words of npm mean.
fn explain(words: &str, has_lock: bool) -> String {
    let after = |sign: &str| words.split_once(sign).map(|(_, rest)| rest.lines().next().unwrap_or_default());
    let (what, reason) = if words.contains("code E404") {
        // Some versions of npm write the name first and some later, all of them in quotes.
        let quoted = after("error 404  ").and_then(|line| line.split('\'').nth(1));
        (quoted, "there is no such package in the registry, or no right to see it; check its name")
    } else if words.contains("code ETARGET") {
        (after("No matching version found for "), "there is no such version; check it")
    } else if words.contains("code EUSAGE") && has_lock {
        (None, "package-lock.json does not fit it. Run `npm install` beside it, which writes the lock file anew")
    } else if install::found_no_room(words) {
        (None, "the disk is full")
    } else if ["ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT"].iter().any(|code| words.contains(code)) {
        (None, "the registry cannot be reached")
    } else {
        (None, "see the last lines of npm")
    };
    let named = what.map_or_else(String::new, |what| format!("{} of ", what.trim_end_matches('.')));
    format!("{named}{PACKAGE} cannot be installed: {reason}")
}

// === helpers ===

/// What of `package.json` matters to an installation; none if it names no dependencies.
fn read_package(folder: &Path) -> Result<Option<Map<String, Value>>, PrepareError> {
    let path = folder.join(PACKAGE);
    if !path.is_file() {
        return Ok(None);
    }
    let text = fs::read(&path).map_err(|e| failed(format!("cannot read {}", path.display()), &e))?;
    let mut package: Map<String, Value> =
        serde_json::from_slice(&text).map_err(|e| error(format!("{} is not valid: {e}", path.display())))?;
    package.retain(|key, _| !NOT_STAGED.contains(&key.as_str()));
    let has_dependencies = dependencies(&package).next().is_some();
    Ok(has_dependencies.then_some(package))
}

fn dependencies(package: &Map<String, Value>) -> impl Iterator<Item = (&String, &str)> {
    let tables = DEPENDENCIES.iter().filter_map(|key| package.get(*key)?.as_object());
    tables.flatten().map(|(name, version)| (name, version.as_str().unwrap_or_default()))
}

/// The files of packages that are named by path. npm links these, so they must lie beside what is installed.
fn local_packages(settings: &Settings, folder: &Path, package: &Map<String, Value>) -> Result<Plan, PrepareError> {
    let mut all = Plan::default();
    for (name, version) in dependencies(package) {
        let is_path = version.starts_with(['.', '/']);
        let Some(place) = version.strip_prefix("file:").or(is_path.then_some(version)) else { continue };
        let place = Path::new(place);
        if place.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(error(format!(
                "{}: {name} is at {version}, outside of the function's folder. Move it into the folder, or publish it",
                folder.join(PACKAGE).display()
            )));
        }
        let source = folder.join(place);
        let plan =
            if source.is_dir() { rule::plan(&source, None, &settings.data_dir)? } else { Plan::one_file(&source) };
        // A file stays at its own path, a folder's files below it.
        let at = if source.is_dir() { place } else { place.parent().unwrap_or(place) };
        all.add_below(at, plan);
    }
    Ok(all)
}
