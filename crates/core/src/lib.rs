//! Kvern's words, as types: what a function, a job, an attempt and an outcome are, and how a job moves.
//!
//! Pure: no tokio, no I/O, no clock, no randomness. Time and chance come in as arguments, so every decision
//! here can be tested in microseconds. The crate does not know HTTP, SQL or processes.
//!
//! Read [`state`] first (the life of a job), then [`decide`] (what follows an outcome).

pub mod decide;
pub mod function;
pub mod id;
pub mod job;
pub mod limits;
pub mod name;
pub mod outcome;
pub mod retry;
pub mod size;
pub mod state;
pub mod time;

pub use decide::{Next, Tally, next};
pub use function::{Door, Function, Keep, Language, Memory, Mode, Route, Scale};
pub use id::{Clockwork, JobId, Sequence};
pub use job::{Attempt, CALL_TAG, Job, ResultInfo};
pub use name::FunctionName;
pub use outcome::{Failure, FailureCode, Outcome};
pub use retry::RetryPolicy;
pub use size::Size;
pub use state::{Move, State};
pub use time::UnixMs;
