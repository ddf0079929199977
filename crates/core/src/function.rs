//! A function as checked: what `kvern.toml` says of it, with every default filled in.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::{KEEP_BYTES_DEFAULT, KEEP_FAILED_DEFAULT, KEEP_SUCCEEDED_DEFAULT};
use crate::name::FunctionName;
use crate::retry::RetryPolicy;

/// A named unit of code with its limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Function {
    /// Its name.
    pub name: FunctionName,
    /// What runs.
    pub door: Door,
    /// The folder of the manifest: the working directory of the function, and where relative paths begin.
    pub home: PathBuf,
    /// The gateway's own route for it, beside `/v1/functions/{name}`.
    pub route: Option<Route>,
    /// What a request on that route does.
    pub mode: Mode,
    /// The time for one attempt or call.
    pub timeout: Duration,
    /// How often, and with which waits, a job is tried.
    pub retry: RetryPolicy,
    /// Attempts at once on one worker; at least 1.
    pub concurrency: u32,
    /// How many instances there are.
    pub scale: Scale,
    /// The memory that one instance may take; none means no limit of ours.
    pub memory: Option<Memory>,
    /// Environment variables, beside the few that Kvern sets.
    pub env: Vec<(String, String)>,
    /// Largest input, in bytes.
    pub max_input: u64,
    /// Largest result, in bytes.
    pub max_output: u64,
    /// Most jobs waiting.
    pub max_queued: u64,
    /// How long finished jobs are kept.
    pub keep: Keep,
}

/// How a function is entered: exactly one per function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Door {
    /// A warm instance of a language that we ship a shim for: `handler = "file.py:function"`.
    Handler {
        /// The language, from the file's ending.
        language: Language,
        /// The file, relative to [`Function::home`] unless absolute.
        file: PathBuf,
        /// The function in it; none takes the language's default.
        entry: Option<String>,
    },
    /// A process per attempt, input on stdin, result on stdout: `exec = ["./bin"]`.
    Exec {
        /// Program and arguments; a program with a `/` is relative to [`Function::home`].
        argv: Vec<String>,
    },
}

/// The languages that we ship a shim for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Language {
    /// CPython 3.9 or later.
    Python,
    /// Node.js 18 or later.
    Node,
}

/// A route of the manifest: `route = "POST /submit-job"`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// The method, in upper case.
    pub method: String,
    /// The path, beginning with `/`, without placeholders.
    pub path: String,
}

/// What a request on a manifest route does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// It becomes a job: `202`.
    #[default]
    Async,
    /// It is a call: the caller waits.
    Sync,
}

/// `scale = { min, max, idle }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// Instances that are always there.
    pub min: u32,
    /// Most instances; at least 1, at most what `concurrency` can use.
    pub max: u32,
    /// An instance without work for this long is stopped, down to `min`.
    pub idle: Duration,
}

/// `keep = { succeeded, failed, bytes }`. Cancelled jobs are kept as long as failed ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// Jobs that succeeded, with their results, this long after they finished.
    pub succeeded: Duration,
    /// Dead letters, this long after they failed.
    pub failed: Duration,
    /// What all of them may take together: input, result and log, and [`crate::limits::RECORD_BYTES`] each.
    pub bytes: u64,
}

/// Bytes of memory; never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Memory(pub std::num::NonZeroU64);

// === impl Keep ===

impl Default for Keep {
    fn default() -> Self {
        Self { succeeded: KEEP_SUCCEEDED_DEFAULT, failed: KEEP_FAILED_DEFAULT, bytes: KEEP_BYTES_DEFAULT }
    }
}

// === impl Language ===

impl Language {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Node => "node",
        }
    }
}

// === impl Mode ===

impl Mode {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Async => "async",
            Self::Sync => "sync",
        }
    }
}

// === impl Door ===

impl Door {
    /// The door as the manifest writes it, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Handler { file, entry: Some(entry), .. } => format!("{}:{entry}", file.display()),
            Self::Handler { file, entry: None, .. } => file.display().to_string(),
            Self::Exec { argv } => argv.join(" "),
        }
    }
}
