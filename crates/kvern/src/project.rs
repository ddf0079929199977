//! What `kvern dev` serves: a manifest, or a file whose public functions become functions of Kvern.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kvern_manifest::Manifest;

use crate::exit::{Code, Outcome, Stop};
use crate::print;
use crate::verbs::new::write_new;

const MANIFEST: &str = "kvern.toml";
const HELLO: &str = include_str!("templates/hello.py");

/// Prints the names of the public functions of a Python file, one a line, without running it.
const LIST_FUNCTIONS: &str = "\
import ast, sys
tree = ast.parse(open(sys.argv[1], 'rb').read(), sys.argv[1])
for node in tree.body:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith('_'):
        print(node.name)
";

/// Where the functions come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Project {
    /// This kvern.toml.
    Manifest(PathBuf),
    /// This function file.
    File(PathBuf),
}

impl Project {
    /// The given file, else the manifest here, else in an empty folder a fresh `hello.py`.
    pub(crate) fn find(file: Option<&Path>, config: Option<&Path>) -> Result<Self, Stop> {
        match (file, config) {
            (_, Some(config)) => Ok(Self::Manifest(config.to_owned())),
            (Some(file), None) => Self::of_file(file),
            (None, None) if Path::new(MANIFEST).is_file() => Ok(Self::Manifest(MANIFEST.into())),
            (None, None) if is_empty_folder() => {
                write_new(Path::new("hello.py"), HELLO)?;
                print::say("This folder was empty, so I wrote hello.py: edit it and save, and it reloads.");
                Ok(Self::File("hello.py".into()))
            }
            (None, None) => Err(Stop::new(Code::Usage, format!("there is no {MANIFEST} here"))
                .hint("serve one file with `kvern dev FILE.py`, or begin with `kvern new NAME`")),
        }
    }

    fn of_file(file: &Path) -> Result<Self, Stop> {
        if !file.is_file() {
            return Err(Stop::new(Code::Usage, format!("there is no file {}", file.display())));
        }
        if file.extension().is_some_and(|ending| ending == "toml") {
            return Ok(Self::Manifest(file.to_owned()));
        }
        Ok(Self::File(file.to_owned()))
    }

    /// The functions as they stand now.
    pub(crate) fn read(&self) -> Result<Manifest, Stop> {
        match self {
            Self::Manifest(path) => crate::manifest::load(path),
            Self::File(path) => {
                let file = std::path::absolute(path)?;
                let home = file.parent().unwrap_or(Path::new("/"));
                crate::manifest::check(&declare(&file)?, &home.join(MANIFEST))
            }
        }
    }

    /// The folder that holds the code, to be watched.
    pub(crate) fn home(&self) -> PathBuf {
        let (Self::Manifest(path) | Self::File(path)) = self;
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        path.parent().unwrap_or(Path::new("/")).to_owned()
    }
}

/// A manifest for the functions of one file.
fn declare(file: &Path) -> Result<String, Stop> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let stem = file.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    match file.extension().and_then(|ending| ending.to_str()) {
        Some("py") => {
            let functions = python_functions(file)?;
            Ok(functions.iter().map(|f| section(&f.to_lowercase(), "handler", &format!("\"{name}:{f}\""))).collect())
        }
        Some("mjs" | "js" | "cjs") => Ok(section(&stem, "handler", &format!("\"{name}\""))),
        _ => Ok(section(&stem, "exec", &format!("[\"./{name}\"]"))),
    }
}

fn section(name: &str, key: &str, value: &str) -> String {
    format!("[functions.{name}]\n{key} = {value}\n\n")
}

fn python_functions(file: &Path) -> Result<Vec<String>, Stop> {
    let python = Command::new("python3").args(["-c", LIST_FUNCTIONS]).arg(file).output();
    let output = python.map_err(|error| {
        Stop::failed(format!("cannot run python3: {error}")).hint("install it: apt-get install python3")
    })?;
    if !output.status.success() {
        let trace = String::from_utf8_lossy(&output.stderr);
        let mut stop = Stop::failed(format!("{} does not parse", file.display()));
        for line in trace.lines().skip_while(|line| !line.contains(&*file.to_string_lossy())) {
            stop = stop.hint(line);
        }
        return Err(stop);
    }
    let names: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    if names.is_empty() {
        return Err(Stop::new(Code::Usage, format!("{} defines no public function", file.display()))
            .hint("write one: def hello(name: str = \"world\"): return {\"hello\": name}"));
    }
    Ok(names)
}

/// Whether there is nothing here but hidden files.
fn is_empty_folder() -> bool {
    let entries = fs::read_dir(".").into_iter().flatten().flatten();
    entries.into_iter().all(|entry| entry.file_name().to_string_lossy().starts_with('.'))
}

/// Removes the data of earlier runs, if it is data of ours.
pub(crate) fn clean(data: &Path) -> Outcome {
    if !data.exists() {
        return Ok(());
    }
    if !data.join(kvern_queue_sqlite::LOCK_FILE).exists() {
        return Err(Stop::new(Code::Conflict, format!("{} is not a data directory of Kvern", data.display()))
            .hint("remove it yourself if you are sure"));
    }
    if let Some(pid) = kvern_queue_sqlite::holder(data) {
        return Err(
            Stop::new(Code::Conflict, format!("process {pid} works in {}", data.display())).hint("stop it first")
        );
    }
    Ok(fs::remove_dir_all(data)?)
}
