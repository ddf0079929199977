//! Everything that is tested of the queue from the outside.

mod backlog;
mod blobs;
mod chores;
mod contract;
mod crash;
mod damage;
mod disk;
mod full_disk;
#[cfg(feature = "known-bad")]
mod known_bad;
mod opening;
mod sealed;
mod setup;
mod subject;
