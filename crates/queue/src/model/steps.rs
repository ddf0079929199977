//! What is done to jobs, one step at a time, on both queues.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kvern_core::{Attempt, JobId, Next, Outcome};
use tokio::task::JoinSet;

use super::operation::{How, Pick, Submit};
use super::view::{Difference, Names, same};
use super::world::{FUNCTIONS, Given, Side, World, function, moved};
use crate::conformance::setup::{self, Dice};
use crate::error::Error;
use crate::job::{Idempotency, Lease, LeaseToken, Leased, NewJob, Settlement, Submitted, WorkerInfo};

impl World<'_> {
    pub(super) async fn submit(&mut self, submit: &Submit) -> Result<(), Difference> {
        self.begin_era();
        let [model, other] = self
            .both(async |side: &Side| {
                let job = self.new_job(side, submit).await;
                side.queue.submit(job).await
            })
            .await;
        self.accept(&model, &other);
        self.same("the answer to a submit", model, other, Names::submitted)
    }

    /// On the subject at the same time, on the model one after the other: which of them is the first is left open.
    pub(super) async fn twins(&mut self, submit: &Submit, count: u8) -> Result<(), Difference> {
        self.begin_era();
        let submit = Submit { key: submit.key.or(Some(0)), ..submit.clone() };
        let (mut models, mut tasks) = (Vec::new(), JoinSet::new());
        for _ in 0..count {
            let job = self.new_job(&self.model, &submit).await;
            models.push(self.model.queue.submit(job).await);
            let job = self.new_job(&self.other, &submit).await;
            let queue = Arc::clone(&self.other.queue);
            tasks.spawn(async move { queue.submit(job).await });
        }
        let mut others = tasks.join_all().await;
        for answers in [&mut models, &mut others] {
            answers.sort_by_key(|answer| answer.as_ref().map_or(2, |submitted| u8::from(submitted.duplicate)));
        }
        for (model, other) in models.into_iter().zip(others) {
            self.accept(&model, &other);
            self.same("the answer to a submit among its twins", model, other, Names::submitted)?;
        }
        Ok(())
    }

    /// A new job on both sides has one name from now on.
    fn accept(&mut self, model: &Result<Submitted, Error>, other: &Result<Submitted, Error>) {
        if let (Ok(model), Ok(other)) = (model, other)
            && !model.duplicate
            && !other.duplicate
        {
            self.model.names.add(model.id);
            self.other.names.add(other.id);
        }
    }

    async fn new_job(&self, side: &Side, submit: &Submit) -> NewJob {
        let (now, input) = (self.clock.now(), side.payload(submit.size, u64::from(submit.body)).await);
        let [era, rest] = self.era.to_be_bytes();
        let key = |key: u8| {
            let mut bytes = [7; 16];
            bytes[..3].copy_from_slice(&[era, rest, key]);
            bytes
        };
        NewJob {
            function: function(submit.function),
            input,
            content_type: (submit.body == 1).then(|| "text/plain".to_owned()),
            idempotency: submit.key.map(|k| Idempotency { key: key(k), body: [submit.body; 16] }),
            not_before: submit.not_before.map(|ms| moved(now, ms)),
            expires_at: submit.expires.map(|ms| now.after(Duration::from_millis(ms))),
            priority: submit.priority,
            tags: vec![("body".to_owned(), submit.body.to_string())],
            max_queued: submit.max_queued,
        }
    }

    pub(super) async fn lease(&mut self, wants: &[(u8, u8)]) -> Result<(), Difference> {
        // A function asked for twice has the slots of both.
        let mut slots: BTreeMap<&str, usize> = BTreeMap::new();
        for (function, more) in wants {
            *slots.entry(FUNCTIONS[usize::from(*function) % FUNCTIONS.len()]).or_default() += usize::from(*more);
        }
        let wants: Vec<(&str, usize)> = slots.into_iter().collect();
        let ask = setup::ask(&wants, 100, Duration::ZERO);
        let [model, other] = self.both(async |side: &Side| side.lease(ask.clone()).await).await;
        let now = self.clock.now();
        let views = [(&self.model, &model), (&self.other, &other)].map(|(side, leased)| {
            let view = |one: &Leased| {
                let record = side.names.job(one.job.clone(), now);
                (record, one.lease.token().attempt, setup::bytes_of(&one.input))
            };
            leased.iter().map(view).collect::<Vec<_>>()
        });
        same("the jobs leased", &views[0], &views[1])?;
        for (model, other) in model.into_iter().zip(other) {
            self.open.push(self.leases.len());
            let started_at = model.job.started_at.expect("a leased job has started");
            self.leases.push(Given { model: model.lease.token(), other: other.lease.token(), started_at });
        }
        Ok(())
    }

    pub(super) async fn renew(&mut self, picks: &[Pick]) -> Result<(), Difference> {
        let given: Vec<Given> = picks.iter().filter_map(|pick| self.given(*pick)).collect();
        let tokens = |of: fn(&Given) -> LeaseToken| given.iter().map(of).collect::<Vec<_>>();
        let model = self.model.queue.renew(&tokens(|given| given.model)).await;
        let other = self.other.queue.renew(&tokens(|given| given.other)).await;
        self.same("the leases renewed", model, other, |_, states| states)
    }

    pub(super) async fn settle(&mut self, pick: Pick, how: How) -> Result<(), Difference> {
        let Some(given) = self.given(pick) else { return Ok(()) };
        let mut answers = Vec::new();
        for (side, token) in [(&self.model, given.model), (&self.other, given.other)] {
            let settlement = self.settlement(side, &given, how).await;
            answers.push(side.queue.settle(Lease::new(token), settlement).await);
        }
        let [model, other] = pair(answers);
        if model.is_ok() {
            let id = self.model.names.common(given.model.job);
            let is_release = matches!(how, How::Release);
            if !is_release {
                self.unsettled_logs.remove(&id);
            }
        }
        self.open.retain(|at| self.leases[*at].model != given.model);
        self.same("the answer to a settlement", model, other, |_, state| state)
    }

    async fn settlement(&self, side: &Side, given: &Given, how: How) -> Settlement {
        let now = self.clock.now();
        let in_a_while = |ms| Next::RetryAt(now.after(Duration::from_millis(ms)));
        let (outcome, next) = match how {
            How::Succeed(_) => (Outcome::Succeeded, Next::Succeed),
            How::FailAndWait(ms) => (setup::failed(), in_a_while(ms)),
            How::TimeOutAndWait(ms) => (Outcome::timed_out(Duration::from_secs(3)), in_a_while(ms)),
            How::Fail => (setup::failed(), Next::Fail),
            How::CrashAndRetry => (setup::crashed(), Next::RetryNow),
            How::CrashAndFail => (setup::crashed(), Next::Fail),
            How::Cancel => (Outcome::Cancelled, Next::Cancel),
            How::Release => return Settlement::Release,
        };
        let result = match how {
            How::Succeed(size) => Some(("application/json".to_owned(), side.payload(size, 9).await)),
            _ => None,
        };
        let attempt = Attempt {
            number: given.model.attempt,
            outcome: outcome.as_str().to_owned(),
            started_at: given.started_at,
            finished_at: now,
            version: given.model.attempt.is_multiple_of(2).then(|| "abc".to_owned()),
            error: outcome.failure().map(ToString::to_string),
        };
        let log = Bytes::from(format!("attempt {}: {}\n", attempt.number, attempt.outcome));
        Settlement::Finish { outcome, next, result, attempt, log }
    }

    pub(super) async fn append_log(&mut self, pick: Pick, count: u16) -> Result<(), Difference> {
        let Some(given) = self.given(pick) else { return Ok(()) };
        let bytes = Dice::new(u64::from(count)).bytes(usize::from(count));
        let model = self.model.queue.append_log(given.model, bytes.clone()).await;
        let other = self.other.queue.append_log(given.other, bytes).await;
        if model.is_ok() {
            self.unsettled_logs.insert(self.model.names.common(given.model.job));
        }
        self.same("the answer to a log line", model, other, |_, ()| ())
    }

    pub(super) async fn cancel(&mut self, pick: u16) -> Result<(), Difference> {
        let Some(ids) = self.job(pick) else { return Ok(()) };
        let (model, other) = (self.model.queue.cancel(ids.0).await, self.other.queue.cancel(ids.1).await);
        let now = self.clock.now();
        self.same("the answer to a cancel", model, other, |names, job| names.job(job, now))
    }

    pub(super) async fn retry(&mut self, pick: u16) -> Result<(), Difference> {
        let Some(ids) = self.job(pick) else { return Ok(()) };
        let (model, other) = (self.model.queue.retry(ids.0).await, self.other.queue.retry(ids.1).await);
        let now = self.clock.now();
        self.same("the answer to a retry", model, other, |names, job| names.job(job, now))
    }

    pub(super) async fn forget(&mut self, pick: u16) -> Result<(), Difference> {
        let Some(ids) = self.job(pick) else { return Ok(()) };
        let (model, other) = (self.model.queue.forget(ids.0).await, self.other.queue.forget(ids.1).await);
        self.same("the answer to a forget", model, other, |_, ()| ())
    }

    pub(super) async fn pause(&mut self, of: u8, paused: bool) -> Result<(), Difference> {
        let of = function(of);
        let (model, other) = (self.model.queue.pause(&of, paused).await, self.other.queue.pause(&of, paused).await);
        self.same("the answer to a pause", model, other, |_, ()| ())
    }

    pub(super) async fn announce(&mut self, worker: u8) -> Result<(), Difference> {
        let info = WorkerInfo {
            name: format!("worker-{worker}"),
            functions: vec![(function(worker), "v1".to_owned())],
            seen_at: self.clock.now(),
        };
        self.workers.insert(info.name.clone());
        let model = self.model.queue.announce(info.clone()).await;
        let other = self.other.queue.announce(info).await;
        self.same("the answer to an announcement", model, other, |_, ()| ())
    }

    /// A piece of a log that is told for sure.
    pub(super) async fn read_log(&mut self, pick: u16, offset: u64, limit: usize) -> Result<(), Difference> {
        let Some((model_id, other_id)) = self.job(pick) else { return Ok(()) };
        let name = self.model.names.common(model_id);
        if self.unsettled_logs.contains(&name) {
            return Ok(());
        }
        let model = self.model.queue.read_log(model_id, offset, limit).await;
        let other = self.other.queue.read_log(other_id, offset, limit).await;
        self.same("a piece of a log", model, other, |_, log| log)
    }

    pub(super) fn watch(&mut self, pick: u16) {
        if let Some((model, other)) = self.job(pick) {
            self.news.watch((&self.model, model), (&self.other, other));
        }
    }

    /// Names that no queue gave out.
    pub(super) async fn unknown(&mut self, pick: u16) -> Result<(), Difference> {
        let Some((model, _)) = self.job(pick) else { return Ok(()) };
        let id = JobId::new(model.sequence(), model.random() ^ 0x5555);
        let [model, other] = self
            .both(async |side: &Side| {
                let kinds = [
                    side.queue.get(id).await.err(),
                    side.queue.input(id).await.err(),
                    side.queue.result(id).await.err(),
                    side.queue.read_log(id, 0, 10).await.err(),
                    side.queue.cancel(id).await.err(),
                    side.queue.retry(id).await.err(),
                    side.queue.forget(id).await.err(),
                ];
                kinds.map(|kind| kind.map(|error| side.names.error(&error)))
            })
            .await;
        same("what is said of an unknown job", &model, &other)
    }
}

fn pair<T>(answers: Vec<T>) -> [T; 2] {
    answers.try_into().unwrap_or_else(|_| unreachable!("there are two sides"))
}
