//! Turns a function into a version that instances run from: its code copied, its requirements installed.
//!
//! - [`prepare`] does it; preparing what has not changed copies and installs nothing.
//! - `rule` says which files are code, `version` what makes a new version: the two to read next.
//! - `store` is the two folders in the data directory, `copy` the reading and copying of files.
//! - `install` runs an installer once, in sight of whoever waits; `python` and `node` say which, and with what.
//! - `exec` is the copy of a program, `tools` finds the interpreters and says when they are too old.
//! - `environment` is what installers and interpreters see of the server.
//!
//! The working directory of an instance is the function's home and not the copy: what a function writes to `data/`
//! lies beside its manifest.

mod copy;
mod environment;
mod exec;
mod install;
mod node;
mod python;
mod rule;
mod store;
mod tools;
mod version;

use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kvern_core::{Door, Function, Language};

use crate::contract::{FunctionVersion, PrepareError, Progress, Version};
use crate::jail::leash;

use rule::Plan;
use store::Unfinished;
use version::Content;

pub use exec::exec_argv;
pub use rule::{is_code_name, is_output_name};
pub(crate) use store::folders;
pub use store::{clean_up, forget_old};
pub use tools::{Interpreter, Settings, interpreter};

/// Copies the function's code into the data directory, installs its requirements, and names the result. The same
/// files, settings and requirements give the same version; preparing it again only reads.
///
/// May be dropped at any time: what is being installed is stopped and removed.
///
/// # Errors
/// [`PrepareError`] says what is missing or broken, for a person, with an installer's own last lines.
pub async fn prepare(
    settings: &Settings,
    function: &Function,
    progress: &dyn Progress,
) -> Result<FunctionVersion, PrepareError> {
    let mut work = Work::new(settings, function)?;
    let (data_dir, name) = (work.data_dir.clone(), function.name.clone());
    // Held to the end, so that nobody cleans up what is being made.
    let _lock = blocking(move || store::lock_shared(&data_dir, &name)).await?;
    let packages = match &function.door {
        Door::Handler { language, file, .. } => requirements(settings, &work, *language, file, progress).await?,
        Door::Exec { .. } => None,
    };
    work.packages = packages;
    blocking(move || work.copy()).await
}

/// Whether the file or program that the function names is there. Looks, and does nothing.
///
/// # Errors
/// What [`prepare`] would say.
pub fn check(function: &Function) -> Result<(), PrepareError> {
    match &function.door {
        Door::Handler { file, .. } => check_handler(&function.home.join(file)),
        Door::Exec { argv } => exec::check(&function.home, argv),
    }
}

/// The handler's file in the copy; none for an exec function.
#[must_use]
pub fn handler_file(version: &FunctionVersion) -> Option<PathBuf> {
    match &version.function.door {
        Door::Handler { file, .. } => Some(version.code.join(file.file_name()?)),
        Door::Exec { .. } => None,
    }
}

// === impl Work ===

/// One function on its way to a version.
struct Work {
    function: Arc<Function>,
    data_dir: PathBuf,
    packages: Option<String>,
}

impl Work {
    fn new(settings: &Settings, function: &Function) -> Result<Self, PrepareError> {
        // Instances run in another working directory than the server's.
        let data_dir = std::path::absolute(&settings.data_dir)
            .map_err(|e| failed(format!("cannot find the data directory {}", settings.data_dir.display()), &e))?;
        Ok(Self { function: Arc::new(function.clone()), data_dir, packages: None })
    }

    fn copy(self) -> Result<FunctionVersion, PrepareError> {
        let (plan, in_place) = self.plan()?;
        let mut contents = copy::hash(&plan)?;
        contents.extend(in_place.iter().cloned());
        let version = self.version(&contents);
        let path = self.path(&version);
        if is_intact(&path, &plan, &contents) {
            store::touch(&path).map_err(|e| self.cannot_copy(&e))?;
            return Ok(self.done(version));
        }
        copy::remove(&path).map_err(|e| self.cannot_copy(&e))?;
        let parent = store::function_dir(&self.data_dir, &self.function.name);
        let unfinished = Unfinished::new(&parent).map_err(|e| self.cannot_copy(&e))?;
        let mut contents = copy::copy(&plan, unfinished.path())?;
        contents.extend(in_place);
        // The files may have changed since they were hashed: the copy's own name is what counts.
        let version = self.version(&contents);
        self.link(unfinished.path())
            .and_then(|()| unfinished.finish(&self.path(&version)))
            .map_err(|e| self.cannot_copy(&e))?;
        Ok(self.done(version))
    }

    fn plan(&self) -> Result<(Plan, Vec<Content>), PrepareError> {
        let home = &self.function.home;
        match &self.function.door {
            Door::Handler { file, .. } => {
                let folder = handler_folder(home, file);
                Ok((rule::plan(&folder, file.file_name(), &self.data_dir)?, Vec::new()))
            }
            Door::Exec { argv } => exec::plan(home, argv, &self.data_dir),
        }
    }

    fn version(&self, contents: &[Content]) -> Version {
        version::version(&self.function, contents, self.packages.as_deref())
    }

    fn link(&self, copy: &Path) -> io::Result<()> {
        let Some(packages) = &self.packages else { return Ok(()) };
        store::link_packages(copy, packages)?;
        match self.language() {
            Some(Language::Node) => store::link_node_modules(copy, packages),
            Some(Language::Python) | None => Ok(()),
        }
    }

    fn done(&self, version: Version) -> FunctionVersion {
        let installed = self.packages.as_ref().map(|name| store::packages_dir(&self.data_dir).join(name));
        let packages = match self.language() {
            Some(Language::Node) => installed.map(|folder| folder.join("node_modules")),
            Some(Language::Python) | None => installed,
        };
        FunctionVersion { function: Arc::clone(&self.function), code: self.path(&version), version, packages }
    }

    fn language(&self) -> Option<Language> {
        match &self.function.door {
            Door::Handler { language, .. } => Some(*language),
            Door::Exec { .. } => None,
        }
    }

    fn path(&self, version: &Version) -> PathBuf {
        store::function_dir(&self.data_dir, &self.function.name).join(&*version.0)
    }

    fn cannot_copy(&self, source: &io::Error) -> PrepareError {
        failed(format!("cannot copy the code of {} into {}", self.function.name, self.data_dir.display()), source)
    }
}

// === helpers ===

/// Checks the handler's file and its interpreter, and installs what stands beside it. Returns the name of the installed
/// requirements.
async fn requirements(
    settings: &Settings,
    work: &Work,
    language: Language,
    file: &Path,
    progress: &dyn Progress,
) -> Result<Option<String>, PrepareError> {
    let home = &work.function.home;
    check_handler(&home.join(file))?;
    let found = interpreter(settings, language, home).await?;
    let (name, folder) = (work.function.name.as_str(), handler_folder(home, file));
    let (known, at, with) = (settings.clone(), folder.clone(), found.clone());
    match language {
        Language::Python => {
            let Some(packages) = blocking(move || python::packages(&known, &at, &with)).await? else { return Ok(None) };
            python::install(settings, name, &folder, (&found, &packages), progress).await?;
            Ok(Some(packages))
        }
        Language::Node => {
            let Some(packages) = blocking(move || node::packages(&known, &at, &with)).await? else { return Ok(None) };
            node::install(settings, name, &folder, &packages, progress).await?;
            Ok(Some(packages.name))
        }
    }
}

fn check_handler(file: &Path) -> Result<(), PrepareError> {
    let shown = file.display();
    match fs::metadata(file) {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(metadata) => {
            let what = if metadata.is_dir() { "folder" } else { "pipe, socket or device" };
            Err(error(format!("{shown} is a {what} and no file: correct `handler` in kvern.toml")))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Err(error(format!("there is no file {shown}: write it, or correct `handler` in kvern.toml")))
        }
        Err(e) => Err(failed(format!("cannot read {shown}"), &e)),
    }
}

/// The folder of the handler's file.
fn handler_folder(home: &Path, file: &Path) -> PathBuf {
    home.join(file).parent().map_or_else(|| home.to_path_buf(), Path::to_path_buf)
}

/// Whether a version was copied before and is still what it was: a power cut may have emptied files that were not on
/// the disk yet, and somebody may have been there.
fn is_intact(copy: &Path, plan: &Plan, contents: &[Content]) -> bool {
    let there = |file: &rule::Entry| rule::Entry { path: file.path.clone(), source: copy.join(&file.path) };
    let copied = Plan { files: plan.files.iter().map(there).collect(), links: Vec::new() };
    copy.is_dir()
        && copy::hash(&copied).is_ok_and(|copied| contents.starts_with(&copied) && copied.len() == plan.files.len())
}

/// Runs what reads and writes files where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PrepareError> + Send + 'static,
) -> Result<T, PrepareError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(error(format!("preparing broke off: {e}"))))
}

fn error(message: String) -> PrepareError {
    PrepareError { message, detail: None, is_shortage: false }
}

fn failed(doing: impl Display, source: &io::Error) -> PrepareError {
    PrepareError { is_shortage: is_shortage(source), ..error(format!("{doing}: {source}")) }
}

fn is_shortage(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge) || leash::is_shortage(error)
}
