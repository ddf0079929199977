//! How the program ends: one kind of error, with the exit code that scripts rely on.

use std::fmt;
use std::process::ExitCode;

use crate::plain::plain;

/// Why a verb failed, with everything that a person needs to go on.
#[derive(Debug)]
pub(crate) struct Stop {
    /// The exit code.
    pub(crate) code: Code,
    /// What happened.
    pub(crate) what: String,
    /// Why, and what to try; a line each.
    pub(crate) hints: Vec<String>,
    /// Whether `what` is a page that says `error:` itself, for each mistake in it.
    is_page: bool,
}

/// The exit codes, documented in `kvern --help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    /// The operation failed.
    Failed = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// There is no such thing.
    NotFound = 3,
    /// Something else holds it: a port, a name, a state.
    Conflict = 4,
    /// Not allowed.
    NotAllowed = 5,
    /// The server cannot be reached.
    CannotReach = 6,
    /// Timed out.
    TimedOut = 7,
}

/// What a verb gives.
pub(crate) type Outcome = Result<(), Stop>;

// === impl Stop ===

impl Stop {
    /// A stop with this code and message.
    pub(crate) fn new(code: Code, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), hints: Vec::new(), is_page: false }
    }

    /// Wrong usage or configuration.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::new(Code::Usage, what)
    }

    /// Wrong configuration, as a page of mistakes.
    pub(crate) fn page(what: impl Into<String>) -> Self {
        Self { is_page: true, ..Self::usage(what) }
    }

    /// The operation failed.
    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self::new(Code::Failed, what)
    }

    /// The same with one more line of advice.
    pub(crate) fn hint(mut self, line: impl Into<String>) -> Self {
        self.hints.push(line.into());
        self
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A page is of our own making and has colours; anything else may be the words of a job.
        match self.is_page {
            true => f.write_str(&self.what)?,
            false => write!(f, "error: {}", plain(&self.what))?,
        }
        for hint in &self.hints {
            write!(f, "\n  {}", plain(hint))?;
        }
        Ok(())
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::failed(error.to_string())
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}
