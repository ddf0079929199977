//! HTTP in, HTTP out: a request becomes a durable job (`202` only after the queue said so) or a call, and every question
//! about a job is answered from the queue's own record.
//!
//! The gateway runs nothing and stores nothing. It knows the [`kvern_queue::Queue`] and [`kvern_runtime::Invoke`]
//! contracts, never an adapter, a worker or a manifest file. Resources and the stop signal come from the caller: [`run`]
//! takes a bound listener and gives back what was left when it had drained.
//!
//! Read [`routes`] first (everything that can be asked, in one table), then `submit` (the main path), then `server`.

mod server;

mod access;
mod dispatch;
pub mod routes;
pub mod settings;

mod admit;
mod intake;
mod options;
mod percent;
mod query;
mod submit;

mod call;

mod act;
mod describe;
mod health;
mod job_json;
mod list;
mod logs;
mod lookup;
mod openapi;
mod wait;

pub mod error;
pub mod functions;
pub mod metrics;
mod refuse;
mod reply;
mod scrape;
mod times;

pub use dispatch::Parts;
pub use functions::{Condition, Conditions, Functions, Workers};
pub use job_json::job_json;
pub use metrics::{FunctionMetrics, Metrics};
pub use scrape::{HistogramReading, HistogramValues};
pub use server::{Drained, run};
pub use settings::{Limits, Settings, Token, UnsafeListen};
