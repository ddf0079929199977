//! The process runtime: functions as processes of this host.
//!
//! A [`handler`] is a warm process with our shim in it, which gets one job after the other through a private
//! socket; an [`exec`] is a process per attempt. Both live in a jail ([`crate::jail`]) whose leash we hold: what
//! becomes of the server becomes of them.
//!
//! On disk, below the data directory: `run/jails/` (the records of live jails), `run/tmp/` (a temporary folder per
//! process, its `TMPDIR`, and the large inputs of calls), `run/shim/` (our shims).
//!
//! Read `handler.rs` first, then `attempt.rs`.

mod attempt;
mod channel;
mod environment;
mod exec;
mod frame;
mod handler;
mod leftovers;
mod logs;
mod result;
mod settings;
mod unrunnable;
mod words;

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use kvern_core::{Door, Failure, FailureCode, Function, Language};

use crate::contract::{FunctionVersion, Instance, PrepareError, Progress, Runtime, StartError};
use crate::jail::jailed::NotStarted;
use crate::jail::record;
use crate::prepare;

pub use settings::Settings;

const PYTHON_SHIM: &str = include_str!("../../shim/python.py");
const NODE_SHIM: &str = include_str!("../../shim/node.mjs");

/// The folder of whatever is needed only for a while, below a data directory. What a server that died left in it is
/// removed by [`ProcessRuntime::clean_up_leftovers`].
#[must_use]
pub fn scratch(data_dir: &Path) -> PathBuf {
    data_dir.join("run").join("tmp")
}

/// Runs functions as processes of this host.
#[derive(Debug)]
pub struct ProcessRuntime {
    shared: Arc<Shared>,
}

/// What every instance needs.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    run: PathBuf,
    scratch_next: AtomicU64,
}

// === impl ProcessRuntime ===

impl ProcessRuntime {
    /// A runtime with these settings.
    ///
    /// # Errors
    /// The data directory cannot be written to.
    pub fn new(settings: Settings) -> io::Result<Self> {
        let run = std::path::absolute(&settings.prepare.data_dir)?.join("run");
        let data_dir = std::path::absolute(&settings.prepare.data_dir)?;
        for folder in prepare::folders(&data_dir).into_iter().chain([run.clone()]) {
            make_own_dir(&folder)?;
        }
        for folder in [record::folder(&run), run.join("tmp"), run.join("shim")] {
            fs::create_dir_all(folder)?;
        }
        let shared = Shared { settings, run, scratch_next: AtomicU64::new(0) };
        shared.write_shims()?;
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Kills what a server that died has left behind, and removes its temporary files. To be called at start, before
    /// anything runs and by the only server on the data directory. Bounded: a few seconds at most, nothing as a rule.
    pub async fn clean_up_leftovers(&self) {
        leftovers::clean_up(&self.shared.run).await;
        if !crate::jail::cgroup::make_room() {
            tracing::debug!("no memory cgroups here: memory limits are kept with RLIMIT_DATA");
        }
    }
}

#[async_trait]
impl Runtime for ProcessRuntime {
    async fn prepare(&self, function: &Function, progress: &dyn Progress) -> Result<FunctionVersion, PrepareError> {
        prepare::prepare(&self.shared.settings.prepare, function, progress).await
    }

    async fn start(&self, version: &FunctionVersion) -> Result<Box<dyn Instance>, StartError> {
        match &version.function.door {
            Door::Handler { language, .. } => {
                let instance = handler::Handler::start(Arc::clone(&self.shared), version, *language).await?;
                Ok(Box::new(instance))
            }
            Door::Exec { .. } => Ok(Box::new(exec::Exec::new(Arc::clone(&self.shared), version)?)),
        }
    }

    fn is_warm(&self, version: &FunctionVersion) -> bool {
        matches!(version.function.door, Door::Handler { .. })
    }
}

// === impl Shared ===

impl Shared {
    /// Shims are files because interpreters name them in messages, and compile them from there.
    fn write_shims(&self) -> io::Result<()> {
        for (language, text) in [(Language::Python, PYTHON_SHIM), (Language::Node, NODE_SHIM)] {
            let path = self.shim(language);
            if fs::read(&path).ok().as_deref() != Some(text.as_bytes()) {
                let unfinished = path.with_extension("new");
                fs::write(&unfinished, text)?;
                fs::rename(unfinished, path)?;
            }
        }
        Ok(())
    }

    fn shim(&self, language: Language) -> PathBuf {
        self.run.join("shim").join(match language {
            Language::Python => "kvern_shim.py",
            Language::Node => "kvern_shim.mjs",
        })
    }

    fn records(&self) -> PathBuf {
        record::folder(&self.run)
    }

    /// A folder that no other instance has; the jail makes and removes it.
    fn next_scratch(&self) -> PathBuf {
        let number = self.scratch_next.fetch_add(1, Ordering::Relaxed);
        self.run.join("tmp").join(format!("{}-{number}", std::process::id()))
    }
}

impl From<NotStarted> for StartError {
    fn from(NotStarted { code, message }: NotStarted) -> Self {
        Self(Failure::new(code, message))
    }
}

// === helpers ===

fn cannot_start(message: impl Into<String>) -> StartError {
    StartError(Failure::new(FailureCode::CannotStart, message))
}

/// Code and what functions keep while they run is for the owner alone, also if the data directory is open to others.
fn make_own_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    match path.metadata()?.permissions().mode() {
        mode if mode & 0o077 == 0 => Ok(()),
        mode => fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o700)),
    }
}

fn utf8(path: &Path) -> Result<&str, StartError> {
    path.to_str().ok_or_else(|| cannot_start(format!("the path {} is not UTF-8", path.display())))
}
