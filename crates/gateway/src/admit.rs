//! The bound on request bodies in memory. Queued jobs, free disk and connections are bounded where they are counted: in
//! the queue and in the accept loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the bytes of request bodies that are in memory.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    limit: u64,
    taken: Arc<AtomicU64>,
}

/// Room for so many bytes, given back when dropped.
#[derive(Debug)]
pub(crate) struct Room {
    bytes: u64,
    taken: Arc<AtomicU64>,
}

// === impl Admission ===

impl Admission {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, taken: Arc::default() }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Takes room before the bytes are read; none if there is not enough. Nobody waits: a client can come back.
    pub(crate) fn take(&self, bytes: u64) -> Option<Room> {
        let before = self.taken.fetch_add(bytes, Ordering::Relaxed);
        let room = Room { bytes, taken: Arc::clone(&self.taken) };
        // Dropping the room gives the bytes back.
        (before.saturating_add(bytes) <= self.limit).then_some(room)
    }
}

// === impl Room ===

impl Room {
    /// Room that nobody takes.
    pub(crate) fn none() -> Self {
        Self { bytes: 0, taken: Arc::default() }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_bounded_and_comes_back() {
        let admission = Admission::new(100);
        let first = admission.take(60).expect("there is room");
        assert!(admission.take(41).is_none());
        let second = admission.take(40).expect("a refused one took nothing");
        assert!(admission.take(1).is_none());
        drop((first, second));
        assert!(admission.take(100).is_some());
    }
}
