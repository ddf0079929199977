//! What the queue in memory knows: jobs, keys, pauses and workers, and what each operation does to them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use kvern_core::id::Sequence;
use kvern_core::limits::{PAGE_JOBS_MAX, RECORD_BYTES, WORKER_LISTED_FOR};
use kvern_core::{Clockwork, FunctionName, Job, JobId, State, UnixMs};

use crate::error::Error;
use crate::job::{Cursor, Filter, FunctionStats, Idempotency, LeaseToken, NewJob, Page, Stats, Submitted, WorkerInfo};
use crate::list::{Place, place};
use crate::payload::{Payload, Stored};
use crate::record;

/// Everything, under one lock.
#[derive(Debug, Clone)]
pub(super) struct Store {
    pub(super) jobs: BTreeMap<JobId, Entry>,
    pub(super) keys: HashMap<[u8; 16], Key>,
    pub(super) paused: BTreeSet<FunctionName>,
    /// The serial of the last lease of each function: whoever was served longest ago is next.
    pub(super) turns: HashMap<FunctionName, u64>,
    /// Lives of this queue, from 1.
    pub(super) epoch: u64,
    /// Leases given in this life.
    pub(super) serial: u64,
    workers: BTreeMap<String, (WorkerInfo, Duration)>,
    clockwork: Clockwork,
    random: u64,
    is_closed: bool,
    /// Whether there is no room for new jobs.
    pub(super) is_full: bool,
    moved: Vec<(JobId, FunctionName, State)>,
}

/// A job with its bytes.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) job: Job,
    pub(super) input: Payload,
    pub(super) result: Option<Stored>,
    pub(super) log: Vec<u8>,
    /// Set while and only while the job runs.
    pub(super) lease: Option<Holding>,
}

/// A lease as the queue sees it.
#[derive(Debug, Clone)]
pub(super) struct Holding {
    pub(super) token: LeaseToken,
    /// By the monotonic clock.
    pub(super) given_at: Duration,
    /// By the monotonic clock.
    pub(super) renewed_at: Duration,
    /// A renewal found the attempt old enough for an interruption to count.
    pub(super) is_long: bool,
    /// When the attempt before this one began.
    pub(super) started_before: Option<UnixMs>,
}

/// What an idempotency key stands for; it may outlive its job.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) body: [u8; 16],
    pub(super) id: JobId,
    pub(super) state_if_forgotten: State,
}

// === impl Entry ===

impl Entry {
    /// What the job takes, as [`FunctionStats::finished_bytes`] counts it.
    pub(super) fn bytes(&self) -> u64 {
        let result = self.result.as_ref().map_or(0, |result| result.payload.len());
        RECORD_BYTES + self.job.input_bytes + result + self.log.len() as u64
    }
}

// === impl Store ===

impl Store {
    pub(super) fn new() -> Self {
        Self {
            jobs: BTreeMap::new(),
            keys: HashMap::new(),
            paused: BTreeSet::new(),
            turns: HashMap::new(),
            epoch: 1,
            serial: 0,
            workers: BTreeMap::new(),
            clockwork: Clockwork::after(Sequence::from_bits(0)),
            random: 0,
            is_closed: false,
            is_full: false,
            moved: Vec::new(),
        }
    }

    pub(super) fn check_open(&self) -> Result<(), Error> {
        if self.is_closed { Err(Error::Closed("it was asked to close".to_owned())) } else { Ok(()) }
    }

    pub(super) fn check_room(&self) -> Result<(), Error> {
        if self.is_full { Err(Error::NoSpace("it was filled".to_owned())) } else { Ok(()) }
    }

    pub(super) fn close(&mut self) {
        self.is_closed = true;
    }

    pub(super) fn reboot(&mut self, now: UnixMs) {
        for id in self.ids(|entry| entry.lease.is_some()) {
            // Cannot fail: a job with a lease runs.
            let _ = self.lose(id, now);
        }
        self.epoch += 1;
        self.serial = 0;
        self.turns.clear();
        self.workers.clear();
        self.is_closed = false;
    }

    /// Queues every scheduled job whose time has come.
    pub(super) fn promote(&mut self, now: UnixMs) {
        for id in self.ids(|entry| record::is_due(&entry.job, now)) {
            // Cannot fail: a due job is scheduled.
            let _ = self.change(id, |entry| record::come_due(&mut entry.job));
        }
    }

    pub(super) fn submit(&mut self, new: NewJob, now: UnixMs) -> Result<Submitted, Error> {
        if let Some(twin) = new.idempotency.and_then(|key| self.twin(key)) {
            return twin;
        }
        // Not before: what the twin has stored is there, room or not.
        self.check_room()?;
        let waiting = self.function_stats(&new.function).waiting();
        if waiting >= new.max_queued {
            return Err(Error::Full { function: new.function, limit: new.max_queued });
        }
        let sequence = self.clockwork.tick(now);
        let id = JobId::new(sequence, self.draw());
        let job = record::accept(id, &new, now);
        let state = job.state;
        if let Some(Idempotency { key, body }) = new.idempotency {
            self.keys.insert(key, Key { body, id, state_if_forgotten: state });
        }
        self.moved.push((id, new.function, state));
        self.jobs.insert(id, Entry { job, input: new.input, result: None, log: Vec::new(), lease: None });
        Ok(Submitted { id, state, duplicate: false })
    }

    fn twin(&self, idempotency: Idempotency) -> Option<Result<Submitted, Error>> {
        let key = self.keys.get(&idempotency.key)?;
        if key.body != idempotency.body {
            return Some(Err(Error::KeyReused(key.id)));
        }
        let state = self.jobs.get(&key.id).map_or(key.state_if_forgotten, |entry| entry.job.state);
        Some(Ok(Submitted { id: key.id, state, duplicate: true }))
    }

    pub(super) fn cancel(&mut self, id: JobId, now: UnixMs) -> Result<Job, Error> {
        self.change(id, |entry| {
            record::cancel(&mut entry.job, now)?;
            Ok(entry.job.clone())
        })
    }

    pub(super) fn retry(&mut self, id: JobId, now: UnixMs) -> Result<Job, Error> {
        self.change(id, |entry| {
            record::redrive(&mut entry.job, now)?;
            Ok(entry.job.clone())
        })
    }

    pub(super) fn pause(&mut self, function: &FunctionName, paused: bool) {
        if paused {
            self.paused.insert(function.clone());
        } else {
            self.paused.remove(function);
        }
    }

    pub(super) fn announce(&mut self, mut worker: WorkerInfo, now: UnixMs, monotonic: Duration) {
        worker.seen_at = now;
        self.workers.insert(worker.name.clone(), (worker, monotonic));
    }

    pub(super) fn workers(&mut self, monotonic: Duration) -> Vec<WorkerInfo> {
        self.workers.retain(|_, (_, seen_at)| monotonic < *seen_at + WORKER_LISTED_FOR);
        self.workers.values().map(|(worker, _)| worker.clone()).collect()
    }

    pub(super) fn entry(&self, id: JobId) -> Result<&Entry, Error> {
        self.jobs.get(&id).ok_or(Error::UnknownJob(id))
    }

    pub(super) fn list(&self, filter: &Filter, cursor: Option<&Cursor>, limit: usize) -> Result<Page, Error> {
        let before: Option<Place> = cursor.map(|cursor| cursor.last(filter)).transpose()?;
        let mut jobs: Vec<&Job> = self.jobs.values().map(|entry| &entry.job).filter(|job| filter.admits(job)).collect();
        jobs.retain(|job| before.is_none_or(|before| place(job) < before));
        jobs.sort_by_key(|job| std::cmp::Reverse(place(job)));
        let page: Vec<Job> = jobs.iter().take(limit.clamp(1, PAGE_JOBS_MAX)).copied().cloned().collect();
        let is_whole = page.len() == jobs.len();
        let next = page.last().filter(|_| !is_whole).map(|last| Cursor::after(filter, place(last)));
        Ok(Page { jobs: page, next })
    }

    pub(super) fn stats(&self) -> Stats {
        let mut names: BTreeSet<&FunctionName> = self.jobs.values().map(|entry| &entry.job.function).collect();
        names.extend(&self.paused);
        Stats { functions: names.into_iter().map(|name| (name.clone(), self.function_stats(name))).collect() }
    }

    fn function_stats(&self, function: &FunctionName) -> FunctionStats {
        let mut stats = FunctionStats { paused: self.paused.contains(function), ..FunctionStats::default() };
        for entry in self.jobs.values().filter(|entry| entry.job.function == *function) {
            *stats.of_mut(entry.job.state) += 1;
            stats.finished_bytes += if entry.job.state.is_final() { entry.bytes() } else { 0 };
        }
        stats
    }

    /// The ids of the jobs of which this is true, oldest first.
    pub(super) fn ids(&self, is_wanted: impl Fn(&Entry) -> bool) -> Vec<JobId> {
        self.jobs.iter().filter(|(_, entry)| is_wanted(entry)).map(|(id, _)| *id).collect()
    }

    /// Changes one job and notes whether that moved it. A change that fails must leave the job as it was.
    pub(super) fn change<T>(
        &mut self,
        id: JobId,
        change: impl FnOnce(&mut Entry) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let entry = self.jobs.get_mut(&id).ok_or(Error::UnknownJob(id))?;
        let from = entry.job.state;
        let given = change(entry)?;
        if entry.job.state != from {
            self.moved.push((id, entry.job.function.clone(), entry.job.state));
        }
        Ok(given)
    }

    pub(super) fn take_moved(&mut self) -> Vec<(JobId, FunctionName, State)> {
        std::mem::take(&mut self.moved)
    }

    /// `SplitMix64` (G. Steele et al., 2014): the same ids in every run.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
