//! What `kvern dev` serves: a manifest, or a file whose public functions become functions of Kvern.

use std::fs;
use std::path::{Path, PathBuf};

use kvern_manifest::Manifest;

use crate::exit::{Code, Outcome, Stop};
use crate::verbs::new::{python, write_new};
use crate::{lone, print};

const MANIFEST: &str = "kvern.toml";
const HELLO_FILE: &str = "hello.py";
const HELLO: &str = "hello";

/// Where the functions come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Project {
    /// This kvern.toml.
    Manifest(PathBuf),
    /// This function file.
    File(PathBuf),
}

impl Project {
    /// The given file, else the manifest here, else the lone file here, else in an empty folder a fresh `hello.py`.
    pub(crate) fn find(file: Option<&Path>, config: Option<&Path>) -> Result<Self, Stop> {
        match (file, config) {
            (_, Some(config)) => Ok(Self::Manifest(config.to_owned())),
            (Some(file), None) => Self::of_file(file),
            (None, None) if Path::new(MANIFEST).is_file() => Ok(Self::Manifest(MANIFEST.into())),
            (None, None) if is_empty_folder() => {
                write_new(Path::new(HELLO_FILE), &python(HELLO))?;
                print::say("This folder was empty, so I wrote hello.py: edit it and save, and it reloads.");
                Ok(Self::File(HELLO_FILE.into()))
            }
            (None, None) => match lone_file() {
                Some(file) => {
                    print::say(&format!("There is no {MANIFEST} here, so I serve {}.", file.display()));
                    Ok(Self::File(file))
                }
                None => Err(Stop::new(Code::Usage, format!("there is no {MANIFEST} here"))
                    .hint("serve one file with `kvern dev FILE.py`, or begin with `kvern new NAME`")),
            },
        }
    }

    fn of_file(file: &Path) -> Result<Self, Stop> {
        let shown = file.display();
        if file.is_dir() {
            return Err(
                Stop::usage(format!("{shown} is a folder")).hint("serve it from inside: `kvern dev` without a name")
            );
        }
        if !file.is_file() {
            return Err(
                Stop::usage(format!("there is no file {shown}")).hint("`kvern dev FILE.py` serves one that is there")
            );
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
            Self::File(path) => lone::read(&std::path::absolute(path)?),
        }
    }

    /// The folder that holds the code, to be watched.
    pub(crate) fn home(&self) -> PathBuf {
        let (Self::Manifest(path) | Self::File(path)) = self;
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        path.parent().unwrap_or(Path::new("/")).to_owned()
    }
}

/// The file that is served without a manifest: the only one that holds functions, or what an empty folder got.
fn lone_file() -> Option<PathBuf> {
    let entries = fs::read_dir(".").ok()?.flatten().filter(|entry| entry.path().is_file());
    let files: Vec<PathBuf> =
        entries.map(|entry| PathBuf::from(entry.file_name())).filter(|file: &PathBuf| lone::is_code(file)).collect();
    match &files[..] {
        [only] => Some(only.clone()),
        several => several.iter().find(|file| file.as_os_str() == HELLO_FILE).cloned(),
    }
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
