//! Everything that is tested of the queue from the outside.

mod backlog;
mod backup;
mod blobs;
mod check;
mod chores;
mod contract;
mod crash;
mod damage;
mod disk;
mod full_disk;
mod golden;
mod keys;
#[cfg(feature = "known-bad")]
mod known_bad;
mod opening;
mod retention;
mod scrub;
mod sealed;
mod setup;
mod subject;
