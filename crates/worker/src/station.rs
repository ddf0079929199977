//! A place for an instance, and the task that owns both: it starts the instance, takes work for it, and stops it.
//!
//! What it does next is decided by the floor ([`crate::lane::Lane::next`]); this file does it. A station that has just
//! finished a job may keep its slot and ask the queue for the next one by itself: under load a job costs no change of
//! task.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use kvern_core::{Failure, FailureCode, Outcome};
use kvern_queue::{Ask, Want};
use kvern_runtime::{FunctionVersion, Instance};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::attempt::{Ended, Why, catch_panic, stop_instance};
use crate::lane::{End, Report, Serving, Step};
use crate::work::{JobWork, Opening, PlaceKey, Slot, Work};
use crate::worker::Shared;
use crate::{calls, turn};

/// A place with the instance in it, if there is one now.
pub(crate) struct Station {
    pub(crate) shared: Arc<Shared>,
    pub(crate) serving: Serving,
    pub(crate) instance: Option<Box<dyn Instance>>,
    pub(crate) report: Report,
    /// The slot of what ran last, until it is known who needs it.
    slot: Option<Slot>,
    warm: bool,
    place: Place,
}

/// Counts in its pool until it is dropped.
struct Place {
    shared: Arc<Shared>,
    key: PlaceKey,
}

/// Lives until the floor has no use for it.
pub(crate) async fn station(shared: Arc<Shared>, opening: Opening) {
    let function = opening.function.clone();
    let station = Station::new(shared, opening);
    if let Err(panic) = catch_panic(station.run()).await {
        // Its place and slot are free again; a lease that it held runs out.
        tracing::error!(%function, panic, "a station panicked");
    }
}

/// Starts an instance, unless `until` comes first.
pub(crate) async fn start_instance(
    shared: &Shared,
    version: &FunctionVersion,
    until: &CancellationToken,
) -> Result<Box<dyn Instance>, Failure> {
    let began = Instant::now();
    let start = catch_panic(timeout(shared.settings.start_time, shared.runtime.start(version)));
    let started = tokio::select! {
        biased;
        started = start => started,
        // A dropped start leaves nothing running.
        () = until.cancelled() => return Err(Failure::new(FailureCode::Interrupted, "the worker is stopping")),
    };
    let result = match started {
        Ok(Ok(Ok(instance))) => Ok(instance),
        Ok(Ok(Err(error))) if error.0.code == FailureCode::NoRoom => Err(error.0),
        Ok(Ok(Err(error))) => Err(Failure { code: FailureCode::CannotStart, ..error.0 }),
        Ok(Err(_)) => {
            let words = format!("it was not ready within {:?}", shared.settings.start_time);
            Err(Failure::new(FailureCode::CannotStart, words))
        }
        Err(panic) => Err(Failure::new(FailureCode::CannotStart, format!("the runtime panicked: {panic}"))),
    };
    match &result {
        Ok(instance) => shared.observer.instance_started(version, instance.pid(), began.elapsed()),
        Err(failure) => shared.observer.instance_failed(version, failure),
    }
    result
}

// === impl Station ===

impl Station {
    fn new(shared: Arc<Shared>, opening: Opening) -> Self {
        let Opening { function, generation, id, serving, warm, instance } = opening;
        let place = Place { shared: Arc::clone(&shared), key: PlaceKey { function, generation, id } };
        Self { shared, serving, instance, report: Report::default(), slot: None, warm, place }
    }

    async fn run(mut self) {
        if self.instance.is_some() {
            self.on_pool(|pool, id| pool.started(id));
        }
        loop {
            let step = self.next_step();
            if !matches!(step, Step::Lease) {
                // Whoever waits for a slot gets it before this station does anything else.
                self.slot = None;
            }
            match step {
                Step::Run(work) => self.serve(work).await,
                Step::Lease => self.lease_one().await,
                Step::Start => self.start().await,
                Step::Wait(work, until) => self.wait(work, until).await,
                Step::Leave => break,
            }
        }
        self.stop_instance(self.shared.grace()).await;
    }

    fn next_step(&mut self) -> Step {
        let report = Report { up: self.instance.is_some(), ..std::mem::take(&mut self.report) };
        let (key, slot, serving) = (&self.place.key, &mut self.slot, &mut self.serving);
        self.shared.floor(|floor, effects| {
            // The lease loop may be asking for this function, which takes no more jobs for now.
            effects.wake_leases |= report.end == Some(End::NotStored);
            floor.next(key, report, slot, serving, Instant::now())
        })
    }

    async fn serve(&mut self, work: Work) {
        let slot = match work {
            Work::Job(job) => turn::turn(self, *job).await,
            Work::Call(call) => calls::turn(self, *call).await,
        };
        self.slot = Some(slot);
        let usable = self.warm && self.instance.as_mut().is_some_and(|instance| instance.is_usable());
        if !usable {
            self.stop_instance(self.shared.grace()).await;
        }
    }

    /// Asks for one more job for the slot that is still held.
    async fn lease_one(&mut self) {
        if !self.shared.settlements.backlog.is_empty() {
            self.report.asked = true;
            return;
        }
        let function = self.place.key.function.clone();
        let wants = vec![Want { function, slots: 1 }];
        let ask = Ask { worker: self.shared.name.clone(), wants, max: 1, wait: Duration::ZERO };
        // What is wrong with the queue is told by the lease loop, which asks next.
        let mut leased = self.shared.queue.lease(ask).await.unwrap_or_default().into_iter();
        let Some(first) = leased.next() else {
            self.report.asked = true;
            return;
        };
        let holding = self.shared.heartbeat.hold(first.lease.token());
        leased.for_each(|more| self.shared.take_in(more));
        match self.slot.take().filter(|_| !self.shared.closing.is_cancelled()) {
            Some(slot) => self.serve(Work::Job(Box::new(JobWork { leased: first, holding, slot }))).await,
            None => self.shared.release(first, holding),
        }
    }

    /// Starts an instance for whatever comes. If it fails, work that only this station would take fails with it.
    async fn start(&mut self) {
        let Some(version) = self.serving.version().cloned() else { return };
        match start_instance(&self.shared, &version, &self.shared.closing).await {
            Ok(instance) => {
                self.instance = Some(instance);
                self.on_pool(|pool, id| pool.started(id));
            }
            Err(failure) => {
                let key = &self.place.key;
                let work = self.shared.floor(|floor, _| floor.start_failed(key, failure.code, Instant::now()));
                self.slot = match work {
                    Some(Work::Job(job)) => Some(turn::cannot_start(&self.shared, *job, &version, failure).await),
                    Some(Work::Call(call)) => Some(calls::cannot_start(*call, &failure)),
                    None => None,
                };
            }
        }
    }

    /// An instance for the work in hand: where none is kept, each attempt starts its own.
    pub(crate) async fn make_ready(&mut self) -> Result<(), Ended> {
        if self.instance.is_some() {
            return Ok(());
        }
        let version = match &self.serving {
            Serving::Version(version) => Arc::clone(version),
            Serving::Broken(_, failure) => return Err(Ended::Outcome(Outcome::Failed(Failure::clone(failure)))),
            // Nothing is leased and no call has a slot before there is a version.
            Serving::Preparing(_) => return Err(Ended::Stopped(Why::Draining)),
        };
        match start_instance(&self.shared, &version, &self.shared.stop_now).await {
            Ok(instance) => {
                self.instance = Some(instance);
                Ok(())
            }
            Err(_) if self.shared.stop_now.is_cancelled() => Err(Ended::Stopped(Why::Draining)),
            Err(failure) => Err(Ended::Outcome(Outcome::Failed(failure))),
        }
    }

    /// Waits for work, the death of the instance, or the end of the time.
    async fn wait(&mut self, mut work: oneshot::Receiver<Work>, until: Option<Instant>) {
        let mut died = false;
        let came = tokio::select! {
            biased;
            came = &mut work => Some(came),
            // The two others only watch; work that comes in the same moment is taken below.
            () = death(&mut self.instance) => {
                died = true;
                None
            }
            () = time(until) => None,
        };
        let work = match came {
            Some(came) => came.ok(),
            None if self.on_pool(|pool, id| pool.stop_waiting(id)).unwrap_or(false) => None,
            // It was handed over before the station could leave the line, or the station was dismissed.
            None => work.await.ok(),
        };
        if died {
            self.bury().await;
        }
        self.report.waited = !died;
        match work {
            Some(work) if self.warm && self.instance.is_none() => {
                let function = &self.place.key.function;
                self.shared.floor(|floor, effects| floor.give_back(function, work, effects, Instant::now()));
            }
            Some(work) => self.serve(work).await,
            None => {}
        }
    }

    /// The idle instance died by itself.
    async fn bury(&mut self) {
        let pid = self.instance.as_ref().and_then(|instance| instance.pid());
        if let Some(version) = self.serving.version() {
            self.shared.observer.instance_died(version, pid);
        }
        self.stop_instance(Duration::ZERO).await;
        self.on_pool(|pool, id| pool.trouble(id, Instant::now()));
    }

    /// After a crash or a timeout nothing of the attempt may be left before the job moves on.
    pub(crate) async fn clean_up_after(&mut self, outcome: &Outcome) {
        if let (Outcome::Crashed(_), Some(version)) = (outcome, self.serving.version()) {
            let pid = self.instance.as_ref().and_then(|instance| instance.pid());
            self.shared.observer.instance_died(version, pid);
        }
        if matches!(outcome, Outcome::Crashed(_) | Outcome::TimedOut(_)) {
            self.stop_instance(Duration::ZERO).await;
        }
    }

    /// Stops the instance, if there is one.
    pub(crate) async fn stop_instance(&mut self, grace: Duration) {
        let Some(instance) = self.instance.take() else { return };
        stop_instance(instance, grace, &self.shared.too_late).await;
        if let Some(version) = self.serving.version() {
            self.shared.observer.instance_stopped(version);
        }
        self.on_pool(|pool, id| pool.stopped(id));
    }

    fn on_pool<T>(&self, decide: impl FnOnce(&mut crate::pool::Pool<Work>, u64) -> T) -> Option<T> {
        let key = &self.place.key;
        self.shared.floor(|floor, _| floor.lane_of(key).map(|lane| decide(&mut lane.pool, key.id)))
    }
}

async fn death(instance: &mut Option<Box<dyn Instance>>) {
    match instance {
        Some(instance) => instance.died().await,
        None => pending().await,
    }
}

async fn time(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => pending().await,
    }
}

// === impl Place ===

impl Drop for Place {
    fn drop(&mut self) {
        let key = &self.key;
        self.shared.floor(|floor, effects| floor.leave(key, effects));
    }
}
