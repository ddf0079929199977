//! The worker with the queue in memory and a scripted runtime, on a clock that tokio's pause turns: no test here waits
//! for real time.

mod support;

mod calls;
mod drain;
mod full_disk;
mod instances;
mod jobs;
#[cfg(feature = "known-bad")]
mod known_bad;
mod simulation;
mod threads;
mod versions;
