//! The Runtime and Invoke contracts, the process runtime and a fake.
//!
//! A runtime starts instances of functions and runs attempts in them. It knows nothing of queues, leases, retries or
//! HTTP routes: it gets an input and a deadline and gives back output, log bytes and an outcome.
//!
//! Read [`contract`] first: the rules stand there, and every runtime passes [`conformance`].

pub mod contract;

pub mod body;
pub mod invoke;
pub mod prepare;

mod jail;
pub mod process;

pub mod conformance;
pub mod fake;

pub use body::Body;
pub use contract::{
    Context, FunctionVersion, Input, Instance, Log, Output, OutputRefused, PrepareError, Progress, Runtime, StartError,
    Version,
};
pub use fake::Fake;
pub use invoke::{Call, CallError, Invoke, Reply};
pub use jail::jail_main;
pub use process::ProcessRuntime;
