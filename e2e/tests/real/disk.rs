//! What a disk can do to a server: lose its power, fail, fill up, hang, turn read-only, forget. Each test has a file system
//! of its own over a loop device, which needs root.

mod clock_jump;
mod failed_sync;
mod fill;
mod hung;
pub(crate) mod load;
mod lying_disk;
mod power_cut;
mod read_only;
mod unreadable;
