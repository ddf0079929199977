//! How an attempt ended, and why if it did not succeed.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::{ERROR_MESSAGE_BYTES_MAX, ERROR_TRACE_BYTES_MAX};

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The function returned; its output is the job's result.
    Succeeded,
    /// The function failed. [`Failure::retryable`] says whether another attempt may help.
    Failed(Failure),
    /// The attempt took longer than the function's timeout and was stopped.
    TimedOut(Failure),
    /// The function's process died under the attempt: a strike.
    Crashed(Failure),
    /// The attempt was stopped because the job was cancelled.
    Cancelled,
}

/// What went wrong, in words for a person and a code for a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The stable code.
    pub code: FailureCode,
    /// What happened, and what to try; at most [`ERROR_MESSAGE_BYTES_MAX`] bytes.
    pub message: String,
    /// The class of the exception in the function's own language.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The stack trace in the function's own language; at most [`ERROR_TRACE_BYTES_MAX`] bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// The wait that the function asked for before the next attempt, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// The kinds of failure. The text form is part of the API; `docs/errors.md` has a line for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The function raised an exception.
    Exception,
    /// The function raised an exception named `Permanent`: no retry.
    Permanent,
    /// The function asked to be tried again: an exception named `Retry`, or exit code 75.
    Retry,
    /// The input is not what the function takes: bad JSON, or exit code 65. No retry.
    BadInput,
    /// The function exited with another code than 0, 65 or 75.
    Exit,
    /// The attempt took longer than the function's timeout.
    Timeout,
    /// The function's process died.
    Crash,
    /// The function's process died at its memory limit.
    OutOfMemory,
    /// The result is larger than `max_output`: no retry.
    ResultTooLarge,
    /// The function's process wrote something that is not the protocol.
    ProtocolError,
    /// The function could not be started: a syntax error, a missing file, a requirement that cannot be installed.
    CannotStart,
    /// The server or the machine had no room for the attempt (descriptors, processes, memory): nothing ran, and it does
    /// not count.
    NoRoom,
    /// The function ran and its result could not be stored: a full disk. It counts, for what it did is done.
    ResultNotStored,
    /// The job's `expires_at` passed before it ran.
    Expired,
    /// Too many attempts were cut off by the death of the server or worker.
    Interrupted,
    /// The stored bytes of the job are damaged.
    Damaged,
}

// === impl Outcome ===

impl Outcome {
    /// The word for it in records, metrics and logs.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed(_) => "failed",
            Self::TimedOut(_) => "timed_out",
            Self::Crashed(_) => "crashed",
            Self::Cancelled => "cancelled",
        }
    }

    /// What went wrong, if anything did.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Succeeded | Self::Cancelled => None,
            Self::Failed(failure) | Self::TimedOut(failure) | Self::Crashed(failure) => Some(failure),
        }
    }

    /// The outcome of an attempt that ran past its time.
    #[must_use]
    pub fn timed_out(after: Duration) -> Self {
        let message =
            format!("the attempt was stopped after its timeout of {after:?}; raise `timeout` if it needs longer");
        Self::TimedOut(Failure::new(FailureCode::Timeout, message))
    }
}

// === impl Failure ===

impl Failure {
    /// A failure with a message only. The message is cut at [`ERROR_MESSAGE_BYTES_MAX`].
    #[must_use]
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        let message = cut(message.into(), ERROR_MESSAGE_BYTES_MAX);
        Self { code, message, class: None, trace: None, retry_after_ms: None }
    }

    /// The failure of a job whose stored input is not what was sent, whoever finds that.
    #[must_use]
    pub fn damaged_input() -> Self {
        let message = "the stored input does not match its checksum; the disk or the file system damaged it";
        Self::new(FailureCode::Damaged, message)
    }

    /// The failure of a call whose worker stopped or died, whoever finds that.
    #[must_use]
    pub fn cut_off_call() -> Self {
        let message = "the worker went away in the middle of the call: it may have done a part of its work";
        Self::new(FailureCode::Interrupted, message)
    }

    /// The same failure with the stack trace, cut at [`ERROR_TRACE_BYTES_MAX`] (the end is kept: it names the line).
    #[must_use]
    pub fn with_trace(mut self, trace: impl Into<String>) -> Self {
        self.trace = Some(cut_front(trace.into(), ERROR_TRACE_BYTES_MAX));
        self
    }

    /// The same failure with the exception's class.
    #[must_use]
    pub fn with_class(mut self, class: impl Into<String>) -> Self {
        self.class = Some(cut(class.into(), 200));
        self
    }

    /// Whether another attempt may help.
    #[must_use]
    pub fn retryable(&self) -> bool {
        self.code.retryable()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.class {
            Some(class) => write!(f, "{class}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

// === impl FailureCode ===

impl FailureCode {
    /// Whether another attempt may help.
    #[must_use]
    pub fn retryable(self) -> bool {
        match self {
            Self::Exception
            | Self::Retry
            | Self::Exit
            | Self::Timeout
            | Self::Crash
            | Self::OutOfMemory
            | Self::ProtocolError
            | Self::CannotStart
            | Self::NoRoom
            | Self::ResultNotStored => true,
            Self::Permanent
            | Self::BadInput
            | Self::ResultTooLarge
            | Self::Expired
            | Self::Interrupted
            | Self::Damaged => false,
        }
    }

    /// The code as it stands in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exception => "exception",
            Self::Permanent => "permanent",
            Self::Retry => "retry",
            Self::BadInput => "bad_input",
            Self::Exit => "exit",
            Self::Timeout => "timeout",
            Self::Crash => "crash",
            Self::OutOfMemory => "out_of_memory",
            Self::ResultTooLarge => "result_too_large",
            Self::ProtocolError => "protocol_error",
            Self::CannotStart => "cannot_start",
            Self::NoRoom => "no_room",
            Self::ResultNotStored => "result_not_stored",
            Self::Expired => "expired",
            Self::Interrupted => "interrupted",
            Self::Damaged => "damaged",
        }
    }
}

fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
        text.push('…');
    }
    text
}

fn cut_front(text: String, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text;
    }
    let from = text.ceil_char_boundary(text.len() - bytes_max);
    format!("…{}", &text[from..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_at_characters() {
        let failure = Failure::new(FailureCode::Exception, "é".repeat(ERROR_MESSAGE_BYTES_MAX))
            .with_trace("ü".repeat(ERROR_TRACE_BYTES_MAX));
        assert!(failure.message.len() <= ERROR_MESSAGE_BYTES_MAX + '…'.len_utf8());
        assert!(failure.trace.is_some_and(|t| t.starts_with('…') && t.ends_with('ü')));
    }

    #[test]
    fn the_code_reads_as_it_is_written() {
        let code = serde_json::to_string(&FailureCode::OutOfMemory).expect("a code is JSON");
        assert_eq!(code, format!("\"{}\"", FailureCode::OutOfMemory.as_str()));
    }
}
