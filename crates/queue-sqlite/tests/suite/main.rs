//! Everything that is tested of the queue from the outside.

mod contract;
mod setup;
