//! The slots of the worker and who holds them: the one table behind one lock.
//!
//! Methods decide and return [`Effects`]; [`crate::worker::Shared`] acts on them after the lock is released. Nothing
//! here waits. A [`Slot`] or [`Work`] must never be dropped under the lock, because a slot frees itself by taking it.

use std::collections::BTreeMap;
use std::sync::Arc;

use kvern_core::{FunctionName, Keep};
use kvern_queue::{Leased, Want};
use kvern_runtime::{FunctionVersion, Instance};
use tokio::time::{Duration, Instant};

use crate::calls::Order;
use crate::heartbeat::Holding;
use crate::lane::{Lane, Report, Serving, Step};
use crate::pool::PlaceId;
use crate::worker::Shared;

/// Work that waits this long although instances live gets another instance, if the function may have one. Longer than
/// the jobs that a warm instance handles while another would only begin to start.
pub(crate) const SCALE_UP_AFTER: Duration = Duration::from_millis(10);

/// Who holds which slot.
pub(crate) struct Floor {
    lanes: BTreeMap<FunctionName, Lane>,
    /// Slots of the worker that are free.
    free: usize,
    /// Whether new work is taken.
    open: bool,
    next_id: u64,
}

/// The right to run one attempt or call of a function now. Freed when dropped.
pub(crate) struct Slot {
    shared: Arc<Shared>,
    function: FunctionName,
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

/// What follows a decision.
#[derive(Default)]
pub(crate) struct Effects {
    /// Places whose tasks are to be spawned.
    pub(crate) open: Vec<Opening>,
    /// The free slots are others than those that the lease loop asked for.
    pub(crate) wake_leases: bool,
    /// Work waits for an instance while others live.
    pub(crate) wake_scaler: bool,
    /// To be dropped after the lock is released.
    pub(crate) refused: Vec<Work>,
    /// Calls that get no slot any more: dropped after the lock is released.
    pub(crate) orders: Vec<Order>,
}

// === impl Floor ===

impl Floor {
    pub(crate) fn new(slots: usize) -> Self {
        Self { lanes: BTreeMap::new(), free: slots, open: true, next_id: 0 }
    }

    /// What to ask the queue for; nothing if no slot is free.
    pub(crate) fn wants(&self) -> (Vec<Want>, usize) {
        if !self.open || self.free == 0 {
            return (Vec::new(), 0);
        }
        let free = self.lanes.iter().filter(|(_, lane)| !lane.gone && lane.free() > 0);
        let wants = free.map(|(name, lane)| Want { function: name.clone(), slots: lane.free().min(self.free) });
        (wants.collect(), self.free)
    }

    /// Takes a slot, if one is free.
    pub(crate) fn take(&mut self, shared: &Arc<Shared>, function: &FunctionName) -> Option<Slot> {
        let lane = self.lanes.get_mut(function)?;
        if !self.open || lane.gone || self.free == 0 || lane.free() == 0 {
            return None;
        }
        lane.taken += 1;
        self.free -= 1;
        Some(Slot { shared: Arc::clone(shared), function: function.clone() })
    }

    /// Gives a slot back. A call that waits for it takes it, else the lease loop may have to know.
    pub(crate) fn free(&mut self, shared: &Arc<Shared>, function: &FunctionName, effects: &mut Effects, now: Instant) {
        let full = self.free == 0;
        self.free += 1;
        let mut news = full;
        if let Some(lane) = self.lanes.get_mut(function) {
            news |= lane.free() == 0;
            lane.taken = lane.taken.saturating_sub(1);
            if lane.gone && lane.taken == 0 {
                self.lanes.remove(function);
            }
        }
        let given = self.serve_calls(shared, function, full, effects, now);
        effects.wake_leases |= news && !given;
    }

    /// Lets a call that waits take a free slot: one of this function, or any if the worker was full.
    fn serve_calls(
        &mut self,
        shared: &Arc<Shared>,
        function: &FunctionName,
        all: bool,
        effects: &mut Effects,
        now: Instant,
    ) -> bool {
        let waits = |lane: &Lane| !lane.calls.is_empty() && lane.free() > 0;
        while self.free > 0 && self.open {
            let name = match self.lanes.get(function) {
                Some(lane) if waits(lane) => function.clone(),
                _ if !all => return false,
                _ => match self.lanes.iter().find(|(_, lane)| waits(lane)) {
                    Some((name, _)) => name.clone(),
                    None => return false,
                },
            };
            // Calls that nobody waits for any more only leave the line.
            let Some(order) = self.lanes.get_mut(&name).and_then(Lane::pop_call) else { continue };
            match self.take(shared, &name) {
                Some(slot) => self.dispatch(&name, Work::call(order, slot), effects, now),
                None => {
                    effects.orders.push(order);
                    return false;
                }
            }
            return true;
        }
        false
    }

    /// Brings work to an instance: one that waits, one that becomes free, or a new one.
    pub(crate) fn dispatch(&mut self, function: &FunctionName, work: Work, effects: &mut Effects, now: Instant) {
        let Some(lane) = self.lanes.get_mut(function).filter(|lane| self.open && !lane.gone) else {
            effects.refused.push(work);
            return;
        };
        if lane.dispatch(work, now) {
            return;
        }
        let lonely = !lane.pool.warm || lane.pool.places() == 0;
        if lonely {
            self.open_places(function, 1, effects);
        } else {
            effects.wake_scaler |= lane.pool.places() < lane.pool.max;
        }
    }

    /// A call asks for a slot: it gets one, waits in line, or comes back because too many wait.
    pub(crate) fn admit(
        &mut self,
        shared: &Arc<Shared>,
        order: Order,
        waiting_max: usize,
        effects: &mut Effects,
        now: Instant,
    ) -> Option<Order> {
        let function = order.function.clone();
        let Some(lane) = self.lanes.get_mut(&function).filter(|lane| self.open && !lane.gone) else {
            return Some(order);
        };
        lane.calls.retain(Order::is_wanted);
        let waiting = lane.calls.len();
        if waiting == 0
            && let Some(slot) = self.take(shared, &function)
        {
            self.dispatch(&function, Work::call(order, slot), effects, now);
            // The lease loop may be asking for this slot.
            effects.wake_leases |= self.free == 0 || self.lanes.get(&function).is_some_and(|lane| lane.free() == 0);
            return None;
        }
        let Some(lane) = self.lanes.get_mut(&function).filter(|_| waiting < waiting_max) else { return Some(order) };
        lane.calls.push_back(order);
        None
    }

    /// Takes a call out of the line; none if it has a slot by now.
    pub(crate) fn withdraw(&mut self, function: &FunctionName, id: u64) -> Option<Order> {
        let lane = self.lanes.get_mut(function)?;
        let at = lane.calls.iter().position(|order| order.id == id)?;
        lane.calls.remove(at)
    }

    /// What a place does next; see [`Lane::next`].
    pub(crate) fn next(
        &mut self,
        place: &PlaceKey,
        report: Report,
        slot: &mut Option<Slot>,
        serving: &mut Serving,
        now: Instant,
    ) -> Step {
        let (open, spare) = (self.open, self.free > 0);
        match self.lane_of(place) {
            Some(lane) if open => {
                serving.follow(&lane.serving);
                lane.next(place.id, report, slot, spare, now)
            }
            _ => Step::Leave,
        }
    }

    /// The lane in which this place counts; none once its version is no longer the one that runs.
    pub(crate) fn lane_of(&mut self, place: &PlaceKey) -> Option<&mut Lane> {
        self.lanes.get_mut(&place.function).filter(|lane| lane.generation == place.generation)
    }

    /// A start failed. The work that fails with it, if no live instance can take it.
    pub(crate) fn start_failed(&mut self, place: &PlaceKey, now: Instant) -> Option<Work> {
        let lane = self.lane_of(place)?;
        lane.pool.trouble(place.id, now);
        if lane.pool.up() > 0 { None } else { lane.pop_ready() }
    }

    /// Work that was handed to a place which lost its instance meanwhile goes back to the head of the line.
    pub(crate) fn give_back(&mut self, function: &FunctionName, work: Work, effects: &mut Effects, now: Instant) {
        let Some(lane) = self.lanes.get_mut(function).filter(|lane| self.open && !lane.gone) else {
            effects.refused.push(work);
            return;
        };
        lane.ready.push_front(work);
        lane.ready_since.get_or_insert(now);
        effects.wake_scaler = true;
        self.refill(function, effects);
    }

    /// A place is gone; another is opened if one is missed.
    pub(crate) fn leave(&mut self, place: &PlaceKey, effects: &mut Effects) {
        if let Some(lane) = self.lane_of(place) {
            lane.pool.leave(place.id);
            effects.wake_scaler |= !lane.ready.is_empty();
            self.refill(&place.function, effects);
        }
    }

    /// Opens places where work waits although instances live. Whether to look again soon.
    pub(crate) fn scale_up(&mut self, effects: &mut Effects, now: Instant) -> bool {
        let mut again = false;
        let mut wanted = Vec::new();
        for (name, lane) in self.lanes.iter().filter(|_| self.open) {
            let Some(since) = lane.ready_since.filter(|_| lane.pool.places() < lane.pool.max) else { continue };
            again = true;
            if now.duration_since(since) >= SCALE_UP_AFTER && lane.pool.resting(now).is_none() {
                let missing = lane.ready.len().saturating_sub(lane.pool.coming());
                // Half of what is missing at a time: what is there already may get through the line meanwhile.
                wanted.push((name.clone(), missing.div_ceil(2)));
            }
        }
        for (name, places) in wanted {
            self.open_places(&name, places, effects);
        }
        again
    }

    /// Takes out the work in line whose job was cancelled or taken over.
    pub(crate) fn take_stopped(&mut self) -> Vec<Work> {
        let mut stopped = Vec::new();
        for lane in self.lanes.values_mut() {
            let (out, kept) = lane.ready.drain(..).partition::<Vec<_>, _>(Work::is_stopped);
            lane.ready.extend(kept);
            if lane.ready.is_empty() {
                lane.ready_since = None;
            }
            stopped.extend(out);
        }
        stopped
    }

    /// The version that runs, and whether an instance of it lives.
    pub(crate) fn serving(&self, function: &FunctionName) -> Option<(Serving, bool)> {
        self.lanes.get(function).filter(|lane| !lane.gone).map(|lane| (lane.serving.clone(), lane.pool.up() > 0))
    }

    /// Whether the floor takes work.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// From now on this runs; places of the old version leave when they are done. With a live instance to begin with.
    pub(crate) fn switch(
        &mut self,
        shared: &Arc<Shared>,
        serving: Serving,
        warm: bool,
        instance: Option<Box<dyn Instance>>,
        effects: &mut Effects,
    ) {
        let name = serving.function().name.clone();
        self.next_id += 1;
        let mut lane = Lane::new(serving, warm, self.next_id);
        if let Some(old) = self.lanes.remove(&name) {
            lane.taken = old.taken;
            lane.calls = old.calls;
            lane.ready = old.ready;
            lane.ready_since = old.ready_since;
        }
        self.lanes.insert(name.clone(), lane);
        if instance.is_some() {
            self.open_places(&name, 1, effects);
            if let Some(opening) = effects.open.last_mut() {
                opening.instance = instance;
            }
        }
        self.settle_in(shared, &name, effects);
    }

    /// The same version with other limits.
    pub(crate) fn adjust(&mut self, shared: &Arc<Shared>, version: Arc<FunctionVersion>, effects: &mut Effects) {
        let name = version.function.name.clone();
        if let Some(lane) = self.lanes.get_mut(&name) {
            lane.adjust(version);
            self.settle_in(shared, &name, effects);
        }
    }

    /// After a change of a lane: calls take slots that are new, places are opened, and the tasks look again.
    fn settle_in(&mut self, shared: &Arc<Shared>, name: &FunctionName, effects: &mut Effects) {
        while self.serve_calls(shared, name, false, effects, Instant::now()) {}
        self.refill(name, effects);
        effects.wake_leases = true;
        effects.wake_scaler = true;
    }

    /// A function that is new here: calls may wait for its first version.
    pub(crate) fn expect(&mut self, function: Arc<kvern_core::Function>) {
        if self.serving(&function.name).is_none() {
            let name = function.name.clone();
            let mut lane = Lane::new(Serving::Preparing(function), false, 0);
            lane.taken = self.lanes.remove(&name).map_or(0, |gone| gone.taken);
            self.lanes.insert(name, lane);
        }
    }

    /// Removes every function that is not kept, and gives the work that waited there.
    pub(crate) fn keep_only(&mut self, kept: impl Fn(&FunctionName) -> bool) -> (Vec<Work>, Vec<Order>) {
        let (mut works, mut orders) = (Vec::new(), Vec::new());
        self.lanes.retain(|name, lane| {
            if kept(name) {
                return true;
            }
            works.extend(lane.empty());
            orders.extend(lane.calls.drain(..));
            lane.gone = true;
            lane.generation = 0;
            // What runs keeps its slots: the function may come back before it ends.
            lane.taken > 0
        });
        (works, orders)
    }

    /// Takes no more work, sends the idle away, and gives the work that did not begin.
    pub(crate) fn close(&mut self) -> (Vec<Work>, Vec<Order>) {
        self.open = false;
        let (mut works, mut orders) = (Vec::new(), Vec::new());
        for lane in self.lanes.values_mut() {
            works.extend(lane.empty());
            orders.extend(lane.calls.drain(..));
        }
        (works, orders)
    }

    /// How long finished jobs are kept.
    pub(crate) fn retention(&self) -> Vec<(FunctionName, Keep)> {
        self.lanes.iter().map(|(name, lane)| (name.clone(), lane.serving.function().keep)).collect()
    }

    /// The versions that run.
    pub(crate) fn versions(&self) -> Vec<(FunctionName, String)> {
        let here = self.lanes.iter().filter(|(_, lane)| !lane.gone);
        let versions = here.filter_map(|(name, lane)| Some((name, lane.serving.version()?)));
        versions.map(|(name, version)| (name.clone(), version.version.to_string())).collect()
    }

    fn refill(&mut self, function: &FunctionName, effects: &mut Effects) {
        let missing = self.lanes.get(function).filter(|lane| self.open && !lane.gone).map_or(0, Lane::places_missing);
        self.open_places(function, missing, effects);
    }

    fn open_places(&mut self, function: &FunctionName, places: usize, effects: &mut Effects) {
        let Some(lane) = self.lanes.get_mut(function) else { return };
        for _ in 0..places {
            self.next_id += 1;
            effects.open.extend(lane.open(function, self.next_id));
        }
    }
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
    fn is_stopped(&self) -> bool {
        match self {
            Self::Job(job) => job.holding.stop().is_some(),
            Self::Call(call) => !call.order.is_wanted(),
        }
    }
}
