//! Lease: takes ready jobs from memory, or waits for some. A call that finds a job returns in the poll that takes it, so
//! a dropped call never holds one.

use std::sync::Arc;
use std::time::Duration;

use kvern_core::UnixMs;
use kvern_queue::{Ask, Error, Leased};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::memory::NEVER;
use crate::shared::Shared;

/// The longest wait, whatever was asked for: a date that no timer can hold is as good as never.
const WAIT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// The longest wait for the writer to queue what is due and to fill a window, before "nothing" is the answer.
const BEHIND_MAX: Duration = Duration::from_secs(1);

/// Rounds of the writer that a lease waits for when jobs are due: the first may have begun before they were.
const ROUNDS_FOR_DUE: u32 = 2;

/// What a look gave.
enum Look {
    Leased(Vec<Leased>),
    Nothing(Waiter),
}

/// A place in the list of waiters.
struct Waiter {
    key: u64,
    bell: Arc<Notify>,
    /// The writer has something to do first.
    is_behind: bool,
    /// That is to queue what is due.
    waits_for_due: bool,
    next_due: UnixMs,
}

/// Leaves the list of waiters when the wait ends, however it ends.
struct Waiting<'a> {
    shared: &'a Shared,
    key: u64,
    wanted: &'a [usize],
}

/// Takes up to `ask.max` jobs; an empty answer after `ask.wait`.
pub(crate) async fn lease(shared: &Shared, ask: Ask) -> Result<Vec<Leased>, Error> {
    let began = Instant::now();
    let wanted: Vec<usize> = {
        let mut memory = shared.memory();
        ask.wants.iter().map(|want| memory.index(&want.function)).collect()
    };
    // A due job may be older than those that are ready, so the writer gets its rounds to queue it.
    let mut rounds_for_due = ROUNDS_FOR_DUE;
    loop {
        let waiter = match look(shared, &ask, &wanted, rounds_for_due > 0)? {
            Look::Leased(leased) => return Ok(leased),
            Look::Nothing(waiter) => waiter,
        };
        let waiting = Waiting { shared, key: waiter.key, wanted: &wanted };
        let wait = if waiter.is_behind { ask.wait.max(BEHIND_MAX) } else { ask.wait };
        let deadline = began + wait.min(WAIT_MAX);
        if Instant::now() >= deadline {
            return Ok(Vec::new());
        }
        if waiter.is_behind {
            shared.inbox.poke();
            rounds_for_due -= u32::from(waiter.waits_for_due);
        }
        // Any arm may be dropped: none holds a job.
        tokio::select! {
            () = waiter.bell.notified() => {}
            () = shared.clock.reached(waiter.next_due), if waiter.next_due != NEVER => rounds_for_due = ROUNDS_FOR_DUE,
            () = tokio::time::sleep_until(deadline) => {}
        }
        drop(waiting);
    }
}

fn look(shared: &Shared, ask: &Ask, wanted: &[usize], has_rounds_for_due: bool) -> Result<Look, Error> {
    let (now, monotonic) = (shared.clock.now(), shared.clock.monotonic());
    let (leased, moved, runs_dry) = {
        let mut memory = shared.memory();
        memory.check_open()?;
        let next_due = memory.next_due_of(wanted);
        let is_due = next_due <= now;
        let waits_for_due = is_due && has_rounds_for_due;
        let (leased, moved) =
            if waits_for_due { Default::default() } else { memory.lease(ask, wanted, now, monotonic)? };
        if leased.is_empty() {
            // What could not be queued in its rounds the writer tries again by itself, and rings once it is ready.
            let is_behind = waits_for_due || memory.is_dry(wanted);
            let (key, bell) = memory.waiters.join(wanted.to_vec(), is_behind);
            let next_due = if is_behind || is_due { NEVER } else { next_due };
            return Ok(Look::Nothing(Waiter { key, bell, is_behind, waits_for_due, next_due }));
        }
        (leased, moved, wanted.iter().any(|index| memory.wants_refill(*index)))
    };
    shared.tell(&moved);
    if runs_dry {
        shared.inbox.poke();
    }
    Ok(Look::Leased(leased))
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut memory = self.shared.memory();
        if memory.waiters.leave(self.key) {
            return;
        }
        // It was woken: if it goes away without a look, or leaves jobs behind, the next one looks.
        for index in self.wanted {
            if memory.functions[*index].window.has_ready() {
                memory.waiters.wake(*index, 1);
            }
        }
    }
}
