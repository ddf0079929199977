//! The ends of a queue, and what is there after them; a full disk.

use std::sync::Arc;
use std::time::Duration;

use kvern_core::UnixMs;

use super::news::News;
use super::operation::Operation;
use super::view::{Difference, same};
use super::world::{FUNCTIONS, Given, Side, World, function};
use crate::conformance::setup;
use crate::contract::Queue;
use crate::job::{Lease, LeaseToken, Settlement, WorkerInfo};

impl World<'_> {
    pub(super) fn disk(&self, is_full: bool) {
        if self.subject.set_full(is_full) {
            self.memory.set_full(is_full);
        }
    }

    /// A closed queue refuses everything but a look.
    pub(super) async fn close(&mut self) -> Result<(), Difference> {
        let tokens = |of: fn(&Given) -> LeaseToken| self.leases.last().map(of);
        let model = self.model.refusals(tokens(|given| given.model)).await;
        let other = self.other.refusals(tokens(|given| given.other)).await;
        same("what a closed queue says", &model, &other)?;
        self.check_content().await?;
        self.reboot().await
    }

    /// What was acknowledged is there.
    pub(super) async fn reboot(&mut self) -> Result<(), Difference> {
        self.news.check(&self.model, &self.other, false).await?;
        let queue = self.lay_down();
        self.other.queue = self.subject.reopen(queue).await;
        self.wake_up(Arc::clone(&self.memory));
        self.settle_logs().await?;
        self.check_everything().await
    }

    /// What was acknowledged before the last step is there; the step is there as a whole or not at all.
    pub(super) async fn dirty_reboot(&mut self, last: &Operation, seed: u64) -> Result<(), Difference> {
        let (before, jobs_before) = (Arc::new(self.memory.fork()), self.model.names.ids().len());
        let logs_before = self.unsettled_logs.clone();
        self.subject.note_disk();
        self.step(last).await?;
        let queue = self.lay_down();
        self.other.queue = self.subject.cut_power(queue, seed).await;
        self.wake_up(Arc::clone(&self.memory));
        if let Err(not_kept) = self.check_content().await {
            self.model.names.keep(jobs_before);
            self.other.names.keep(jobs_before);
            self.unsettled_logs = logs_before;
            self.wake_up(before);
            self.check_content().await.map_err(|not_lost| not_kept.and(&not_lost))?;
        }
        self.settle_logs().await?;
        self.check_everything().await
    }

    /// A kill may take the last lines of a running attempt along: from here on the model has what the subject has kept.
    async fn settle_logs(&mut self) -> Result<(), Difference> {
        let unsettled = std::mem::take(&mut self.unsettled_logs);
        for (model_id, other_id) in self.model.names.ids().iter().zip(self.other.names.ids()) {
            if !unsettled.contains(&self.model.names.common(*model_id)) {
                continue;
            }
            let model = self.model.queue.read_log(*model_id, 0, usize::MAX).await;
            let other = self.other.queue.read_log(*other_id, 0, usize::MAX).await;
            if let (Ok(model), Ok(other)) = (model, other) {
                same("the log up to the last lines", &model.slice(..model.len().min(other.len())), &other)?;
                self.memory.cut_log(*model_id, other.len());
            }
        }
        Ok(())
    }

    /// The subject's queue with one holder, to die; the model stands in for it meanwhile.
    fn lay_down(&mut self) -> Arc<dyn Queue> {
        std::mem::replace(&mut self.other.queue, Arc::clone(&self.model.queue))
    }

    /// The model begins its next life too, as this queue.
    fn wake_up(&mut self, memory: Arc<crate::memory::MemoryQueue>) {
        memory.reboot();
        self.model.queue = Arc::clone(&memory) as Arc<dyn Queue>;
        self.memory = memory;
        self.news = News::new(&self.model, &self.other);
        self.open.clear();
        self.workers.clear();
    }
}

// === impl Side ===

impl Side {
    /// Closes, and tries everything that a closed queue refuses.
    async fn refusals(&self, lease: Option<LeaseToken>) -> Vec<Option<String>> {
        let input = self.payload(super::operation::Size::Small, 0).await;
        let queue = &self.queue;
        queue.close().await;
        let job = crate::job::NewJob { input, ..setup::job(FUNCTIONS[0]) };
        let worker = WorkerInfo { name: "late".to_owned(), functions: Vec::new(), seen_at: UnixMs(0) };
        let mut refused = vec![
            Some(queue.closed().await),
            queue.health().err(),
            queue.room().err(),
            queue.stage().await.err(),
            queue.submit(job).await.err(),
            queue.lease(setup::ask(&[(FUNCTIONS[0], 1)], 1, Duration::ZERO)).await.err(),
            queue.renew(&[]).await.err(),
            queue.pause(&function(0), true).await.err(),
            queue.announce(worker).await.err(),
            queue.workers().await.err(),
            queue.sweep(&Vec::new(), 1).await.err(),
        ];
        if let Some(token) = lease {
            refused.push(queue.settle(Lease::new(token), Settlement::Release).await.err());
            refused.push(queue.append_log(token, b"late".as_slice().into()).await.err());
            refused.push(queue.cancel(token.job).await.err());
            refused.push(queue.retry(token.job).await.err());
            refused.push(queue.forget(token.job).await.err());
        }
        refused.into_iter().map(|error| error.map(|error| self.names.error(&error))).collect()
    }
}
