//! The worker as others see it, and what its tasks share.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use kvern_core::{Function, FunctionName};
use kvern_queue::{Clock, Leased, Queue, Settlement};
use kvern_runtime::{Call, CallError, Invoke, Reply, Runtime, Version};
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::drain::Drained;
use crate::floor::{Effects, Floor};
use crate::functions::Loaded;
use crate::heartbeat::{Heartbeat, Holding};
use crate::observer::Observer;
use crate::settings::Settings;
use crate::settle::{Note, Settlements};
use crate::work::{JobWork, Opening, Work};
use crate::{calls, drain, functions, station, tasks, turn};

/// What a worker is made of.
pub struct Parts {
    /// Where jobs come from.
    pub queue: Arc<dyn Queue>,
    /// What runs them.
    pub runtime: Arc<dyn Runtime>,
    /// The time, for records and deadlines.
    pub clock: Clock,
    /// The worker's name, unique among live workers.
    pub name: String,
    /// Its settings.
    pub settings: Settings,
    /// Who hears what happens.
    pub observer: Arc<dyn Observer>,
}

/// Leases jobs, runs them, settles them; runs calls beside them.
///
/// A worker runs nothing until it was given functions ([`Worker::set_functions`]) and takes no jobs until
/// [`Worker::run`] runs; calls are served as soon as there are functions.
pub struct Worker {
    shared: Arc<Shared>,
}

/// What the tasks of a worker share.
pub(crate) struct Shared {
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) clock: Clock,
    pub(crate) name: String,
    pub(crate) settings: Settings,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) heartbeat: Arc<Heartbeat>,
    pub(crate) settlements: Arc<Settlements>,
    /// The tasks of the places.
    pub(crate) stations: TaskTracker,
    /// The floor changed in a way that the lease loop must know.
    pub(crate) leases_news: Notify,
    /// Work waits for an instance.
    pub(crate) scaler_news: Notify,
    /// The functions changed.
    pub(crate) versions_news: Notify,
    /// A job was leased: whoever sleeps for long wakes.
    pub(crate) activity: Notify,
    /// The worker takes no more work.
    pub(crate) closing: CancellationToken,
    /// What still runs has to stop.
    pub(crate) stop_now: CancellationToken,
    /// What is being stopped has had its time: one that began before the drain has a longer grace than the drain.
    pub(crate) too_late: CancellationToken,
    /// Held while functions are prepared and switched: one reload at a time, with its number.
    pub(crate) reload: AsyncMutex<u64>,
    floor: Mutex<Floor>,
}

// === impl Worker ===

impl Worker {
    /// A worker without functions.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self { shared: Arc::new(Shared::new(parts)) }
    }

    /// Runs until `shutdown`, then drains: leases end at once, attempts may finish for most of
    /// [`Settings::drain_time`], the rest are stopped and released, every settlement is stored, every instance stopped.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) -> Drained {
        let mut tasks = tasks::Tasks::start(&self.shared);
        tasks.watch_until(shutdown.cancelled()).await;
        drain::drain(&self.shared, &mut tasks).await
    }

    /// Calls of these functions wait for [`Worker::set_functions`] from now on, instead of being refused. Whoever tells
    /// callers that a function exists says so here first.
    pub fn expect(&self, functions: &[Function]) {
        for function in functions {
            self.shared.floor(|floor, _| floor.expect(Arc::new(function.clone())));
        }
    }

    /// Makes these the functions of the worker, and tells what became of each, in order. New and changed ones are
    /// prepared (at the same time, at most a few) and take over one by one; an old version serves until its successor
    /// is ready, and goes on if there is none. Those that are not named take no more work.
    pub async fn set_functions(&self, functions: Vec<Function>) -> Vec<Loaded> {
        functions::set_functions(&self.shared, functions).await
    }

    /// The versions that run, in the order of names.
    #[must_use]
    pub fn versions(&self) -> Vec<(FunctionName, String)> {
        self.shared.floor(|floor, _| floor.versions())
    }

    /// The versions whose code is needed: those that run, and older ones in which an attempt has not ended yet.
    #[must_use]
    pub fn versions_in_use(&self) -> Vec<(FunctionName, Version)> {
        self.shared.floor(|floor, _| floor.in_use())
    }
}

#[async_trait]
impl Invoke for Worker {
    async fn call(&self, call: Call) -> Result<Reply, CallError> {
        calls::call(&self.shared, call).await
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Shared {
    fn new(parts: Parts) -> Self {
        let Parts { queue, runtime, clock, name, settings, observer } = parts;
        Self {
            heartbeat: Arc::default(),
            settlements: Arc::new(Settlements::new(Arc::clone(&queue), Arc::clone(&observer))),
            stations: TaskTracker::new(),
            leases_news: Notify::new(),
            scaler_news: Notify::new(),
            versions_news: Notify::new(),
            activity: Notify::new(),
            closing: CancellationToken::new(),
            stop_now: CancellationToken::new(),
            too_late: CancellationToken::new(),
            reload: AsyncMutex::new(0),
            floor: Mutex::new(Floor::new(settings.slots)),
            queue,
            runtime,
            clock,
            name,
            settings,
            observer,
        }
    }

    /// Decides something under the lock of the floor, then does what follows.
    pub(crate) fn floor<T>(self: &Arc<Self>, decide: impl FnOnce(&mut Floor, &mut Effects) -> T) -> T {
        let mut effects = Effects::default();
        let decided = {
            // A panic under the lock leaves counts that may be off by one slot; going on is the lesser harm.
            let mut floor = self.floor.lock().unwrap_or_else(PoisonError::into_inner);
            decide(&mut floor, &mut effects)
        };
        self.act(effects);
        decided
    }

    /// Gives a slot of the function back.
    pub(crate) fn free(self: &Arc<Self>, function: &FunctionName) {
        self.floor(|floor, effects| floor.free(self, function, effects, Instant::now()));
    }

    /// A leased job from the queue: to an instance, or back if its slot is gone meanwhile.
    pub(crate) fn take_in(self: &Arc<Self>, leased: Leased) {
        let holding = self.heartbeat.hold(leased.lease.token());
        let function = leased.job.function.clone();
        let refused = self.floor(|floor, effects| match floor.take(self, &function) {
            Some(slot) => {
                let work = Work::Job(Box::new(JobWork { leased, holding, slot }));
                floor.dispatch(&function, work, effects, Instant::now());
                None
            }
            None => Some((leased, holding)),
        });
        if let Some((leased, holding)) = refused {
            self.release(leased, holding);
        }
    }

    /// Gives a leased job back as if it had not been leased.
    pub(crate) fn release(self: &Arc<Self>, leased: Leased, holding: Holding) {
        let note = Note {
            function: leased.job.function.clone(),
            attempt: leased.job.tally.attempts + 1,
            outcome: None,
            times: None,
        };
        let settlements = Arc::clone(&self.settlements);
        self.stations.spawn(async move {
            settlements.hand_over(leased.lease, holding, Settlement::Release, note).await;
        });
    }

    /// Work that will not be run: jobs go back to the queue, callers hear that they are not served.
    pub(crate) fn refuse(self: &Arc<Self>, works: Vec<Work>) {
        for work in works {
            match work {
                Work::Job(job) => {
                    let JobWork { leased, holding, slot } = *job;
                    self.release(leased, holding);
                    drop(slot);
                }
                // Its reply is dropped, which the caller hears.
                Work::Call(call) => drop(call),
            }
        }
    }

    /// The time between TERM and KILL: shorter in a drain, if the drain is.
    pub(crate) fn grace(&self) -> Duration {
        if self.closing.is_cancelled() { self.settings.drain_parts().grace } else { self.settings.stop_grace }
    }

    /// Work in line for an instance whose job was cancelled or taken over need not wait for one to hear of it.
    pub(crate) fn refuse_stopped(self: &Arc<Self>) {
        for work in self.floor(|floor, _| floor.take_stopped()) {
            let Work::Job(job) = work else { continue };
            let shared = Arc::clone(self);
            self.stations.spawn(async move { drop(turn::settle_stopped(&shared, *job).await) });
        }
    }

    fn act(self: &Arc<Self>, effects: Effects) {
        let Effects { open, wake_leases, wake_scaler, refused, orders } = effects;
        for opening in open {
            self.open(opening);
        }
        if wake_leases {
            self.leases_news.notify_one();
        }
        if wake_scaler {
            self.scaler_news.notify_one();
        }
        drop(orders);
        self.refuse(refused);
    }

    fn open(self: &Arc<Self>, opening: Opening) {
        self.stations.spawn(station::station(Arc::clone(self), opening));
    }
}
