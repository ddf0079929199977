//! What the queue knows without asking the database: functions with their counts and windows, and who waits.
//!
//! One lock guards all of it. Leases and renewals are decided here alone; everything that must be durable is applied
//! here by the writer, after its commit.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kvern_core::limits::WORKER_LISTED_FOR;
use kvern_core::{FunctionName, Job, JobId, State, UnixMs};
use kvern_queue::{Error, FunctionStats, Stats, WorkerInfo};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::running::Running;
use crate::stuck::{Bad, StuckCounts};
use crate::waiters::Waiters;
use crate::window::{Place, Ready, WINDOW_BYTES_MAX, Window};

/// No job is due at any time.
pub(crate) const NEVER: UnixMs = UnixMs(u64::MAX);

/// A move to be told once the lock is free.
pub(crate) type Moved = (JobId, FunctionName, State);

/// Everything, under one lock.
#[derive(Debug)]
pub(crate) struct Memory {
    /// The index of a function here is its id in the database.
    pub(crate) functions: Vec<Function>,
    names: HashMap<FunctionName, usize>,
    pub(crate) running: HashMap<JobId, Running>,
    /// Jobs that have failed though their rows say that they wait. See [`crate::stuck`].
    pub(crate) stuck: HashMap<JobId, Arc<Job>>,
    /// Keys of rows that are damaged.
    pub(crate) bad: HashMap<i64, Bad>,
    pub(crate) waiters: Waiters,
    /// Lives of this queue.
    pub(crate) epoch: u64,
    /// Leases given in this life.
    pub(crate) serial: u64,
    window_bytes: usize,
    workers: BTreeMap<String, (WorkerInfo, Duration)>,
    closed: Option<Error>,
    /// Rings once, at the end.
    closing: Arc<Notify>,
}

/// What is known of one function.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: FunctionName,
    /// As stored: running jobs count as queued.
    pub(crate) stored: FunctionStats,
    pub(crate) running: u64,
    pub(crate) stuck: StuckCounts,
    pub(crate) window: Window,
    /// Its next jobs could not be read just now. Who waits for one does not ask for another try.
    pub(crate) is_unreadable: bool,
    /// When its next scheduled job is due; never later than that, but perhaps earlier.
    pub(crate) next_due: UnixMs,
    /// When a job was last found expired and left to the sweep, and the first of those.
    pub(crate) expired: Option<(UnixMs, Place)>,
    /// The serial of its last lease: whoever was served longest ago is next.
    pub(crate) served: u64,
}

// === impl Memory ===

impl Memory {
    /// Knows these functions, in the order of their ids.
    pub(crate) fn new(epoch: u64, functions: Vec<(FunctionName, FunctionStats)>) -> Self {
        let mut memory = Self {
            functions: Vec::new(),
            names: HashMap::new(),
            running: HashMap::new(),
            stuck: HashMap::new(),
            bad: HashMap::new(),
            waiters: Waiters::default(),
            epoch,
            serial: 0,
            window_bytes: 0,
            workers: BTreeMap::new(),
            closed: None,
            closing: Arc::default(),
        };
        for (name, stored) in functions {
            memory.add(name, stored);
        }
        memory
    }

    /// # Errors
    /// Why the queue takes nothing any more.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        self.closed.clone().map_or(Ok(()), Err)
    }

    /// Refuses everything from now on; the first reason stays.
    pub(crate) fn close(&mut self, why: Error) {
        self.closed.get_or_insert(why);
        self.waiters.wake_all();
        self.closing.notify_waiters();
    }

    /// Rings when the queue closes.
    pub(crate) fn closing(&self) -> OwnedNotified {
        Arc::clone(&self.closing).notified_owned()
    }

    /// The index of a function, which is made known if it was not.
    pub(crate) fn index(&mut self, name: &FunctionName) -> usize {
        match self.names.get(name) {
            Some(index) => *index,
            None => self.add(name.clone(), FunctionStats::default()),
        }
    }

    fn add(&mut self, name: FunctionName, stored: FunctionStats) -> usize {
        let index = self.functions.len();
        self.names.insert(name.clone(), index);
        let window = Window::new(stored.queued == 0);
        let next_due = if stored.scheduled == 0 { NEVER } else { UnixMs(0) };
        self.functions.push(Function {
            name,
            stored,
            running: 0,
            stuck: StuckCounts::default(),
            window,
            is_unreadable: false,
            next_due,
            expired: None,
            served: 0,
        });
        index
    }

    /// Bytes that the windows may still take.
    pub(crate) fn window_room(&self) -> usize {
        WINDOW_BYTES_MAX.saturating_sub(self.window_bytes)
    }

    /// A stored job became ready: into the window with it, if it belongs there.
    pub(crate) fn offer(&mut self, index: usize, ready: Ready) {
        let room = self.window_room();
        self.with_window(index, |window| window.offer(ready, room));
        self.waiters.wake(index, 1);
    }

    /// A running job is ready again.
    pub(crate) fn put_back(&mut self, index: usize, ready: Ready) {
        self.with_window(index, |window| window.put_back(ready));
        self.waiters.wake(index, 1);
    }

    /// A job of the window turned out to be expired: the sweep ends it.
    pub(crate) fn leave_to_sweep(&mut self, index: usize, place: Place, now: UnixMs) {
        let expired = &mut self.functions[index].expired;
        *expired = Some(expired.map_or((now, place), |(at, first)| (at.max(now), first.min(place))));
    }

    /// A wall clock that has gone back since then may give such jobs their time again: the window reads them anew.
    pub(crate) fn take_back_expired(&mut self, index: usize, now: UnixMs) {
        if let Some((_, first)) = self.functions[index].expired.take_if(|(at, _)| now < *at) {
            self.with_window(index, |window| window.gap(first));
        }
    }

    /// Changes a window and keeps the sum of bytes right.
    pub(crate) fn with_window<T>(&mut self, index: usize, change: impl FnOnce(&mut Window) -> T) -> T {
        let window = &mut self.functions[index].window;
        self.window_bytes -= window.bytes();
        let given = change(window);
        self.window_bytes += window.bytes();
        given
    }

    /// Takes a job that is about to move out of its window.
    pub(crate) fn hold_back(&mut self, index: usize, place: Place) {
        self.with_window(index, |window| window.remove(place));
    }

    /// A job of a function waits for this time.
    pub(crate) fn schedule(&mut self, index: usize, due_at: UnixMs) {
        let next_due = &mut self.functions[index].next_due;
        if due_at < *next_due {
            *next_due = due_at;
            // Who waits without a time looks again, and then waits for this one.
            self.waiters.wake(index, usize::MAX);
        }
    }

    /// When the next job of any function is due.
    pub(crate) fn next_due(&self) -> UnixMs {
        self.functions.iter().map(|function| function.next_due).min().unwrap_or(NEVER)
    }

    /// When the next job of these functions is due.
    pub(crate) fn next_due_of(&self, functions: &[usize]) -> UnixMs {
        functions.iter().map(|index| self.functions[*index].next_due).min().unwrap_or(NEVER)
    }

    /// Whether the writer has a window of these functions to fill before there is nothing to lease.
    pub(crate) fn is_dry(&self, functions: &[usize]) -> bool {
        let mut functions = functions.iter().map(|index| &self.functions[*index]);
        functions.any(|function| {
            let is_whole = function.window.is_whole() || function.is_unreadable;
            !function.stored.paused && !is_whole && !function.window.has_ready()
        })
    }

    /// The functions whose windows the writer should fill; `only_dry` those alone from which nothing can be taken.
    pub(crate) fn wanting_refill(&self, only_dry: bool) -> Vec<usize> {
        let wants =
            |index: &usize| self.wants_refill(*index) && !(only_dry && self.functions[*index].window.has_ready());
        (0..self.functions.len()).filter(wants).collect()
    }

    /// Whether the writer should fill the window of a function.
    pub(crate) fn wants_refill(&self, index: usize) -> bool {
        let function = &self.functions[index];
        !function.is_unreadable && function.window.wants_more(self.window_room())
    }

    /// Jobs of a function that wait: what `max_queued` bounds.
    pub(crate) fn waiting(&self, index: usize) -> u64 {
        self.functions[index].stats().waiting()
    }

    /// Counts of all functions that have a job or are paused.
    pub(crate) fn stats(&self) -> Stats {
        let counted = self.functions.iter().map(|function| (function.name.clone(), function.stats()));
        let mut functions: Vec<_> = counted.filter(|(_, stats)| *stats != FunctionStats::default()).collect();
        functions.sort_by(|(a, _), (b, _)| a.cmp(b));
        Stats { functions }
    }

    /// Notes that a worker lives.
    pub(crate) fn announce(&mut self, mut worker: WorkerInfo, now: UnixMs, monotonic: Duration) {
        worker.seen_at = now;
        self.workers.insert(worker.name.clone(), (worker, monotonic));
    }

    /// The workers that live.
    pub(crate) fn workers(&mut self, monotonic: Duration) -> Vec<WorkerInfo> {
        self.workers.retain(|_, (_, seen_at)| monotonic < *seen_at + WORKER_LISTED_FOR);
        self.workers.values().map(|(worker, _)| worker.clone()).collect()
    }
}

// === impl Function ===

impl Function {
    /// The counts as the contract has them.
    pub(crate) fn stats(&self) -> FunctionStats {
        let queued = self.stored.queued.saturating_sub(self.running);
        let mut stats = FunctionStats { queued, running: self.running, ..self.stored };
        self.stuck.correct(&mut stats);
        stats
    }
}
