//! Leases of the queue in memory: who gets which job, who still holds it, and how an attempt ends.

use std::cmp::Reverse;
use std::time::Duration;

use kvern_core::limits::LEASE_TTL;
use kvern_core::{FunctionName, JobId, ResultInfo, State, UnixMs};

use super::store::{Entry, Holding, Store};
use crate::error::Error;
use crate::job::{Ask, Lease, LeaseState, LeaseToken, Leased, Settlement};
use crate::log::fitting;
use crate::payload::Stored;
use crate::record;

impl Store {
    pub(super) fn lease(&mut self, ask: &Ask, now: UnixMs, monotonic: Duration) -> Result<Vec<Leased>, Error> {
        let mut slots: Vec<(&FunctionName, usize)> =
            ask.wants.iter().map(|want| (&want.function, want.slots)).collect();
        let mut leased = Vec::new();
        while leased.len() < ask.max {
            let free = slots.iter_mut().filter(|(_, slots)| *slots > 0);
            let ready = free.filter_map(|(function, slots)| Some((self.first_ready(function, now)?, function, slots)));
            let longest_without = ready.min_by_key(|(_, function, _)| self.turns.get(&***function).copied());
            let Some((id, _, slots)) = longest_without else { break };
            *slots -= 1;
            leased.push(self.give(id, now, monotonic)?);
        }
        Ok(leased)
    }

    /// When to look again for a job that nobody will announce: the next due time among the functions asked for.
    pub(super) fn next_due(&self, ask: &Ask) -> UnixMs {
        let is_wanted = |function: &FunctionName| ask.wants.iter().any(|want| want.function == *function);
        let jobs = self.jobs.values().map(|entry| &entry.job).filter(|job| is_wanted(&job.function));
        jobs.filter_map(|job| job.due_at).min().unwrap_or(UnixMs(u64::MAX))
    }

    fn first_ready(&self, function: &FunctionName, now: UnixMs) -> Option<JobId> {
        if self.paused.contains(function) {
            return None;
        }
        let jobs = self.jobs.values().map(|entry| &entry.job);
        let ready =
            jobs.filter(|job| job.function == *function && job.state == State::Queued && !record::is_expired(job, now));
        ready.min_by_key(|job| (Reverse(job.priority), job.id)).map(|job| job.id)
    }

    fn give(&mut self, id: JobId, now: UnixMs, monotonic: Duration) -> Result<Leased, Error> {
        self.serial += 1;
        let (epoch, serial) = (self.epoch, self.serial);
        let leased = self.change(id, |entry| {
            let token = LeaseToken { job: id, attempt: entry.job.tally.attempts + 1, epoch, serial };
            let started_before = entry.job.started_at;
            record::start(&mut entry.job, now)?;
            entry.lease =
                Some(Holding { token, given_at: monotonic, renewed_at: monotonic, is_long: false, started_before });
            Ok(Leased { lease: Lease::new(token), job: entry.job.clone(), input: entry.input.clone() })
        })?;
        self.turns.insert(leased.job.function.clone(), serial);
        Ok(leased)
    }

    pub(super) fn renew(&mut self, token: LeaseToken, monotonic: Duration) -> LeaseState {
        let Ok(entry) = self.held(token, monotonic) else { return LeaseState::Over };
        let is_cancel_requested = entry.job.cancel_requested;
        if let Some(holding) = &mut entry.lease {
            holding.renewed_at = monotonic;
            holding.is_long |= monotonic > holding.given_at + record::INTERRUPTION_COUNTS_AFTER;
        }
        if is_cancel_requested { LeaseState::CancelRequested } else { LeaseState::Held }
    }

    pub(super) fn append_log(&mut self, token: LeaseToken, bytes: &[u8], monotonic: Duration) -> Result<(), Error> {
        append(&mut self.held(token, monotonic)?.log, bytes);
        Ok(())
    }

    pub(super) fn settle(
        &mut self,
        token: LeaseToken,
        settlement: Settlement,
        now: UnixMs,
        monotonic: Duration,
    ) -> Result<State, Error> {
        self.held(token, monotonic)?;
        self.change(token.job, |entry| {
            match settlement {
                Settlement::Finish { outcome, next, result, attempt, log } => {
                    let info = result.as_ref().map(|(content_type, payload)| ResultInfo {
                        content_type: content_type.clone(),
                        bytes: payload.len(),
                    });
                    record::finish(&mut entry.job, &outcome, next, attempt, info, now)?;
                    // Only a success has a result; the record says whether this is one.
                    if entry.job.result.is_some() {
                        entry.result =
                            result.map(|(content_type, payload)| Stored { content_type: Some(content_type), payload });
                    }
                    append(&mut entry.log, &log);
                }
                Settlement::Release => {
                    let before = entry.lease.as_ref().and_then(|holding| holding.started_before);
                    record::release(&mut entry.job, before, now)?;
                }
            }
            entry.lease = None;
            Ok(())
        })?;
        // A wait that is over already is none.
        self.promote(now);
        Ok(self.entry(token.job)?.job.state)
    }

    /// The lease was lost in a restart: an interruption if the attempt was long, else as if it had not been given.
    pub(super) fn lose(&mut self, id: JobId, now: UnixMs) -> Result<(), Error> {
        self.change(id, |entry| match entry.lease.take() {
            Some(holding) if !holding.is_long => record::release(&mut entry.job, holding.started_before, now),
            _ => record::interrupt(&mut entry.job, now),
        })
    }

    /// The lease ran out: always an interruption.
    pub(super) fn rescue(&mut self, id: JobId, now: UnixMs) -> Result<(), Error> {
        self.change(id, |entry| {
            entry.lease = None;
            record::interrupt(&mut entry.job, now)
        })
    }

    /// The job on which this very lease stands.
    fn held(&mut self, token: LeaseToken, monotonic: Duration) -> Result<&mut Entry, Error> {
        let entry = self.jobs.get_mut(&token.job).ok_or(Error::StaleLease(token.job))?;
        let is_held = entry.lease.as_ref().is_some_and(|held| held.token == token && !held.is_over(monotonic));
        if is_held { Ok(entry) } else { Err(Error::StaleLease(token.job)) }
    }
}

/// Adds to a log what fits.
fn append(log: &mut Vec<u8>, bytes: &[u8]) {
    let (fitting, line) = fitting(log.len() as u64, bytes);
    log.extend_from_slice(fitting);
    log.extend_from_slice(line);
}

// === impl Holding ===

impl Holding {
    pub(super) fn is_over(&self, monotonic: Duration) -> bool {
        monotonic >= self.renewed_at + LEASE_TTL
    }
}
