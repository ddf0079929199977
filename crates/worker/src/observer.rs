//! What a worker tells about itself: the binary wires it to metrics and to the dev console's lines.

use std::time::Duration;

use kvern_core::{Failure, FunctionName, JobId, Outcome, State};
use kvern_runtime::{FunctionVersion, Version};

use crate::functions::LoadError;

/// Hears what happens. Called on the path of jobs: each method returns at once and does not lock for long.
/// Every method does nothing unless it is written.
pub trait Observer: Send + Sync + 'static {
    /// An attempt begins.
    fn job_started(&self, _started: &Started<'_>) {}
    /// An attempt's end is stored: everyone can see it now.
    fn job_settled(&self, _settled: &Settled<'_>) {}
    /// The end of an attempt was not stored: the lease was over, or the queue failed.
    fn settlement_failed(&self, _job: JobId, _error: &kvern_queue::Error) {}
    /// A call ended; cancelled, if its caller has gone or the worker stops. `run` counts from the moment it had a slot.
    fn call_finished(&self, _function: &FunctionName, _outcome: &Outcome, _run: Duration) {}
    /// The function printed something, in a job or in a call. Pieces, not lines.
    fn printed(&self, _function: &FunctionName, _job: Option<JobId>, _bytes: &[u8]) {}
    /// An instance is ready after this long.
    fn instance_started(&self, _version: &FunctionVersion, _pid: Option<u32>, _cold_start: Duration) {}
    /// An instance could not be started.
    fn instance_failed(&self, _version: &FunctionVersion, _failure: &Failure) {}
    /// An instance died by itself, idle or under an attempt.
    fn instance_died(&self, _version: &FunctionVersion, _pid: Option<u32>) {}
    /// An instance was stopped.
    fn instance_stopped(&self, _version: &FunctionVersion) {}
    /// From now on this version runs.
    fn version_switched(&self, _version: &FunctionVersion, _old: Option<&Version>) {}
    /// A version could not be made ready; `serving` goes on, if there is one.
    fn version_failed(&self, _function: &FunctionName, _error: &LoadError, _serving: Option<&Version>) {}
    /// A step of preparing functions, for a person who waits.
    fn step(&self, _line: &str) {}
}

/// An attempt that begins.
#[derive(Debug, Clone, Copy)]
pub struct Started<'a> {
    /// The job.
    pub job: JobId,
    /// Its function.
    pub function: &'a FunctionName,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// How long the job waited since it could have run.
    pub wait: Duration,
}

/// An attempt whose end is stored.
#[derive(Debug, Clone, Copy)]
pub struct Settled<'a> {
    /// The job.
    pub job: JobId,
    /// Its function.
    pub function: &'a FunctionName,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// How it ended; none if the job was released.
    pub outcome: Option<&'a Outcome>,
    /// Where the job stands now.
    pub state: State,
    /// How long it took; none if the job was given back before anything ran.
    pub times: Option<Times>,
}

/// How long an attempt took.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// How long the job waited before it.
    pub wait: Duration,
    /// How long it ran, the start of an instance included where it needed one.
    pub run: Duration,
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}
