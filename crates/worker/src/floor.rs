//! The slots of the worker and who holds them: the one table behind one lock. Which functions it serves, and how they
//! come and go, stands in [`crate::roster`].
//!
//! Methods decide and return [`Effects`]; [`crate::worker::Shared`] acts on them after the lock is released. Nothing
//! here waits. A [`Slot`] or [`Work`] must never be dropped under the lock, because a slot frees itself by taking it.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use kvern_core::{FailureCode, FunctionName};
use kvern_queue::Want;
use kvern_runtime::FunctionVersion;
use tokio::time::{Duration, Instant};

use crate::calls::Order;
use crate::lane::{Lane, Report, Serving, Step};
use crate::work::{Opening, PlaceKey, Slot, Work};
use crate::worker::Shared;

/// Work that waits this long although instances live gets another instance, if the function may have one. Longer than
/// the jobs that a warm instance handles while another would only begin to start.
pub(crate) const SCALE_UP_AFTER: Duration = Duration::from_millis(10);

/// Who holds which slot.
pub(crate) struct Floor {
    pub(crate) lanes: BTreeMap<FunctionName, Lane>,
    /// Slots of the worker that are free.
    free: usize,
    /// Whether new work is taken.
    pub(crate) open: bool,
    /// The versions that ran since the start, for as long as something of them runs.
    pub(crate) known: Vec<Weak<FunctionVersion>>,
    next_id: u64,
}

/// What the free slots could run.
pub(crate) struct Wanted {
    /// Functions with free slots.
    pub(crate) wants: Vec<Want>,
    /// Free slots in all.
    pub(crate) max: usize,
    /// When a function that pauses is to be asked for again.
    pub(crate) again_at: Option<Instant>,
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
        Self { lanes: BTreeMap::new(), free: slots, open: true, known: Vec::new(), next_id: 0 }
    }

    /// What to ask the queue for.
    pub(crate) fn wanted(&self, now: Instant) -> Wanted {
        let mut wanted = Wanted { wants: Vec::new(), max: self.free, again_at: None };
        if !self.open || self.free == 0 {
            return wanted;
        }
        for (function, lane) in self.lanes.iter().filter(|(_, lane)| !lane.gone && lane.free() > 0) {
            match lane.resting(now) {
                None => {
                    let want = Want { function: function.clone(), slots: lane.free().min(self.free) };
                    wanted.wants.push(want);
                }
                Some(until) => wanted.again_at = Some(wanted.again_at.map_or(until, |at| at.min(until))),
            }
        }
        wanted
    }

    /// Whether a function does not go on before the queue has room.
    pub(crate) fn awaits_room(&self) -> bool {
        self.lanes.values().any(|lane| lane.awaits_room)
    }

    /// The queue has room.
    pub(crate) fn has_room(&mut self) {
        self.lanes.values_mut().for_each(|lane| lane.awaits_room = false);
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
    pub(crate) fn serve_calls(
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
    pub(crate) fn start_failed(&mut self, place: &PlaceKey, code: FailureCode, now: Instant) -> Option<Work> {
        let lane = self.lane_of(place)?;
        lane.start_failed(place.id, code, now);
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

    /// Whether the floor takes work.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// A number that nobody else has.
    pub(crate) fn draw_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Opens the places that a lane misses.
    pub(crate) fn refill(&mut self, function: &FunctionName, effects: &mut Effects) {
        let missing = self.lanes.get(function).filter(|lane| self.open && !lane.gone).map_or(0, Lane::places_missing);
        self.open_places(function, missing, effects);
    }

    /// Opens places in a lane, as far as they are allowed.
    pub(crate) fn open_places(&mut self, function: &FunctionName, places: usize, effects: &mut Effects) {
        for _ in 0..places {
            let id = self.draw_id();
            effects.open.extend(self.lanes.get_mut(function).and_then(|lane| lane.open(function, id)));
        }
    }
}
