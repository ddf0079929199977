//! What a batch leaves to do once the memory is up to date and its lock is free: answers, news, files.

use std::path::PathBuf;

use kvern_core::State;
use kvern_queue::{Error, Payload, Submitted, Swept};

use crate::memory::Moved;
use crate::shared::{Answer, Shared};

/// What is to be done after a batch, outside of the lock.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    answers: Vec<Pending>,
    pub(crate) moved: Vec<Moved>,
    /// Files that no row names any more.
    pub(crate) files: Vec<PathBuf>,
    /// Payloads that were not stored: their files go with them, unless whoever settles again brings the same.
    pub(crate) payloads: Vec<Payload>,
}

/// An answer on its way.
#[derive(Debug)]
enum Pending {
    Submit(Answer<Submitted>, Result<Submitted, Error>),
    Settle(Answer<State>, Result<State, Error>),
    Done(Answer<()>, Result<(), Error>),
    Sweep(Answer<Swept>, Result<Swept, Error>),
}

// === impl Effects ===

impl Effects {
    pub(crate) fn answer_submit(&mut self, answer: Answer<Submitted>, given: Result<Submitted, Error>) {
        self.answers.push(Pending::Submit(answer, given));
    }

    pub(crate) fn answer_settle(&mut self, answer: Answer<State>, given: Result<State, Error>) {
        self.answers.push(Pending::Settle(answer, given));
    }

    pub(crate) fn answer_done(&mut self, answer: Answer<()>, given: Result<(), Error>) {
        self.answers.push(Pending::Done(answer, given));
    }

    pub(crate) fn answer_sweep(&mut self, answer: Answer<Swept>, given: Result<Swept, Error>) {
        self.answers.push(Pending::Sweep(answer, given));
    }

    /// Answers, tells, removes. Whoever asked and went away does not mind.
    pub(crate) fn carry_out(&mut self, shared: &Shared) {
        for pending in self.answers.drain(..) {
            match pending {
                Pending::Submit(answer, given) => drop(answer.send(given)),
                Pending::Settle(answer, given) => drop(answer.send(given)),
                Pending::Done(answer, given) => drop(answer.send(given)),
                Pending::Sweep(answer, given) => drop(answer.send(given)),
            }
        }
        shared.tell(&self.moved);
        self.moved.clear();
        self.payloads.clear();
        shared.blobs.remove(self.files.drain(..));
    }
}
