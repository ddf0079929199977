//! Leases jobs, runs them on a runtime, settles them; runs calls in the same instances.
//!
//! The worker knows the [`Queue`](kvern_queue::Queue) and [`Runtime`](kvern_runtime::Runtime) contracts and nothing of
//! SQL, processes or HTTP. It decides nothing about a job's life: [`kvern_core::next`] does, the queue stores it.
//!
//! Read [`turn`] first: one job from lease to settlement. The path of a job through the files:
//!
//! ```text
//! leases ──▶ floor (a slot) ──▶ station (an instance) ──▶ turn (the attempt) ──▶ settle
//!   asks       lane, pool,        one task each             log, output           owned until durable
//!              roster
//! ```
//!
//! A *slot* is the right to run one attempt or call now; `floor` counts them. A *station* is a task that owns one
//! instance for its life and takes work for it. Beside them run a few tasks that serve all: see [`tasks`].

mod turn;

mod attempt;
mod backlog;
mod calls;
mod log;
mod output;
mod reply;
mod request;
mod settle;

mod backoff;
mod floor;
mod lane;
mod pool;
mod roster;
mod station;
mod work;

mod announce;
mod drain;
mod functions;
mod heartbeat;
mod leases;
mod scaler;
mod sweeper;
mod tasks;

mod observer;
mod settings;
mod worker;

pub use drain::Drained;
pub use functions::{LoadError, Loaded};
pub use observer::{Observer, Settled, Silent, Started, Times};
pub use request::not_kept;
pub use settings::Settings;
pub use sweeper::sweep;
pub use worker::{Parts, Worker};
