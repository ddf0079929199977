//! One function on this worker: the version that runs, its slots, the calls that wait for one, and the work that has a
//! slot and waits for an instance. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

use kvern_core::{Failure, Function, FunctionName};
use kvern_runtime::FunctionVersion;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::calls::Order;
use crate::floor::{Opening, Slot, Work};
use crate::pool::{PlaceId, Pool};

/// Calls that may take a freed slot in a row before a job is looked for.
const CALLS_IN_A_ROW: u32 = 8;

/// One function on this worker.
pub(crate) struct Lane {
    pub(crate) serving: Serving,
    /// Grows with each change of version: places of an older one leave.
    pub(crate) generation: u64,
    /// Attempts and calls at once.
    pub(crate) slots: usize,
    /// Slots in use.
    pub(crate) taken: usize,
    /// Calls without a slot.
    pub(crate) calls: VecDeque<Order>,
    /// Work with a slot and without an instance.
    pub(crate) ready: VecDeque<Work>,
    /// Since when `ready` has never been empty.
    pub(crate) ready_since: Option<Instant>,
    pub(crate) pool: Pool<Work>,
    /// It is no longer in the manifest: what runs ends, nothing begins.
    pub(crate) gone: bool,
    calls_in_a_row: u32,
}

/// What runs for a function.
#[derive(Debug, Clone)]
pub(crate) enum Serving {
    /// This version.
    Version(Arc<FunctionVersion>),
    /// Nothing yet: the first version is being prepared. Jobs wait in the queue, calls wait here.
    Preparing(Arc<Function>),
    /// Nothing: no version of it could be prepared. Its jobs fail with the reason.
    Broken(Arc<Function>, Arc<Failure>),
}

/// What a place should do next.
pub(crate) enum Step {
    /// Run this.
    Run(Work),
    /// Keep the slot and ask the queue for one more job of the function.
    Lease,
    /// Start an instance.
    Start,
    /// Wait for work, up to this time.
    Wait(oneshot::Receiver<Work>, Option<Instant>),
    /// Stop the instance and go.
    Leave,
}

/// How a place comes to ask for its next step.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Report {
    /// It has a live instance.
    pub(crate) up: bool,
    /// It has just asked the queue for a job, and there was none.
    pub(crate) asked: bool,
    /// It has waited its time.
    pub(crate) waited: bool,
    /// It has just run something that did not end in a crash.
    pub(crate) went_well: bool,
}

// === impl Serving ===

impl Serving {
    /// The function with its limits.
    pub(crate) fn function(&self) -> &Arc<Function> {
        match self {
            Self::Version(version) => &version.function,
            Self::Preparing(function) | Self::Broken(function, _) => function,
        }
    }

    /// Takes new limits over, if the lane has any.
    pub(crate) fn follow(&mut self, lane: &Self) {
        if !Arc::ptr_eq(self.function(), lane.function()) {
            *self = lane.clone();
        }
    }

    /// The name of the version.
    pub(crate) fn version(&self) -> Option<&Arc<FunctionVersion>> {
        match self {
            Self::Version(version) => Some(version),
            Self::Preparing(_) | Self::Broken(..) => None,
        }
    }
}

// === impl Lane ===

impl Lane {
    /// A lane without places yet. `warm` is what the runtime says of the version.
    pub(crate) fn new(serving: Serving, warm: bool, generation: u64) -> Self {
        let function = serving.function();
        let (slots, min, max) = match &serving {
            Serving::Preparing(_) => (0, 0, 0),
            Serving::Version(_) | Serving::Broken(..) => bounds(function, warm),
        };
        let pool = Pool::new(warm, min, max, function.scale.idle);
        Self {
            generation,
            slots,
            pool,
            serving,
            taken: 0,
            calls: VecDeque::new(),
            ready: VecDeque::new(),
            ready_since: None,
            gone: false,
            calls_in_a_row: 0,
        }
    }

    /// The same version with other limits.
    pub(crate) fn adjust(&mut self, version: Arc<FunctionVersion>) {
        let (slots, min, max) = bounds(&version.function, self.pool.warm);
        self.slots = slots;
        (self.pool.min, self.pool.max, self.pool.idle_time) = (min, max, version.function.scale.idle);
        self.serving = Serving::Version(version);
    }

    /// Slots that are free.
    pub(crate) fn free(&self) -> usize {
        self.slots.saturating_sub(self.taken)
    }

    /// What the place does next. `slot` is the one it held for what it just ran; `spare` says whether others are free on
    /// the worker, so that keeping this one takes nothing from other functions.
    pub(crate) fn next(
        &mut self,
        id: PlaceId,
        report: Report,
        slot: &mut Option<Slot>,
        spare: bool,
        now: Instant,
    ) -> Step {
        if report.went_well {
            self.pool.went_well();
        }
        if self.pool.warm && !report.up {
            return self.next_without_instance(id, now);
        }
        if let Some(work) = self.pop_ready() {
            return Step::Run(work);
        }
        let calls_first = self.calls_in_a_row < CALLS_IN_A_ROW || report.asked || !spare;
        if calls_first && let Some(work) = self.next_call(slot) {
            return Step::Run(work);
        }
        if slot.is_some() && spare && !report.asked {
            self.calls_in_a_row = 0;
            return Step::Lease;
        }
        if !self.pool.warm || (report.waited && self.pool.places() > self.pool.min) {
            return Step::Leave;
        }
        let until = (self.pool.places() > self.pool.min).then(|| now + self.pool.idle_time);
        Step::Wait(self.pool.wait(id), until)
    }

    fn next_without_instance(&mut self, id: PlaceId, now: Instant) -> Step {
        let resting = self.pool.resting(now);
        let wanted = self.pool.places() <= self.pool.min;
        // Work that nobody else can take is tried at once: it fails with the reason, if it must.
        if !self.ready.is_empty() && (self.pool.up() == 0 || resting.is_none()) {
            self.pool.starting(id);
            return Step::Start;
        }
        match (wanted, resting) {
            (false, _) => Step::Leave,
            (true, None) => {
                self.pool.starting(id);
                Step::Start
            }
            (true, Some(until)) => Step::Wait(self.pool.wait(id), Some(until)),
        }
    }

    /// The first call that still wants an answer takes the slot.
    fn next_call(&mut self, slot: &mut Option<Slot>) -> Option<Work> {
        slot.as_ref()?;
        let order = self.pop_call()?;
        self.calls_in_a_row += 1;
        slot.take().map(|slot| Work::call(order, slot))
    }

    /// The first call that still wants an answer.
    pub(crate) fn pop_call(&mut self) -> Option<Order> {
        while let Some(order) = self.calls.pop_front() {
            if order.is_wanted() {
                return Some(order);
            }
        }
        None
    }

    pub(crate) fn pop_ready(&mut self) -> Option<Work> {
        let work = self.ready.pop_front();
        if self.ready.is_empty() {
            self.ready_since = None;
        }
        work
    }

    /// Work with a slot: to a place that waits, or in line.
    pub(crate) fn dispatch(&mut self, work: Work, now: Instant) -> bool {
        match self.pool.hand(work) {
            Ok(()) => true,
            Err(work) => {
                self.ready.push_back(work);
                self.ready_since.get_or_insert(now);
                false
            }
        }
    }

    /// Gives the work in line and sends the idle away.
    pub(crate) fn empty(&mut self) -> Vec<Work> {
        self.ready_since = None;
        self.pool.dismiss();
        self.ready.drain(..).collect()
    }

    /// How many places to open now, so that `min` is there and nothing in line waits for nobody.
    pub(crate) fn places_missing(&self) -> usize {
        if self.pool.warm {
            let wanted = self.pool.min.max(usize::from(!self.ready.is_empty()));
            return wanted.saturating_sub(self.pool.places());
        }
        // Each slot in use is one place's, or stands in line.
        self.ready.len().min(self.taken.saturating_sub(self.pool.places()))
    }

    /// A new place in the pool, if one is allowed.
    pub(crate) fn open(&mut self, name: &FunctionName, id: PlaceId) -> Option<Opening> {
        self.pool.open(id).then(|| Opening {
            function: name.clone(),
            generation: self.generation,
            id,
            serving: self.serving.clone(),
            warm: self.pool.warm,
            instance: None,
        })
    }
}

/// Slots, and least and most instances. Without warm instances each attempt starts its own.
fn bounds(function: &Function, warm: bool) -> (usize, usize, usize) {
    let slots = function.concurrency.max(1) as usize;
    if !warm {
        return (slots, 0, slots);
    }
    let max = (function.scale.max.max(1) as usize).min(slots);
    (max, (function.scale.min as usize).min(max), max)
}
