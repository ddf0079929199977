//! Which functions the floor serves: how a version takes over, how functions come and go, and the end of all.

use std::sync::{Arc, Weak};

use kvern_core::{Function, FunctionName, Keep};
use kvern_runtime::{FunctionVersion, Instance, Version};
use tokio::time::Instant;

use crate::calls::Order;
use crate::floor::{Effects, Floor};
use crate::lane::{Lane, Serving};
use crate::work::Work;
use crate::worker::Shared;

impl Floor {
    /// The version that runs, and whether an instance of it lives.
    pub(crate) fn serving(&self, function: &FunctionName) -> Option<(Serving, bool)> {
        self.lanes.get(function).filter(|lane| !lane.gone).map(|lane| (lane.serving.clone(), lane.pool.up() > 0))
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
        let mut lane = Lane::new(serving, warm, self.draw_id());
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

    /// This version may run from now on.
    pub(crate) fn know(&mut self, version: &Arc<FunctionVersion>) {
        self.known.retain(|known| known.strong_count() > 0);
        self.known.push(Arc::downgrade(version));
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
    pub(crate) fn expect(&mut self, function: Arc<Function>) {
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

    /// The versions that something runs from, or may at any moment.
    pub(crate) fn in_use(&self) -> Vec<(FunctionName, Version)> {
        let versions = self.known.iter().filter_map(Weak::upgrade);
        versions.map(|version| (version.function.name.clone(), version.version.clone())).collect()
    }
}
