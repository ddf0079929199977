//! The Queue contract, its in-memory reference and the conformance suite that every adapter passes.
//!
//! A queue holds jobs from acceptance until they are forgotten. It knows nothing of HTTP, processes or retry policies:
//! the worker decides what follows an outcome, the queue stores it and moves the job in one step.
//!
//! Read [`contract`] first: the numbered rules stand there. [`memory`] is the executable specification; [`record`],
//! [`list`] and [`log`] are its pure parts, which adapters share. Behind the feature `testing` stand the two judges of an adapter:
//! `conformance`, one test per rule, and `model`, random operations beside the specification.

pub mod contract;

pub mod blob;
pub mod clock;
pub mod error;
pub mod events;
pub mod job;
pub mod payload;
pub mod staged;

pub mod list;
pub mod log;
pub mod record;

pub mod memory;

pub mod known_bad;

#[cfg(feature = "testing")]
pub mod conformance;
#[cfg(feature = "testing")]
pub mod model;

pub use blob::{BlobReader, Unreadable};
pub use clock::Clock;
pub use contract::{Durability, Queue};
pub use error::{Error, is_scarcity};
pub use events::{Event, Hub, Watch, Watcher};
pub use job::{
    Ask, Cursor, Filter, FunctionStats, Idempotency, Lease, LeaseState, LeaseToken, Leased, NewJob, Page, Retention,
    Settlement, Stats, Submitted, Swept, Want, WorkerInfo,
};
pub use known_bad::KnownBad;
pub use memory::MemoryQueue;
pub use payload::{Blob, Payload, Stage, Stored};
pub use staged::{Staged, remove_soon};
