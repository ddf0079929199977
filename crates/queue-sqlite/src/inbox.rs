//! The way to the writer: a bounded queue of operations, and the bell that wakes it.
//!
//! Bounded in bytes and in count at once: an operation takes one unit of room for each KiB it carries, at least one.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::operation::Operation;

/// Most bytes on the way to the disk; more submits wait for room.
pub(crate) const INBOX_BYTES_MAX: usize = 64 << 20;
/// Bytes in one unit of room.
const UNIT_BYTES: usize = 1 << 10;
/// Most operations in one commit.
pub(crate) const BATCH_OPERATIONS_MAX: usize = 4096;

/// Operations that wait for the writer.
#[derive(Debug)]
pub(crate) struct Inbox {
    queue: Mutex<Queue>,
    bell: Condvar,
    room: Semaphore,
}

#[derive(Debug, Default)]
struct Queue {
    operations: Vec<Operation>,
    /// Somebody wants the writer to look at the memory.
    is_poked: bool,
    is_asleep: bool,
    end: Option<End>,
}

/// How the writer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// After everything that was handed over is durable.
    Drain,
    /// At once, as in a crash.
    Abort,
}

// === impl Inbox ===

impl Inbox {
    /// An empty inbox.
    pub(crate) fn new() -> Self {
        Self { queue: Mutex::default(), bell: Condvar::new(), room: Semaphore::new(INBOX_BYTES_MAX / UNIT_BYTES) }
    }

    /// The room that `bytes` take.
    pub(crate) fn units(bytes: usize) -> u32 {
        let units = bytes.div_ceil(UNIT_BYTES).clamp(1, INBOX_BYTES_MAX / UNIT_BYTES);
        u32::try_from(units).unwrap_or(u32::MAX)
    }

    /// Waits for room. What was taken comes back by [`Inbox::give_back`], when the operation has been answered.
    pub(crate) async fn take_room(&self, units: u32) {
        // Without a writer nothing gives room back; nobody waits for that, and `push` refuses.
        if let Ok(permit) = self.room.acquire_many(units).await {
            permit.forget();
        }
    }

    /// Operations were answered: their room is free.
    pub(crate) fn give_back(&self, units: usize) {
        self.room.add_permits(units);
    }

    /// Hands an operation over, unless the writer ends.
    pub(crate) fn push(&self, operation: Operation) -> Result<(), Operation> {
        let mut queue = self.lock();
        if queue.end.is_some() {
            return Err(operation);
        }
        queue.operations.push(operation);
        self.ring(queue);
        Ok(())
    }

    /// Asks the writer to look at the memory: a due time came sooner, a window runs dry.
    pub(crate) fn poke(&self) {
        let mut queue = self.lock();
        queue.is_poked = true;
        self.ring(queue);
    }

    /// Ends the writer.
    pub(crate) fn end(&self, end: End) {
        let mut queue = self.lock();
        queue.end.get_or_insert(end);
        self.ring(queue);
    }

    /// The writer is gone: nobody waits for room any more, and what waits is dropped.
    pub(crate) fn abandon(&self) {
        self.end(End::Abort);
        self.room.close();
        while !self.take().0.is_empty() {}
    }

    /// Waits until there is something to do, at most until the deadline.
    pub(crate) fn wait(&self, deadline: Option<Instant>) {
        let mut queue = self.lock();
        while queue.operations.is_empty() && !queue.is_poked && queue.end.is_none() {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return;
            }
            queue.is_asleep = true;
            queue = match left {
                None => self.bell.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(left) => self.bell.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0,
            };
            queue.is_asleep = false;
        }
        queue.is_poked = false;
    }

    /// Waits until nothing has come for `quiet`, at most `most` in all: on a slow disk a fuller batch is a faster one.
    pub(crate) fn linger(&self, quiet: Duration, most: Duration) {
        let until = Instant::now() + most;
        let mut before = self.lock().operations.len();
        while before > 0 && before < BATCH_OPERATIONS_MAX && Instant::now() < until {
            std::thread::sleep(quiet);
            let after = self.lock().operations.len();
            if after == before {
                return;
            }
            before = after;
        }
    }

    /// Takes at most one batch, and says whether this is the end.
    pub(crate) fn take(&self) -> (Vec<Operation>, Option<End>) {
        let mut queue = self.lock();
        if queue.operations.len() <= BATCH_OPERATIONS_MAX {
            let room = queue.operations.len();
            return (std::mem::replace(&mut queue.operations, Vec::with_capacity(room)), queue.end);
        }
        (queue.operations.drain(..BATCH_OPERATIONS_MAX).collect(), queue.end)
    }

    fn ring(&self, mut queue: MutexGuard<'_, Queue>) {
        // A bell that nobody waits for costs a system call all the same.
        let is_asleep = std::mem::take(&mut queue.is_asleep);
        drop(queue);
        if is_asleep {
            self.bell.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing here can panic midway, so a poisoned lock still guards whole data.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::pause::Pause;

    fn operation() -> Operation {
        let function = "f".parse().expect("a name");
        Operation::Pause(Pause { function, paused: true, answer: oneshot::channel().0 })
    }

    #[test]
    fn a_batch_is_bounded_and_the_rest_waits() {
        let inbox = Inbox::new();
        for _ in 0..BATCH_OPERATIONS_MAX + 10 {
            inbox.push(operation()).expect("it is open");
        }
        assert_eq!(inbox.take().0.len(), BATCH_OPERATIONS_MAX);
        assert_eq!(inbox.take().0.len(), 10);
    }

    #[test]
    fn an_inbox_that_ends_refuses_but_gives_what_it_took() {
        let inbox = Inbox::new();
        inbox.push(operation()).expect("it is open");
        inbox.end(End::Drain);
        assert!(inbox.push(operation()).is_err());
        inbox.wait(None);
        let (operations, end) = inbox.take();
        assert_eq!((operations.len(), end), (1, Some(End::Drain)));
    }

    #[tokio::test]
    async fn bytes_beyond_the_bound_wait_for_room() {
        let inbox = Inbox::new();
        let most = Inbox::units(INBOX_BYTES_MAX);
        inbox.take_room(most).await;
        let mut more = std::pin::pin!(inbox.take_room(1));
        let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(more.as_mut().poll(cx).is_ready())).await;
        assert!(!polled, "there is no room");
        inbox.give_back(most as usize);
        more.await;
    }

    #[tokio::test]
    async fn nobody_waits_for_room_that_no_writer_gives_back() {
        let inbox = Inbox::new();
        inbox.take_room(Inbox::units(INBOX_BYTES_MAX)).await;
        inbox.push(operation()).expect("it is open");
        let mut waiting = std::pin::pin!(inbox.take_room(1));
        let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(waiting.as_mut().poll(cx).is_ready())).await;
        assert!(!polled, "there is no room");
        inbox.abandon();
        let waited = tokio::time::timeout(Duration::from_secs(10), waiting).await;
        assert!(waited.is_ok(), "it waits for ever");
        assert!(inbox.push(operation()).is_err() && inbox.take().0.is_empty());
    }
}
