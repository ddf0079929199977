//! The queue in memory as a subject: memory goes first.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::Subject;
use super::setup::EPOCH;
use crate::clock::Clock;
use crate::contract::Queue;
use crate::memory::MemoryQueue;

/// The queue in memory, which plays a restart with [`MemoryQueue::reboot`].
#[derive(Debug)]
pub struct MemorySubject {
    clock: Clock,
    last: Mutex<Option<Arc<MemoryQueue>>>,
}

// === impl MemorySubject ===

impl Default for MemorySubject {
    fn default() -> Self {
        Self { clock: Clock::manual(EPOCH), last: Mutex::new(None) }
    }
}

#[async_trait]
impl Subject for MemorySubject {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn open(&self) -> Arc<dyn Queue> {
        let queue = Arc::new(MemoryQueue::new(self.clock()));
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&queue));
        queue
    }

    async fn reopen(&self, queue: Arc<dyn Queue>) -> Arc<dyn Queue> {
        if let Some(last) = self.last.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            last.reboot();
        }
        queue
    }

    fn clock(&self) -> Clock {
        self.clock.clone()
    }
}
