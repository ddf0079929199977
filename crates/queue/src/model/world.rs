//! The two queues, and each operation applied to both.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kvern_core::limits::IDEMPOTENCY_KEEP;
use kvern_core::{FunctionName, JobId, UnixMs};

use super::news::News;
use super::operation::{Operation, Pick, Size};
use super::view::{Difference, Names, same};
use crate::clock::Clock;
use crate::conformance::Subject;
use crate::conformance::setup::{self, Dice, EPOCH};
use crate::contract::Queue;
use crate::error::Error;
use crate::job::{Ask, LeaseToken, Leased};
use crate::memory::MemoryQueue;
use crate::payload::Payload;

pub(super) const FUNCTIONS: [&str; 3] = ["alpha", "beta", "gamma"];

/// Keys are not used again after this time: how long a queue remembers them beyond its duty is its own affair.
const ERA: Duration = Duration::from_secs(IDEMPOTENCY_KEEP.as_secs() - 4 * 3600);

/// Both queues on one clock.
pub(super) struct World<'a> {
    pub(super) subject: &'a dyn Subject,
    pub(super) clock: Clock,
    pub(super) model: Side,
    pub(super) other: Side,
    /// The queue of `model`.
    pub(super) memory: Arc<MemoryQueue>,
    pub(super) news: News,
    pub(super) leases: Vec<Given>,
    /// Places in `leases` of those that may still stand.
    pub(super) open: Vec<usize>,
    /// Jobs with log lines of a running attempt, which a kill may take along.
    pub(super) unsettled_logs: BTreeSet<JobId>,
    /// Workers that spoke since the last restart.
    pub(super) workers: BTreeSet<String>,
    pub(super) era: u16,
    pub(super) era_ends: UnixMs,
}

/// One of the queues, and its ids.
pub(super) struct Side {
    pub(super) queue: Arc<dyn Queue>,
    pub(super) names: Names,
}

/// A lease that was given.
#[derive(Clone, Copy)]
pub(super) struct Given {
    pub(super) model: LeaseToken,
    pub(super) other: LeaseToken,
    pub(super) started_at: UnixMs,
}

// === impl World ===

impl<'a> World<'a> {
    pub(super) async fn new(subject: &'a dyn Subject) -> Self {
        let clock = subject.clock();
        clock.jump_to(EPOCH);
        subject.set_full(false);
        let memory = Arc::new(MemoryQueue::new(clock.clone()));
        let model = Side { queue: memory.clone(), names: Names::default() };
        let other = Side { queue: subject.open().await, names: Names::default() };
        Self {
            subject,
            news: News::new(&model, &other),
            model,
            other,
            memory,
            leases: Vec::new(),
            open: Vec::new(),
            unsettled_logs: BTreeSet::new(),
            workers: BTreeSet::new(),
            era: 0,
            era_ends: clock.now().after(ERA),
            clock,
        }
    }

    /// Applies the operation to both, and compares the answers and what can be seen at little cost.
    pub(super) async fn play(&mut self, operation: &Operation) -> Result<(), Difference> {
        match operation {
            Operation::Lease { wants } => self.lease(wants).await?,
            Operation::Announce { worker } => self.announce(*worker).await?,
            Operation::Advance { ms } => self.clock.advance(Duration::from_millis(*ms)),
            Operation::Jump { ms } => self.jump(*ms).await?,
            Operation::Sweep { limit, succeeded_secs, failed_secs, bytes } => {
                let (succeeded, failed) = (Duration::from_secs(*succeeded_secs), Duration::from_secs(*failed_secs));
                let mut retention = setup::keep(&FUNCTIONS, succeeded, failed);
                retention.iter_mut().for_each(|(_, keep)| keep.bytes = *bytes);
                self.sweep(&retention, *limit).await?;
            }
            Operation::List(list) => self.list(list).await?,
            Operation::ReadLog { job, offset, limit } => self.read_log(*job, *offset, *limit).await?,
            Operation::Watch { job } => self.watch(*job),
            Operation::Unknown { job } => self.unknown(*job).await?,
            Operation::Disk { is_full } => self.disk(*is_full),
            Operation::Close => self.close().await?,
            Operation::Reboot => self.reboot().await?,
            Operation::DirtyReboot { during, seed } => self.dirty_reboot(during, *seed).await?,
            step => self.step(step).await?,
        }
        self.check_records().await?;
        self.check_house().await
    }

    /// What a queue stores as a whole or not at all.
    pub(super) async fn step(&mut self, operation: &Operation) -> Result<(), Difference> {
        match operation {
            Operation::Submit(submit) => self.submit(submit).await,
            Operation::Twins { submit, count } => self.twins(submit, *count).await,
            Operation::Renew { leases } => self.renew(leases).await,
            Operation::Settle { lease, how } => self.settle(*lease, *how).await,
            Operation::AppendLog { lease, bytes } => self.append_log(*lease, *bytes).await,
            Operation::Cancel { job } => self.cancel(*job).await,
            Operation::Retry { job } => self.retry(*job).await,
            Operation::Forget { job } => self.forget(*job).await,
            Operation::Pause { function, paused } => self.pause(*function, *paused).await,
            other => unreachable!("{other:?} is no single step"),
        }
    }

    pub(super) fn given(&self, pick: Pick) -> Option<Given> {
        let at = match pick {
            Pick::Open(pick) => *self.open.get(usize::from(pick) % self.open.len().max(1))?,
            Pick::Any(pick) => usize::from(pick) % self.leases.len().max(1),
        };
        self.leases.get(at).copied()
    }

    pub(super) fn job(&self, pick: u16) -> Option<(JobId, JobId)> {
        let (model, other) = (self.model.names.ids(), self.other.names.ids());
        let at = usize::from(pick) % model.len().max(1);
        Some((*model.get(at)?, *other.get(at)?))
    }

    pub(super) fn begin_era(&mut self) {
        if self.clock.now() >= self.era_ends {
            self.next_era();
        }
    }

    pub(super) fn next_era(&mut self) {
        self.era += 1;
        self.era_ends = self.clock.now().after(ERA);
    }

    pub(super) async fn both<T>(&self, ask: impl AsyncFn(&Side) -> T) -> [T; 2] {
        [ask(&self.model).await, ask(&self.other).await]
    }

    /// Compares two answers, each in the names of its own side.
    pub(super) fn same<T, V: PartialEq + std::fmt::Debug>(
        &self,
        what: &str,
        model: Result<T, Error>,
        other: Result<T, Error>,
        view: impl Fn(&Names, T) -> V,
    ) -> Result<(), Difference> {
        let of = |side: &Side, answer: Result<T, Error>| {
            answer.map(|given| view(&side.names, given)).map_err(|error| side.names.error(&error))
        };
        same(what, &of(&self.model, model), &of(&self.other, other))
    }
}

// === impl Side ===

impl Side {
    /// The same bytes for the same size and seed, staged.
    pub(super) async fn payload(&self, size: Size, seed: u64) -> Payload {
        let bytes = match size {
            Size::Empty => Bytes::new(),
            Size::Small => Dice::new(seed).bytes(40),
            Size::Large => Dice::new(seed).bytes(70_000),
        };
        let mut stage = self.queue.stage().await.expect("an open queue stages");
        stage.write(bytes).await.expect("room");
        stage.finish().await.expect("room")
    }

    /// Leases what there is for these slots, by function: the order within one is promised, the order across them is not,
    /// nor how much of it one call gives.
    pub(super) async fn lease(&self, mut ask: Ask) -> Vec<Leased> {
        let mut all = Vec::new();
        loop {
            ask.wants.retain(|want| want.slots > 0);
            let leased = self.queue.lease(ask.clone()).await.expect("an open queue leases");
            if leased.is_empty() {
                break;
            }
            for one in &leased {
                let want = ask.wants.iter_mut().find(|want| want.function == one.job.function).expect("it was wanted");
                want.slots = want.slots.checked_sub(1).expect("no more than its slots");
            }
            all.extend(leased);
        }
        all.sort_by(|a, b| a.job.function.cmp(&b.job.function));
        all
    }
}

pub(super) fn function(at: u8) -> FunctionName {
    setup::name(FUNCTIONS[usize::from(at) % FUNCTIONS.len()])
}

pub(super) fn moved(now: UnixMs, ms: i64) -> UnixMs {
    UnixMs(now.0.saturating_add_signed(ms))
}
