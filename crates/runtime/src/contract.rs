//! The Runtime contract.
//!
//! A runtime turns a [`Function`] into a [`FunctionVersion`] (`prepare`), a version into live instances (`start`), and
//! runs attempts in an instance (`run`). The rules, each with a test of its name in [`crate::conformance`]:
//!
//! 1. *input reaches the function byte for byte*, from memory or from a file, whatever its size and content type.
//! 2. *output comes back byte for byte*, with the content type that the function gave.
//! 3. *an attempt ends by its deadline*: `run` returns within the deadline plus the stop grace plus one second, with
//!    [`Outcome::TimedOut`], and nothing of the attempt is left running.
//! 4. *a dropped run is a stopped run*: the instance of a `run` whose future was dropped is not used again, and its `stop`
//!    ends the attempt too, as in rule 8: when it returns, the job may run again without overlapping itself. Dropping the
//!    instance instead kills everything, soon and without a grace.
//! 5. *death is seen at once*: when the instance dies under an attempt, `run` returns [`Outcome::Crashed`] without
//!    waiting for a deadline; an instance ends at `waitpid`, never at end-of-file on a pipe that a child may hold.
//! 6. *output is bounded*: when [`Output::write`] refuses, the attempt is stopped and fails with
//!    [`FailureCode::ResultTooLarge`]; memory stays flat.
//! 7. *logs never block the function*: the runtime keeps reading the function's stdout and stderr whatever the log does
//!    with the bytes, and all that was written before the result belongs to the attempt.
//! 8. *stop is bounded*: TERM, then KILL of everything after `grace`; `stop` returns within `grace` plus one second and
//!    nothing is left behind, forked and detached children included.
//! 9. *instances are of one version*: an instance runs the code and settings of the version that it was started from,
//!    also when the files have changed since.
//! 10. *a start that fails says why*: syntax errors, missing entries and early exits come back as [`StartError`] with the
//!     function's own words.
//! 11. *environment is only what is declared*: the variables of [`Context`], the function's `env`, `PATH`, `HOME`,
//!     `LANG`, `TMPDIR`, and nothing else of the server's.
//! 12. *attempts are apart*: an instance runs one attempt at a time; what one attempt wrote is never the output or
//!     (once its result is in) the log of another.
//! 13. *no room is nobody's fault*: what fails because the server or the machine has no room for it (descriptors,
//!     processes, memory) comes back with [`FailureCode::NoRoom`], from `start` and from `run`; nothing is left running.
//!     That code means that the function did not begin: once it has, a result without room is
//!     [`FailureCode::ResultNotStored`].

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kvern_core::{Failure, FailureCode, Function, FunctionName, JobId, Outcome, Size, UnixMs};

/// Makes versions and instances.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Copies the function's code, installs its requirements, and names the result. The same code, settings and lock
    /// file give the same version; preparing it again is cheap.
    ///
    /// # Errors
    /// [`PrepareError`] says what is missing or broken, for a person.
    async fn prepare(&self, function: &Function, progress: &dyn Progress) -> Result<FunctionVersion, PrepareError>;

    /// Starts an instance and returns once it is ready to run attempts.
    ///
    /// # Errors
    /// [`StartError`], with the function's own words (a traceback, say). Nothing is left running.
    async fn start(&self, version: &FunctionVersion) -> Result<Box<dyn Instance>, StartError>;

    /// Whether [`Runtime::start`] costs something that is worth keeping between attempts. If not, an instance is
    /// started per attempt and `scale` has no meaning.
    fn is_warm(&self, version: &FunctionVersion) -> bool;
}

/// One live process or container of a function.
#[async_trait]
pub trait Instance: Send + 'static {
    /// Runs one attempt to its outcome. `output` gets the result, `log` what the function printed.
    async fn run(&mut self, context: &Context, input: Input, output: &mut dyn Output, log: &Arc<dyn Log>) -> Outcome;

    /// Whether another attempt may be run in it.
    fn is_usable(&mut self) -> bool;

    /// Returns when the instance has died by itself. Used on idle instances; may be dropped and called again.
    async fn died(&mut self);

    /// Stops it, an attempt whose `run` was dropped, and everything that they started: TERM, `grace`, KILL.
    async fn stop(self: Box<Self>, grace: Duration);

    /// The process id on this host, where there is one; for people and tests.
    fn pid(&self) -> Option<u32>;
}

/// What an attempt is told about itself: as environment (`KVERN_JOB_ID`, …), as headers, or as `ctx`.
#[derive(Debug, Clone)]
pub struct Context {
    /// The job; none for a call.
    pub job: Option<JobId>,
    /// The function.
    pub function: FunctionName,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// The number of the last attempt, if all from here fail: [`kvern_core::Tally::attempts_max`].
    pub attempts_max: u32,
    /// The input's content type, as the client sent it.
    pub content_type: Option<String>,
    /// When the attempt will be stopped, by the wall clock: for the function.
    pub deadline: UnixMs,
    /// The time that the attempt has, by the monotonic clock: for the runtime.
    pub timeout: Duration,
}

/// The input of an attempt.
#[derive(Debug, Clone)]
pub enum Input {
    /// In memory.
    Bytes(Bytes),
    /// In a file of this size; the runtime only reads it.
    File(PathBuf, u64),
}

/// Takes the result of an attempt, as it comes.
#[async_trait]
pub trait Output: Send {
    /// Called at most once and before the first byte: the content type, and the HTTP status where the function chose
    /// one. Without it the content type is `application/octet-stream`.
    fn head(&mut self, content_type: &str, status: Option<u16>);

    /// The next bytes. Waits while the reader is slower than the function.
    ///
    /// # Errors
    /// [`OutputRefused`] if the result is larger than the function's `max_output`, or nobody reads any more.
    async fn write(&mut self, bytes: Bytes) -> Result<(), OutputRefused>;
}

/// Takes what the function printed. Never blocks; bounds what it keeps.
pub trait Log: Send + Sync + 'static {
    /// The next bytes of stdout (handlers only) or stderr.
    fn write(&self, bytes: &[u8]);
}

/// Sees what `prepare` does, for a person who waits.
pub trait Progress: Send + Sync {
    /// One line about a step that begins or ended, such as `hello: installing requirements.txt`.
    fn step(&self, line: &str);
}

/// The output was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutputRefused {
    /// More than the function's `max_output`.
    #[error("the result is larger than {size}; return less, or raise `max_output` in kvern.toml", size = Size(*.0))]
    TooLarge(u64),
    /// The reader has gone.
    #[error("nobody reads the output any more")]
    Closed,
    /// The place where the output goes has failed.
    #[error("the function ran, but its result could not be stored: {0}")]
    Failed(String),
    /// The machine has no room for it at the moment.
    #[error("the function ran, but there is no room to store its result: {0}; make room on the server")]
    NoRoom(String),
}

/// The short hash that names a version: 12 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(pub Arc<str>);

/// A function as prepared to run.
#[derive(Debug, Clone)]
pub struct FunctionVersion {
    /// The function with its limits.
    pub function: Arc<Function>,
    /// Hash of code, settings and lock file.
    pub version: Version,
    /// The read-only copy of the code that instances run from.
    pub code: PathBuf,
    /// The installed requirements, if there are any.
    pub packages: Option<PathBuf>,
}

/// Why a function could not be prepared: for a person, with what to try.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct PrepareError {
    /// What happened, why, and what to try.
    pub message: String,
    /// The tool's own last lines, where a tool failed.
    pub detail: Option<String>,
    /// The machine was short of something: room on the disk, descriptors, processes, memory. It may go better later.
    pub is_shortage: bool,
}

/// Why an instance could not be started.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub Failure);

// === impl OutputRefused ===

impl OutputRefused {
    /// The outcome of an attempt whose output was refused.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let code = match self {
            Self::TooLarge(_) => FailureCode::ResultTooLarge,
            Self::Closed => FailureCode::Retry,
            Self::Failed(_) | Self::NoRoom(_) => FailureCode::ResultNotStored,
        };
        Outcome::Failed(Failure::new(code, self.to_string()))
    }
}

// === impl Version ===

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl Input ===

impl Input {
    /// Size in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(_, len) => *len,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
