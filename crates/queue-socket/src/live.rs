//! One live connection as a client has it: its questions, and who waits for which answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kvern_queue::{Ask, Error, Leased};
use tokio::sync::oneshot;

use crate::frame::encode;
use crate::grant::Grant;
use crate::outbox::Outbox;
use crate::words::{Answer, IsLast, Number, Question, WireLeased};

/// A connection.
#[derive(Debug)]
pub(crate) struct Live {
    /// Of the server.
    pub(crate) life: u64,
    pub(crate) outbox: Outbox,
    next: AtomicU64,
    waiters: Mutex<Waiters>,
}

/// Who waits; none can any more once the connection is over.
type Waiters = Option<HashMap<Number, Waiter>>;

#[derive(Debug)]
enum Waiter {
    Answer(oneshot::Sender<Answer>),
    Leases(oneshot::Sender<Result<Grant, Error>>, Grant),
}

/// Why a question has no answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// The connection was over before: the server knows nothing of it.
    NotAsked,
    /// The connection ended in between: what came of it is unknown.
    CutOff,
    /// It cannot be said.
    Unsayable(Error),
}

/// A question under way. Dropped, nobody waits for the answer any more.
struct Waiting<'a> {
    live: &'a Live,
    number: Number,
    is_lease: bool,
}

// === impl Live ===

impl Live {
    pub(crate) fn new(life: u64, outbox: Outbox) -> Self {
        Self { life, outbox, next: AtomicU64::new(0), waiters: Mutex::new(Some(HashMap::new())) }
    }

    /// A number that nothing else has on this connection.
    pub(crate) fn number(&self) -> Number {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether it has ended. What is asked now is not heard.
    pub(crate) fn is_over(&self) -> bool {
        self.outbox.is_gone() || self.lock().is_none()
    }

    /// Asks, and waits for the answer. Dropped, it may have been heard all the same.
    pub(crate) async fn ask(&self, question: &Question) -> Result<Answer, Unanswered> {
        let (sender, answer) = oneshot::channel();
        let waiting = self.send(question, Waiter::Answer(sender)).await?;
        let answer = answer.await.map_err(|_| Unanswered::CutOff);
        drop(waiting);
        answer
    }

    /// Leases. Dropped, it leaves no lease behind: those that come later go back.
    pub(crate) async fn lease(&self, ask: Ask) -> Result<Result<Vec<Leased>, Error>, Unanswered> {
        let (sender, granted) = oneshot::channel();
        let waiter = Waiter::Leases(sender, Grant::new(self.outbox.clone()));
        let waiting = self.send(&Question::Lease(ask), waiter).await?;
        let granted = granted.await.map_err(|_| Unanswered::CutOff);
        drop(waiting);
        granted.map(|granted| granted.map(Grant::take))
    }

    /// Says something that has no answer, or none that matters.
    pub(crate) fn tell(&self, question: &Question) {
        if let Ok(frame) = encode(&(self.number(), question)) {
            self.outbox.push(frame);
        }
    }

    async fn send(&self, question: &Question, waiter: Waiter) -> Result<Waiting<'_>, Unanswered> {
        let number = self.number();
        let is_lease = matches!(waiter, Waiter::Leases(..));
        let frame = encode(&(number, question)).map_err(Unanswered::Unsayable)?;
        match &mut *self.lock() {
            Some(waiters) => drop(waiters.insert(number, waiter)),
            None => return Err(Unanswered::NotAsked),
        }
        let waiting = Waiting { live: self, number, is_lease };
        self.outbox.send(frame).await.map_err(|_| Unanswered::NotAsked)?;
        Ok(waiting)
    }

    /// An answer came.
    pub(crate) fn answered(&self, number: Number, answer: Answer) {
        let waiter = self.lock().as_mut().and_then(|waiters| waiters.remove(&number));
        match (waiter, answer) {
            // Whoever has gone needs no answer.
            (Some(Waiter::Answer(sender)), answer) => drop(sender.send(answer)),
            (Some(Waiter::Leases(sender, _)), Answer::Refused(error)) => drop(sender.send(Err(error))),
            _ => {}
        }
    }

    /// Leases came, perhaps for somebody who has gone: then they are given back.
    pub(crate) fn leased(&self, number: Number, part: Vec<WireLeased>, is_last: IsLast) {
        let mut unwanted = Grant::new(self.outbox.clone());
        let mut guard = self.lock();
        let waiters = guard.as_mut();
        let Some(waiters) = waiters else { return unwanted.add(part) };
        match waiters.remove(&number) {
            Some(Waiter::Leases(sender, mut grant)) => {
                grant.add(part);
                if is_last {
                    drop(guard);
                    let _ = sender.send(Ok(grant));
                } else {
                    waiters.insert(number, Waiter::Leases(sender, grant));
                }
            }
            _ => unwanted.add(part),
        }
    }

    /// The connection is over: nobody waits any longer.
    pub(crate) fn end(&self) {
        let waiters = self.lock().take();
        drop(waiters);
    }

    fn lock(&self) -> MutexGuard<'_, Waiters> {
        // A map is whole at any time.
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Waiting ===

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let waiter = self.live.lock().as_mut().and_then(|waiters| waiters.remove(&self.number));
        if waiter.is_some()
            && self.is_lease
            && let Ok(frame) = encode(&(self.number, Question::Withdraw))
        {
            self.live.outbox.push(frame);
        }
    }
}
