//! What time and sweeps do to both queues, and everything that can be seen of them afterwards.

use kvern_core::{Job, UnixMs};

use super::operation::List;
use super::view::{Difference, same};
use super::world::{Side, World, function, moved};
use crate::conformance::setup;
use crate::error::Error;
use crate::job::{Filter, FunctionStats, Retention, Swept, WorkerInfo};
use crate::payload::{Payload, Stored};

/// How often the room is looked at until both say the same.
const ROOM_LOOKS: usize = 10_000;

impl World<'_> {
    /// A jump of the wall clock. What is due comes first: whether it still is after a jump back is left open.
    pub(super) async fn jump(&mut self, ms: i64) -> Result<(), Difference> {
        self.sweep(&Vec::new(), 1_000).await?;
        self.clock.jump_to(moved(self.clock.now(), ms));
        self.next_era();
        Ok(())
    }

    /// Sweeps until nothing is left; which job comes first in a bounded sweep is left open, so the sums count.
    pub(super) async fn sweep(&mut self, retention: &Retention, limit: usize) -> Result<(), Difference> {
        let [model, other] = self.both(async |side: &Side| sweep_until_idle(side, retention, limit).await).await;
        self.same("what the sweeps did", model, other, |_, sums| sums)
    }

    /// One list by pages, with a cursor tried where it does not belong; and the counts.
    pub(super) async fn list(&mut self, list: &List) -> Result<(), Difference> {
        // After a sweep everybody agrees on what is queued.
        self.sweep(&Vec::new(), 1_000).await?;
        let filter = Filter {
            function: list.function.map(function),
            states: list.states.clone(),
            since: list.since_ms.map(|ms| moved(self.clock.now(), ms)),
        };
        let stranger = Filter { since: Some(UnixMs(1)), ..filter.clone() };
        let now = self.clock.now();
        let [model, other] = self.both(async |side: &Side| side.pages(&filter, &stranger, list.page, now).await).await;
        same("a list", &model, &other)?;
        self.check_counts()
    }

    /// The record of every job that was ever accepted.
    pub(super) async fn check_records(&self) -> Result<(), Difference> {
        let now = self.clock.now();
        for (model_id, other_id) in self.model.names.ids().iter().zip(self.other.names.ids()) {
            let (model, other) = (self.model.queue.get(*model_id).await, self.other.queue.get(*other_id).await);
            self.same("a record", model, other, |names, job| names.job(job, now))?;
        }
        Ok(())
    }

    /// Whether it works, whether it has room, and who works on it.
    pub(super) async fn check_house(&self) -> Result<(), Difference> {
        let (model, other) = (&self.model.queue, &self.other.queue);
        self.same("the health", model.health(), other.health(), |_, ()| ())?;
        // While its writer looks at the disk, a queue may tell what was found a moment ago.
        for _ in 0..ROOM_LOOKS {
            if model.room().is_ok() == other.room().is_ok() {
                break;
            }
            tokio::task::yield_now().await;
        }
        self.same("the room", model.room(), other.room(), |_, ()| ())?;
        self.same("the workers", model.workers().await, other.workers().await, |_, workers| {
            let mut known: Vec<WorkerInfo> = workers.into_iter().filter(|w| self.workers.contains(&w.name)).collect();
            known.sort_by(|a, b| a.name.cmp(&b.name));
            known
        })
    }

    /// Records, payloads, logs, pauses, files, counts and news.
    pub(super) async fn check_everything(&mut self) -> Result<(), Difference> {
        self.check_content().await?;
        self.check_files().await;
        self.sweep(&Vec::new(), 1_000).await?;
        self.check_counts()?;
        self.news.check(&self.model, &self.other, true).await
    }

    /// What is stored.
    pub(super) async fn check_content(&self) -> Result<(), Difference> {
        self.check_records().await?;
        let [model, other] = [&self.model, &self.other].map(|side| {
            let functions = side.queue.stats().functions.into_iter();
            functions.filter(|(_, stats)| stats.paused).map(|(name, _)| name).collect::<Vec<_>>()
        });
        same("the paused functions", &model, &other)?;
        for (model_id, other_id) in self.model.names.ids().iter().zip(self.other.names.ids()) {
            let (model, other) = (self.model.queue.input(*model_id).await, self.other.queue.input(*other_id).await);
            let bytes = |stored: Stored| (stored.content_type, setup::bytes_of(&stored.payload));
            self.same("an input", model, other, |_, stored| bytes(stored))?;
            let (model, other) = (self.model.queue.result(*model_id).await, self.other.queue.result(*other_id).await);
            self.same("a result", model, other, |_, stored| stored.map(bytes))?;
            let name = self.model.names.common(*model_id);
            // Lines of a running attempt may come a moment later.
            if !self.unsettled_logs.contains(&name) {
                let model = self.model.queue.read_log(*model_id, 0, usize::MAX).await;
                let other = self.other.queue.read_log(*other_id, 0, usize::MAX).await;
                self.same("a log", model, other, |_, log| log)?;
            }
        }
        Ok(())
    }

    /// No file but those of stored payloads. Files go a moment after what named them.
    async fn check_files(&self) {
        let mut named = 0;
        for id in self.other.names.ids() {
            let input = self.other.queue.input(*id).await.ok();
            let result = self.other.queue.result(*id).await.ok().flatten();
            let in_files = [input, result].into_iter().flatten().filter(|of| matches!(of.payload, Payload::Blob(_)));
            named += in_files.count();
        }
        setup::until("files of stored payloads alone", async || self.subject.files().len() == named).await;
    }

    fn check_counts(&self) -> Result<(), Difference> {
        let counts = [&self.model, &self.other].map(|side| {
            let mut functions = side.queue.stats().functions;
            functions.retain(|(_, stats)| FunctionStats { paused: false, ..*stats } != FunctionStats::default());
            functions
        });
        same("the counts", &counts[0], &counts[1])
    }
}

// === impl Side ===

impl Side {
    async fn pages(&self, filter: &Filter, stranger: &Filter, page: usize, now: UnixMs) -> Result<Vec<Job>, String> {
        let name = |error: Error| self.names.error(&error);
        let mut jobs = Vec::new();
        let mut cursor = None;
        loop {
            let listed = self.queue.list(filter, cursor.as_ref(), page).await.map_err(name)?;
            jobs.extend(listed.jobs.into_iter().map(|job| self.names.job(job, now)));
            let Some(next) = listed.next else { return Ok(jobs) };
            let strange = self.queue.list(stranger, Some(&next), page).await;
            assert!(matches!(strange, Err(Error::BadCursor)), "another list's cursor gave {strange:?}");
            cursor = Some(next);
        }
    }
}

/// Expired, rescued and forgotten until a sweep finds nothing: what one sweep rescues, the next may find expired.
async fn sweep_until_idle(side: &Side, retention: &Retention, limit: usize) -> Result<[usize; 3], Error> {
    let mut sums = [0; 3];
    for _ in 0..1_000 {
        let swept = side.queue.sweep(retention, limit).await?;
        if swept == Swept::default() {
            return Ok(sums);
        }
        assert!(swept.expired + swept.rescued + swept.forgotten <= limit, "a sweep of at most {limit} did {swept:?}");
        for (sum, more) in sums.iter_mut().zip([swept.expired, swept.rescued, swept.forgotten]) {
            *sum += more;
        }
    }
    panic!("sweeping does not end");
}
