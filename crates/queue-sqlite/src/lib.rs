//! The embedded queue: SQLite behind one writer thread that commits whatever waits with one fsync.
//!
//! What it does not do: it does not decide what follows an outcome (the worker does), and it does not know how a record
//! changes with a move (`kvern_queue::record` does). It keeps both durable, and hands out leases from memory.
//!
//! Read [`writer`] first, then [`window`] and [`running`] for how leases work without a write, and
//! `migrations/0001.sql` for what is on the disk.

// The way in.
mod error;
mod lock;
mod open;
mod queue;
mod recover;
mod schema;
mod shared;

// The writer, and what it can be asked for.
mod effects;
mod inbox;
mod operation;
mod pulse;
mod transaction;
mod wal;
mod writer;

mod arrivals;
mod keys;
mod log;
mod long;
mod pause;
mod private;
mod redirect;
mod settle;
mod stuck;
mod submit;

// What it does by itself, or when a sweep asks.
mod damage;
mod due;
mod forget;
mod refill;
mod scrub;
mod sweep;

// Memory: what is leased, and who waits.
mod lease;
mod memory;
mod running;
mod waiters;
mod window;

// Looking.
mod list;
#[cfg(test)]
mod plans;
mod rank;
mod read;
mod rows;

// The disk beside the database.
mod blob;
mod checksum;
mod commits;
mod full;
mod hold;
mod space;

// The whole of it: looked at, copied, brought back.
mod backup;
mod check;
mod finding;

pub use backup::copy::{Hears, Progress};
pub use backup::create::{Made, create as create_backup};
pub use backup::error::BackupError;
pub use backup::label::Label;
pub use backup::restore::{Restored, restore as restore_backup};
pub use backup::verify::verify as verify_backup;
pub use check::{FINDINGS_MAX, Report, check};
pub use commits::{BOUNDS_US, CommitStats};
pub use error::OpenError;
pub use finding::{Finding, Level};
pub use lock::{LOCK_FILE, Lock, holder};
pub use open::{Bounds, Options};
pub use queue::{DATABASE_FILE, SqliteQueue};
pub use schema::SCHEMA;
pub use space::RESERVE_BYTES;
