//! The overlay: jobs under a lease. The database keeps them as queued; they run only here, and a crash forgets it.

use std::sync::Arc;
use std::time::Duration;

use kvern_core::limits::LEASE_TTL;
use kvern_core::{Job, JobId, UnixMs};
use kvern_queue::{Ask, Error, KnownBad, Lease, LeaseState, LeaseToken, Leased, Payload, record};

use crate::memory::{Memory, Moved};
use crate::window::Ready;

/// A job under a lease.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) token: LeaseToken,
    /// As it stands: running.
    pub(crate) job: Arc<Job>,
    pub(crate) input: Payload,
    pub(crate) function: usize,
    /// When the attempt before this one began.
    pub(crate) started_before: Option<UnixMs>,
    /// A row in `started` says that it runs; asked for, not yet necessarily committed.
    pub(crate) is_long: bool,
    /// Its end is on the way to the disk: it can be neither settled again nor lost.
    pub(crate) is_settling: bool,
    /// A request to cancel it is on the way to the disk: until it is there nobody sees it, but a release goes by the
    /// writer, after it.
    pub(crate) is_cancelling: bool,
    /// By the monotonic clock.
    given_at: Duration,
    /// By the monotonic clock.
    renewed_at: Duration,
}

/// What a renewal found.
#[derive(Debug)]
pub(crate) struct Renewed {
    pub(crate) state: LeaseState,
    /// The attempt is old enough now for an interruption to count, and that is to be written.
    pub(crate) is_long_now: bool,
}

// === impl Running ===

impl Running {
    /// Whether the lease has run out.
    pub(crate) fn is_over(&self, monotonic: Duration) -> bool {
        !self.is_settling && monotonic >= self.renewed_at + LEASE_TTL
    }
}

// === impl Memory ===

impl Memory {
    /// Gives leases on ready jobs; never waits. The moves are to be told afterwards.
    pub(crate) fn lease(
        &mut self,
        ask: &Ask,
        wanted: &[usize],
        now: UnixMs,
        monotonic: Duration,
    ) -> Result<(Vec<Leased>, Vec<Moved>), Error> {
        let mut slots: Vec<usize> = ask.wants.iter().map(|want| want.slots).collect();
        let (mut leased, mut moved) = (Vec::new(), Vec::new());
        wanted.iter().for_each(|index| self.take_back_expired(*index, now));
        while leased.len() < ask.max {
            let free = wanted.iter().enumerate().filter(|(at, _)| slots[*at] > 0);
            let ready = free.filter(|(_, index)| self.can_lease(**index));
            let longest_without = ready.min_by_key(|(_, index)| self.functions[**index].served);
            let Some((at, index)) = longest_without.map(|(at, index)| (at, *index)) else { break };
            let Some(ready) = self.with_window(index, |window| window.take()) else { break };
            if ready.job.expires_at.is_some_and(|expires_at| expires_at <= now) {
                self.leave_to_sweep(index, ready.place(), now);
                continue;
            }
            slots[at] -= 1;
            let given = self.give(index, ready, now, monotonic)?;
            moved.push((given.job.id, given.job.function.clone(), given.job.state));
            leased.push(given);
        }
        Ok((leased, moved))
    }

    fn can_lease(&self, index: usize) -> bool {
        let function = &self.functions[index];
        !function.stored.paused && function.window.has_ready()
    }

    fn give(&mut self, index: usize, ready: Ready, now: UnixMs, monotonic: Duration) -> Result<Leased, Error> {
        self.serial += 1;
        let Ready { job: mut stored, input } = ready;
        let job = Arc::make_mut(&mut stored);
        let token = LeaseToken { job: job.id, attempt: job.tally.attempts + 1, epoch: self.epoch, serial: self.serial };
        let started_before = job.started_at;
        record::start(job, now)?;
        let leased = Leased { lease: Lease::new(token), job: job.clone(), input: input.clone() };
        let running = Running {
            token,
            job: stored,
            input,
            function: index,
            started_before,
            is_long: false,
            is_settling: false,
            is_cancelling: false,
            given_at: monotonic,
            renewed_at: monotonic,
        };
        self.running.insert(token.job, running);
        self.functions[index].running += 1;
        self.functions[index].served = self.serial;
        Ok(leased)
    }

    /// Renews one lease.
    pub(crate) fn renew(&mut self, token: LeaseToken, monotonic: Duration) -> Renewed {
        let Some(running) = self.running.get_mut(&token.job).filter(|running| running.token == token) else {
            return Renewed { state: LeaseState::Over, is_long_now: false };
        };
        if running.is_over(monotonic) {
            return Renewed { state: LeaseState::Over, is_long_now: false };
        }
        running.renewed_at = monotonic;
        let is_long_now = !running.is_long
            && !running.is_settling
            && monotonic > running.given_at + record::INTERRUPTION_COUNTS_AFTER;
        running.is_long |= is_long_now;
        let state = if running.job.cancel_requested { LeaseState::CancelRequested } else { LeaseState::Held };
        Renewed { state, is_long_now }
    }

    /// The job on which this very lease stands, unless its end is already on the way.
    pub(crate) fn held(&mut self, token: LeaseToken, monotonic: Duration) -> Result<&mut Running, Error> {
        let running = self.running.get_mut(&token.job);
        let is_held = |running: &&mut Running| {
            let is_it = running.token == token || KnownBad::NoFencing.is_made();
            is_it && !running.is_settling && !running.is_over(monotonic)
        };
        running.filter(is_held).ok_or(Error::StaleLease(token.job))
    }

    /// Jobs whose lease has run out, with their function and whether the attempt is long; the oldest first. Nobody can
    /// renew or settle them any more, so they need no mark.
    pub(crate) fn overdue(&self, monotonic: Duration) -> Vec<(usize, Job, bool)> {
        let overdue = self.running.values().filter(|running| running.is_over(monotonic));
        let mut overdue: Vec<_> =
            overdue.map(|running| (running.function, (*running.job).clone(), running.is_long)).collect();
        overdue.sort_by_key(|(_, job, _)| job.id);
        overdue
    }

    /// Takes a job whose attempt has ended out of the overlay.
    pub(crate) fn end(&mut self, id: JobId) -> Option<Running> {
        let running = self.running.remove(&id)?;
        self.functions[running.function].running -= 1;
        Some(running)
    }
}
