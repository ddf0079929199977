//! One function on this worker: the version that runs, its slots, the calls that wait for one, and the work that has a
//! slot and waits for an instance. Pure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use kvern_core::{Failure, FailureCode, Function, FunctionName, Outcome};
use kvern_runtime::FunctionVersion;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::calls::Order;
use crate::pool::{PlaceId, Pool};
use crate::work::{Opening, Slot, Work};

/// Calls that may take a freed slot in a row before a job is looked for.
const CALLS_IN_A_ROW: u32 = 8;
/// The longest pause after there was no room for an attempt.
const ROOM_PAUSE_MAX: Duration = Duration::from_secs(2);
/// How soon to ask the queue again whether it has room.
const ROOM_LOOK: Duration = Duration::from_secs(1);

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
    /// Starts that failed for work: a pause in leases, so that a function which cannot start fails some of its jobs with
    /// the reason, and not all of them.
    starts: Backoff,
    /// Work that found no room on this machine and was given back: a pause in leases too, and a short one, because
    /// nothing is wrong with the function and room may come back at any moment.
    room: Backoff,
    /// A result of it found no room. Its next one would find none either, so no job of it begins before the queue says
    /// that there is room again.
    pub(crate) awaits_room: bool,
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
    /// How what it has just run came to its end, if it did.
    pub(crate) end: Option<End>,
}

/// What an end says of the function's instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It ran, whatever came of it.
    Ran,
    /// The instance died.
    Crashed,
    /// There was no instance to run it.
    NotStarted,
    /// There was no room on this machine to run it.
    NoRoom,
    /// It ran, and there was no room for its result.
    NotStored,
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

// === impl End ===

impl End {
    pub(crate) fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Crashed(_) => Self::Crashed,
            Outcome::Failed(failure) if failure.code == FailureCode::CannotStart => Self::NotStarted,
            Outcome::Failed(failure) if failure.code == FailureCode::NoRoom => Self::NoRoom,
            Outcome::Failed(failure) if failure.code == FailureCode::ResultNotStored => Self::NotStored,
            Outcome::Succeeded | Outcome::Failed(_) | Outcome::TimedOut(_) | Outcome::Cancelled => Self::Ran,
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
            starts: Backoff::default(),
            room: Backoff::up_to(ROOM_PAUSE_MAX),
            awaits_room: false,
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

    /// Until when no jobs should be leased, if so.
    pub(crate) fn resting(&self, now: Instant) -> Option<Instant> {
        // An attempt in a live instance may find no room either, for its result.
        let look = self.awaits_room.then(|| now + ROOM_LOOK);
        self.starts.resting(now).filter(|_| self.pool.up() == 0).max(self.room.resting(now)).max(look)
    }

    /// An instance could not be started at this place.
    pub(crate) fn start_failed(&mut self, id: PlaceId, code: FailureCode, now: Instant) {
        self.pool.trouble(id, now);
        match code {
            // A live instance takes the work.
            FailureCode::NoRoom if self.pool.up() > 0 => {}
            FailureCode::NoRoom => self.no_room(now),
            _ => self.starts.trouble(now),
        }
    }

    /// What fails at the same time fails for the same reason, and counts once.
    fn no_room(&mut self, now: Instant) {
        if self.room.resting(now).is_none() {
            self.room.trouble(now);
        }
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
        match report.end {
            Some(End::Ran) => {
                self.pool.went_well();
                self.starts.forget();
                self.room.forget();
            }
            Some(End::NotStarted) => self.starts.trouble(now),
            Some(End::NoRoom) => self.no_room(now),
            Some(End::NotStored) => {
                self.no_room(now);
                self.awaits_room = true;
            }
            Some(End::Crashed) | None => {}
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
        if slot.is_some() && spare && !report.asked && self.resting(now).is_none() {
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use kvern_core::{Door, Keep, Mode, RetryPolicy, Scale};
    use kvern_runtime::Version;

    use super::*;

    const UP: Report = Report { up: true, asked: false, waited: false, end: None };
    const COLD: Report = Report { up: false, ..UP };

    fn lane(concurrency: u32, min: u32, max: u32) -> Lane {
        let function = Function {
            name: "hello".parse().expect("a name"),
            door: Door::Exec { argv: Vec::new() },
            home: PathBuf::new(),
            route: None,
            mode: Mode::Async,
            timeout: Duration::from_secs(1),
            retry: RetryPolicy::default(),
            concurrency,
            scale: Scale { min, max, idle: Duration::from_secs(60) },
            memory: None,
            env: Vec::new(),
            max_input: 1,
            max_output: 1,
            max_queued: 1,
            keep: Keep { succeeded: Duration::ZERO, failed: Duration::ZERO, ..Keep::default() },
        };
        let (version, code) = (Version("0".into()), PathBuf::new());
        let version = FunctionVersion { function: Arc::new(function), version, code, packages: None };
        Lane::new(Serving::Version(Arc::new(version)), true, 1)
    }

    fn open(lane: &mut Lane, ids: impl IntoIterator<Item = PlaceId>) {
        for id in ids {
            assert!(lane.pool.open(id));
        }
    }

    fn next(lane: &mut Lane, id: PlaceId, report: Report) -> Step {
        lane.next(id, report, &mut None, true, Instant::now())
    }

    #[test]
    fn there_are_no_more_slots_than_instances_may_use() {
        assert_eq!(lane(8, 0, 3).free(), 3);
        assert_eq!(lane(2, 0, 3).free(), 2);
    }

    #[test]
    fn a_place_without_work_leaves_unless_it_is_kept() {
        let mut lane = lane(4, 1, 4);
        open(&mut lane, [1, 2]);
        assert!(matches!(next(&mut lane, 2, COLD), Step::Leave));
        lane.pool.leave(2);
        assert!(matches!(next(&mut lane, 1, COLD), Step::Start));
    }

    #[test]
    fn an_idle_place_goes_after_its_time_down_to_min() {
        let mut lane = lane(4, 1, 4);
        open(&mut lane, [1, 2]);
        assert!(matches!(next(&mut lane, 2, UP), Step::Wait(_, Some(_))));
        assert!(lane.pool.stop_waiting(2));
        assert!(matches!(next(&mut lane, 2, Report { waited: true, ..UP }), Step::Leave));
        lane.pool.leave(2);
        // The last one waits without an end.
        assert!(matches!(next(&mut lane, 1, UP), Step::Wait(_, None)));
    }

    #[test]
    fn a_kept_place_rests_after_trouble() {
        let mut lane = lane(1, 1, 1);
        open(&mut lane, [1]);
        for _ in 0..3 {
            lane.pool.trouble(1, Instant::now());
        }
        assert!(matches!(next(&mut lane, 1, COLD), Step::Wait(_, Some(_))));
    }

    #[test]
    fn starts_that_fail_pause_the_leases_until_something_runs() {
        let (mut lane, now) = (lane(2, 0, 2), Instant::now());
        open(&mut lane, [1, 2]);
        lane.start_failed(1, FailureCode::CannotStart, now);
        assert!(lane.resting(now).is_none(), "once is free");
        lane.start_failed(1, FailureCode::CannotStart, now);
        assert!(lane.resting(now).is_some());
        lane.pool.started(2);
        assert!(lane.resting(now).is_none(), "a live instance takes the work");
        lane.pool.stopped(2);
        let _ = next(&mut lane, 2, Report { end: Some(End::Ran), ..UP });
        assert!(lane.resting(now).is_none());
    }

    #[test]
    fn what_finds_no_room_at_the_same_time_counts_once_and_pauses_shortly() {
        let (mut lane, mut now) = (lane(8, 0, 8), Instant::now());
        open(&mut lane, [1]);
        lane.start_failed(1, FailureCode::NoRoom, now); // The first costs no pause.
        for pause in [100, 200, 400, 800, 1600, 2000, 2000] {
            for _ in 0..8 {
                lane.start_failed(1, FailureCode::NoRoom, now);
            }
            let until = lane.resting(now).expect("a pause");
            assert_eq!((until - now).as_millis(), pause);
            now = until;
        }
    }

    #[test]
    fn places_are_missed_below_min() {
        let mut lane = lane(4, 2, 4);
        assert_eq!(lane.places_missing(), 2);
        open(&mut lane, [1]);
        assert_eq!(lane.places_missing(), 1);
    }
}
