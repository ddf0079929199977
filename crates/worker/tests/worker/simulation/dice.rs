//! Seeded chance that many hands may draw from.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Draws the same in every run of a seed, as long as it is asked in the same order.
#[derive(Debug, Clone)]
pub(crate) struct Dice(Arc<Mutex<SmallRng>>);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(SmallRng::seed_from_u64(seed))))
    }

    /// One of `from..to`.
    pub(crate) fn between(&self, from: u32, to: u32) -> u32 {
        self.0.lock().expect("no panic under the lock").random_range(from..to)
    }

    /// True so often in a hundred.
    pub(crate) fn percent(&self, chance: u32) -> bool {
        self.between(0, 100) < chance
    }

    pub(crate) fn fraction(&self) -> f64 {
        f64::from(self.between(0, 1000)) / 1000.0
    }

    /// Short times are more likely.
    pub(crate) fn up_to(&self, time: Duration) -> Duration {
        time.mul_f64(self.fraction().powi(3))
    }

    pub(crate) fn pick<'a, T>(&self, of: &'a [T]) -> Option<&'a T> {
        if of.is_empty() { None } else { of.get(self.between(0, u32::try_from(of.len()).ok()?) as usize) }
    }
}
