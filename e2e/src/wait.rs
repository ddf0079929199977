//! Waiting for conditions, never for time.

use std::time::{Duration, Instant};

/// The longest that a test waits for anything.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Asks `look` until it gives something; panics with `what` after [`DEADLINE`].
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_within(DEADLINE, what, look)
}

/// [`until`] with another deadline.
///
/// # Panics
/// When the deadline passes.
pub fn until_within<T>(deadline: Duration, what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(deadline, look).unwrap_or_else(|| panic!("waited {deadline:?} in vain for {what}"))
}

/// What `look` gives before the deadline, if it gives anything.
pub fn within<T>(deadline: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if began.elapsed() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5)); // tidy: polls a condition with a deadline
    }
}
