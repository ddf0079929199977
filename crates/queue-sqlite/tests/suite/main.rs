//! Everything that is tested of the queue from the outside.

mod backlog;
mod blobs;
mod chores;
mod contract;
mod crash;
mod damage;
mod full_disk;
mod keys;
mod opening;
mod sealed;
mod setup;
