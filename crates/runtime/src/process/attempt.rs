//! One attempt in a warm instance: the job goes out, its answer comes back and becomes the outcome.

use std::time::Duration;

use kvern_core::{Failure, FailureCode, Outcome};
use tokio::time::{Instant, sleep_until, timeout};

use super::channel::Broken;
use super::frame::{self, Failing, Frame};
use super::handler::Live;
use super::{result, words};
use crate::contract::{Context, Input, Log, Output, OutputRefused};
use crate::jail::jailed::End;
use crate::jail::leash::LimitKind;

/// How long after the end of the channel the end of the process is waited for, before the channel alone is to blame.
pub(super) const END_PATIENCE: Duration = Duration::from_secs(1);
/// How the answer to a job came out.
pub(super) enum Answer {
    Frame(Frame),
    Broken(Broken),
    Ended(End),
    Late,
}

/// Timeouts are bounded by what the clock can add.
pub(super) const FAR: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

impl Live {
    /// Runs one attempt. Afterwards `is_spoilt` says whether the instance may go on.
    pub(super) async fn attempt(
        &mut self,
        context: &Context,
        input: &Input,
        output: &mut dyn Output,
        log: &dyn Log,
    ) -> Outcome {
        let deadline = Instant::now() + context.timeout.min(FAR);
        let answer = self.ask(context, input, deadline, log).await;
        self.conclude(answer, context, deadline, output, log).await
    }

    /// Sends the job and waits for what comes of it.
    async fn ask(&mut self, context: &Context, input: &Input, deadline: Instant, log: &dyn Log) -> Answer {
        self.number = self.number.wrapping_add(1);
        self.tail.clear();
        log_prelude(&mut self.prelude, log);
        // What was printed since the last attempt belongs to none.
        self.logs.drain(|_| ());
        if frame::write_job(self.number, context, input, self.channel.outbox()).is_none() {
            return Answer::Broken(Broken::Garbage(frame::Garbage("an input that is too large for a frame")));
        }
        let body: &[u8] = match input {
            Input::Bytes(bytes) => bytes,
            Input::File(..) => &[],
        };
        let Self { jailed, channel, logs, tail, .. } = self;
        let asked = async {
            channel.send(body).await?;
            channel.receive().await
        };
        let answer = tokio::select! {
            biased;
            answer = asked => answer.map_or_else(Answer::Broken, Answer::Frame),
            () = logs.pump(|bytes| tail.take(bytes, log)) => Answer::Late,
            end = jailed.ended() => Answer::Ended(end),
            () = sleep_until(deadline) => Answer::Late,
        };
        match answer {
            // It may have answered just before it died.
            Answer::Ended(end) => self.channel.received().map_or(Answer::Ended(end), Answer::Frame),
            answer => answer,
        }
    }

    /// Turns the answer into the outcome, and says whether the instance may go on.
    async fn conclude(
        &mut self,
        answer: Answer,
        context: &Context,
        deadline: Instant,
        output: &mut dyn Output,
        log: &dyn Log,
    ) -> Outcome {
        if matches!(answer, Answer::Late) {
            self.is_spoilt = true;
            let Self { jailed, logs, tail, grace, .. } = self;
            jailed.stop_reading(*grace, logs.pump(|bytes| tail.take(bytes, log))).await;
            logs.drain(|bytes| tail.take(bytes, log));
            return Outcome::timed_out(context.timeout);
        }
        self.logs.drain(|bytes| self.tail.take(bytes, log));
        match answer {
            Answer::Frame(Frame::Result { number, head, body, is_last }) if number == self.number => {
                self.is_spoilt |= is_last;
                let delivered = result::deliver(&head, body, &self.scratch, output);
                tokio::select! {
                    outcome = delivered => outcome,
                    () = self.logs.pump(|_| ()) => Outcome::Cancelled,
                    () = sleep_until(deadline) => {
                        self.is_spoilt = true;
                        Outcome::timed_out(context.timeout)
                    }
                }
            }
            Answer::Frame(Frame::Failure { number, failing }) if number == self.number => self.failed(failing),
            Answer::Frame(_) => self.garbage("an answer that was not asked for"),
            Answer::Broken(Broken::Garbage(garbage)) => self.garbage(garbage.0),
            Answer::Broken(Broken::Closed) => self.closed(log).await,
            Answer::Ended(end) => self.crashed(Some(end)),
            Answer::Late => Outcome::timed_out(context.timeout),
        }
    }

    fn failed(&mut self, failing: Failing) -> Outcome {
        self.is_spoilt |= failing.is_last;
        let failure = failing.failure();
        let limit = self.function.memory.filter(|_| self.jailed.limit() == LimitKind::Rlimit);
        match (failure.code, limit) {
            (FailureCode::ResultTooLarge, _) => OutputRefused::TooLarge(self.function.max_output).outcome(),
            // Under RLIMIT_DATA the allocation fails, and Python (MemoryError) or Node (RangeError) throws.
            (_, Some(memory)) if is_about_memory(&failure) => {
                self.is_spoilt = true;
                Outcome::Crashed(words::memory_exceeded(memory.0.get()))
            }
            _ => Outcome::Failed(failure),
        }
    }

    /// The other end of the channel is closed: as a rule because the process has ended.
    async fn closed(&mut self, log: &dyn Log) -> Outcome {
        let end = timeout(END_PATIENCE, self.jailed.ended()).await.ok();
        self.logs.drain(|bytes| self.tail.take(bytes, log));
        match end {
            Some(_) => self.crashed(end),
            None => self.garbage("the end of the descriptor that results go through"),
        }
    }

    fn crashed(&mut self, end: Option<End>) -> Outcome {
        self.is_spoilt = true;
        Outcome::Crashed(words::death(end, &self.function, &self.jailed, &self.tail, " during the attempt"))
    }

    fn garbage(&mut self, what: &str) -> Outcome {
        self.is_spoilt = true;
        let message = format!("the function's process wrote what is not Kvern's protocol: {what}");
        Outcome::Crashed(Failure::new(FailureCode::ProtocolError, message))
    }
}

// === helpers ===

fn is_about_memory(failure: &Failure) -> bool {
    let class = failure.class.as_deref();
    class == Some("MemoryError") || class == Some("RangeError") && words::is_about_memory(&failure.message)
}

fn log_prelude(prelude: &mut Vec<u8>, log: &dyn Log) {
    let prelude = std::mem::take(prelude);
    if !prelude.is_empty() {
        log.write(&prelude);
    }
}
