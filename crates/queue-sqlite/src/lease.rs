//! Lease: takes ready jobs from memory, or waits for some. A call that finds a job returns in the poll that takes it, so
//! a dropped call never holds one.

use std::sync::Arc;
use std::time::Duration;

use kvern_core::UnixMs;
use kvern_queue::{Ask, Error, Leased};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::shared::Shared;

/// The longest wait, whatever was asked for: a date that no timer can hold is as good as never.
const WAIT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// The longest wait for the writer to queue what is due and to fill a window, before "nothing" is the answer.
const BEHIND_MAX: Duration = Duration::from_secs(1);

/// What a look gave.
enum Look {
    Leased(Vec<Leased>),
    Nothing { waiter: u64, bell: Arc<Notify>, is_behind: bool, next_due: UnixMs },
}

/// Leaves the list of waiters when the call ends, however it ends.
struct Waiting<'a> {
    shared: &'a Shared,
    waiter: u64,
    wanted: &'a [usize],
}

/// Takes up to `ask.max` jobs; an empty answer after `ask.wait`.
pub(crate) async fn lease(shared: &Shared, ask: Ask) -> Result<Vec<Leased>, Error> {
    let began = Instant::now();
    let wanted: Vec<usize> = {
        let mut memory = shared.memory();
        ask.wants.iter().map(|want| memory.index(&want.function)).collect()
    };
    loop {
        let (waiter, bell, is_behind, next_due) = match look(shared, &ask, &wanted)? {
            Look::Leased(leased) => return Ok(leased),
            Look::Nothing { waiter, bell, is_behind, next_due } => (waiter, bell, is_behind, next_due),
        };
        let _waiting = Waiting { shared, waiter, wanted: &wanted };
        let wait = if is_behind { ask.wait.max(BEHIND_MAX) } else { ask.wait };
        if wait.is_zero() {
            return Ok(Vec::new());
        }
        if is_behind {
            shared.inbox.poke();
        }
        let next_due = if is_behind { UnixMs(u64::MAX) } else { next_due };
        // Any arm may be dropped: none holds a job.
        tokio::select! {
            biased;
            () = bell.notified() => {}
            () = shared.clock.reached(next_due) => {}
            () = tokio::time::sleep_until(began + wait.min(WAIT_MAX)) => {
                // One more look: a job may have come with the last tick.
                return match look(shared, &ask, &wanted)? {
                    Look::Leased(leased) => Ok(leased),
                    Look::Nothing { waiter, .. } => {
                        shared.memory().waiters.leave(waiter);
                        Ok(Vec::new())
                    }
                };
            }
        }
    }
}

fn look(shared: &Shared, ask: &Ask, wanted: &[usize]) -> Result<Look, Error> {
    let (now, monotonic) = (shared.clock.now(), shared.clock.monotonic());
    let (leased, moved, runs_dry) = {
        let mut memory = shared.memory();
        memory.check_open()?;
        let (leased, moved) = memory.lease(ask, wanted, now, monotonic)?;
        let is_behind = memory.is_behind(wanted.iter().copied(), now);
        // Jobs that are due go first, whatever is ready.
        if leased.is_empty() {
            let (waiter, bell) = memory.waiters.join(wanted.to_vec(), is_behind);
            return Ok(Look::Nothing { waiter, bell, is_behind, next_due: memory.next_due });
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
        if memory.waiters.leave(self.waiter) {
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
