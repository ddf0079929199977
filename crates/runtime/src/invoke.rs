//! The Invoke contract: a call, from request to reply, with nothing stored.
//!
//! The worker's pool implements it and the binary hands it to the gateway, so that the two never import each other.
//!
//! 1. A call runs at most once: it is never retried by us.
//! 2. A call waits for a free slot no longer than its deadline, and no more than a bounded number wait
//!    ([`CallError::Busy`]).
//! 3. Dropping the call, or the reply's stream, stops the attempt.
//! 4. The reply begins when the function's first output byte or its outcome is known, whichever is first.

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use kvern_core::{Failure, FailureCode, FunctionName, Size};

use crate::body::Body;

/// Runs calls.
#[async_trait]
pub trait Invoke: Send + Sync + 'static {
    /// Runs the function once and gives its reply.
    ///
    /// # Errors
    /// See [`CallError`].
    async fn call(&self, call: Call) -> Result<Reply, CallError>;
}

/// A synchronous invocation.
#[derive(Debug)]
pub struct Call {
    /// What to run.
    pub function: FunctionName,
    /// The input's content type, as the client sent it.
    pub content_type: Option<String>,
    /// The input.
    pub body: Body,
    /// How long the caller is ready to wait for a slot; the function's own timeout counts from its start.
    pub patience: Duration,
}

/// What the function answered.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status, where the function chose one.
    pub status: Option<u16>,
    /// Content type that the function gave.
    pub content_type: String,
    /// The output.
    pub body: Body,
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No such function here.
    #[error("there is no function `{0}`")]
    UnknownFunction(FunctionName),
    /// Every slot is taken and too many calls wait, or the patience ran out.
    #[error("every instance of `{function}` is busy")]
    Busy {
        /// The function.
        function: FunctionName,
        /// When to come back, in whole seconds.
        retry_after_s: u32,
    },
    /// The machine has no room to run it now: descriptors, processes, memory. Nothing ran.
    #[error("there is no room to run `{function}`")]
    NoRoom {
        /// The function.
        function: FunctionName,
        /// When to come back, in whole seconds.
        retry_after_s: u32,
    },
    /// The worker is stopping. Nothing ran.
    #[error("the worker is stopping")]
    Stopping,
    /// The worker is stopping, and so it stopped the function in the middle.
    #[error("the worker is stopping, and the function was cut off")]
    CutOff,
    /// The disk has no room for a large input. The function did not run. Try again later.
    #[error("there is no room to keep the input: {0}")]
    NoSpace(String),
    /// The disk does not take a large input. The function did not run. Try again later.
    #[error("the disk does not take the input: {0}")]
    Disk(String),
    /// The system has too little of something for the moment, such as open files. The function did not run. Try again
    /// later.
    #[error("the system has too little of something for the moment: {0}")]
    Scarce(String),
    /// Anything else that broke before the function ran, as the log should have it.
    #[error("the call could not be made: {0}")]
    Broken(String),
    /// The function failed, timed out or crashed.
    #[error("{0}")]
    Failed(Failure),
}

// === impl CallError ===

impl CallError {
    /// The input is more than the function takes.
    #[must_use]
    pub fn too_large(max_bytes: u64) -> Self {
        let words =
            format!("the input is larger than {}; send less, or raise `max_input` in kvern.toml", Size(max_bytes));
        Self::Failed(Failure::new(FailureCode::BadInput, words))
    }

    /// The input did not come to its end.
    #[must_use]
    pub fn unreadable(error: &io::Error) -> Self {
        Self::Failed(Failure::new(FailureCode::BadInput, format!("the input could not be read: {error}")))
    }
}
