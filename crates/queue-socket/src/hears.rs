//! Who hears what workers do: the binary wires it to the metrics of the process that has the queue.

use std::time::Duration;

use kvern_core::FunctionName;

/// Hears of attempts that ended elsewhere. Called on the path of jobs: returns at once.
pub trait Hears: Send + Sync + 'static {
    /// Jobs were leased.
    fn leased(&self);

    /// An attempt's end is stored: everyone can see it now.
    fn settled(&self, ended: &Ended<'_>);
}

/// An attempt whose outcome is stored.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    /// Its function.
    pub function: &'a FunctionName,
    /// The word of its outcome.
    pub outcome: &'static str,
    /// How long the job had waited before it.
    pub wait: Duration,
    /// How long it took.
    pub run: Duration,
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unheard;

impl Hears for Unheard {
    fn leased(&self) {}

    fn settled(&self, _: &Ended<'_>) {}
}
