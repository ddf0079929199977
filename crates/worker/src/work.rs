//! What moves between the floor and the stations: slots, the work that holds them, and the names of places.

use std::sync::Arc;

use kvern_core::FunctionName;
use kvern_queue::Leased;
use kvern_runtime::Instance;

use crate::calls::Order;
use crate::heartbeat::Holding;
use crate::lane::Serving;
use crate::pool::PlaceId;
use crate::worker::Shared;

/// The right to run one attempt or call of a function now. Freed when dropped, which takes the lock of the floor.
pub(crate) struct Slot {
    pub(crate) shared: Arc<Shared>,
    pub(crate) function: FunctionName,
}

/// Something to run, with its slot.
pub(crate) enum Work {
    /// A leased job.
    Job(Box<JobWork>),
    /// A call.
    Call(Box<CallWork>),
}

/// A leased job with a slot.
pub(crate) struct JobWork {
    pub(crate) leased: Leased,
    pub(crate) holding: Holding,
    pub(crate) slot: Slot,
}

/// A call with a slot.
pub(crate) struct CallWork {
    pub(crate) order: Order,
    pub(crate) slot: Slot,
}

/// A place that was opened: somebody has to spawn its task.
pub(crate) struct Opening {
    pub(crate) function: FunctionName,
    pub(crate) generation: u64,
    pub(crate) id: PlaceId,
    pub(crate) serving: Serving,
    pub(crate) warm: bool,
    /// A live instance to begin with.
    pub(crate) instance: Option<Box<dyn Instance>>,
}

/// Names a place over all lanes and versions.
#[derive(Debug, Clone)]
pub(crate) struct PlaceKey {
    pub(crate) function: FunctionName,
    pub(crate) generation: u64,
    pub(crate) id: PlaceId,
}

// === impl Slot ===

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.free(&self.function);
    }
}

// === impl Work ===

impl Work {
    pub(crate) fn call(order: Order, slot: Slot) -> Self {
        Self::Call(Box::new(CallWork { order, slot }))
    }

    /// Whether there is no point in running it any more.
    pub(crate) fn is_stopped(&self) -> bool {
        match self {
            Self::Job(job) => job.holding.stop().is_some(),
            Self::Call(call) => !call.order.is_wanted(),
        }
    }
}
