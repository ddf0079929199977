//! How reloads went, in a file of the data directory: `kvern reload` sends a signal, and a signal has no answer.
//!
//! Each reload is counted when it begins and when it ends. Whoever reads the count, then signals, waits for the end of a
//! reload that the count did not know: it began later than what was to be reloaded was written.

use std::fs;
use std::path::{Path, PathBuf};

use kvern_core::Function;
use kvern_worker::Loaded;
use serde::{Deserialize, Serialize};

/// Below the data directory, beside what else lives as long as the server.
const FILE: &str = "run/reload.json";

/// The state of reloads.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Reloads {
    /// The server.
    pub(crate) pid: u32,
    /// Reloads that have begun.
    pub(crate) begun: u64,
    /// Reloads that have ended: as many, or one less.
    pub(crate) ended: u64,
    /// How the last one ended.
    pub(crate) end: End,
}

/// How a reload ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct End {
    /// The page of mistakes in the manifest, if that is why nothing was reloaded.
    pub(crate) mistakes: Option<String>,
    /// What became of each function.
    pub(crate) functions: Vec<Reloaded>,
}

/// What became of a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reloaded {
    /// Its name.
    pub(crate) name: String,
    /// The version that runs now, if it is the new one.
    pub(crate) version: Option<String>,
    /// Why the new one does not run.
    pub(crate) error: Option<String>,
}

/// The server's side.
#[derive(Debug)]
pub(crate) struct Book {
    file: PathBuf,
    reloads: Reloads,
    is_written: bool,
}

// === impl Book ===

impl Book {
    /// A book without a reload in it.
    pub(crate) fn open(data: &Path) -> Self {
        let reloads = Reloads { pid: std::process::id(), ..Reloads::default() };
        let mut book = Self { file: data.join(FILE), reloads, is_written: true };
        book.write();
        book
    }

    /// Whether the file tells how things are. Without it `kvern reload` believes that this server takes no reload.
    pub(crate) fn is_written(&self) -> bool {
        self.is_written
    }

    /// Writes what could not be written.
    pub(crate) fn catch_up(&mut self) {
        if !self.is_written {
            self.write();
        }
    }

    /// A reload begins.
    pub(crate) fn begin(&mut self) {
        self.reloads.begun += 1;
        self.write();
    }

    /// It has ended.
    pub(crate) fn end(&mut self, end: End) {
        self.reloads.ended = self.reloads.begun;
        self.reloads.end = end;
        self.write();
    }

    /// Whole or not at all. Where it cannot be written, the log has said what happened.
    fn write(&mut self) {
        let text = serde_json::to_vec(&self.reloads).unwrap_or_default();
        let part = self.file.with_extension("part");
        let written =
            fs::create_dir_all(self.file.parent().unwrap_or(Path::new("."))).and_then(|()| fs::write(&part, text));
        let written = written.and_then(|()| fs::rename(&part, &self.file));
        let was_written = std::mem::replace(&mut self.is_written, written.is_ok());
        // Tried again and again, so it is said once.
        if let Err(error) = written
            && was_written
        {
            tracing::warn!(%error, file = %self.file.display(), "cannot be written; kvern reload will not hear of the end");
        }
    }
}

// === impl End ===

impl End {
    /// The manifest had mistakes.
    pub(crate) fn mistaken(page: &str) -> Self {
        Self { mistakes: Some(page.to_owned()), functions: Vec::new() }
    }

    /// These functions were declared, and are run elsewhere.
    pub(crate) fn declared(functions: &[Function]) -> Self {
        let declared = |function: &Function| Reloaded { name: function.name.to_string(), version: None, error: None };
        Self { mistakes: None, functions: functions.iter().map(declared).collect() }
    }
}

impl From<&[Loaded]> for End {
    fn from(loaded: &[Loaded]) -> Self {
        let reloaded = |loaded: &Loaded| Reloaded {
            name: loaded.function.to_string(),
            version: loaded.result.as_ref().ok().map(ToString::to_string),
            error: loaded.result.as_ref().err().map(ToString::to_string),
        };
        Self { mistakes: None, functions: loaded.iter().map(reloaded).collect() }
    }
}

/// What this server has written; none if it has not, because it is still starting, or is no `kvern serve`.
pub(crate) fn read(data: &Path, pid: u32) -> Option<Reloads> {
    let reloads: Reloads = serde_json::from_slice(&fs::read(data.join(FILE)).ok()?).ok()?;
    (reloads.pid == pid).then_some(reloads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_of_the_reload_that_began_last() {
        let data = tempfile::tempdir().expect("a folder");
        let pid = std::process::id();
        assert_eq!(read(data.path(), pid), None);
        let mut book = Book::open(data.path());
        assert_eq!(read(data.path(), pid + 1), None, "what another server left");
        book.begin();
        let under_way = read(data.path(), pid).expect("written");
        assert_eq!((under_way.begun, under_way.ended), (1, 0));
        book.end(End::mistaken("1 mistake"));
        let ended = read(data.path(), pid).expect("written");
        assert_eq!((ended.ended, ended.end.mistakes.as_deref()), (1, Some("1 mistake")));
    }
}
