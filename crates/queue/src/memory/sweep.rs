//! The sweep of the queue in memory: expiry, then overdue leases, then retention.

use std::time::Duration;

use kvern_core::limits::IDEMPOTENCY_KEEP;
use kvern_core::{FunctionName, Job, JobId, Keep, State, UnixMs};

use super::store::Store;
use crate::error::Error;
use crate::job::{Retention, Swept};
use crate::list::place;
use crate::record;

impl Store {
    pub(super) fn sweep(
        &mut self,
        retention: &Retention,
        limit: usize,
        now: UnixMs,
        monotonic: Duration,
    ) -> Result<Swept, Error> {
        let mut left = limit;
        let mut swept = Swept::default();

        let expired = self.ids(|entry| record::is_expired(&entry.job, now));
        for id in take(&expired, &mut left, &mut swept) {
            self.change(*id, |entry| record::expire(&mut entry.job, now))?;
            swept.expired += 1;
        }
        let overdue = self.ids(|entry| entry.lease.as_ref().is_some_and(|lease| lease.is_over(monotonic)));
        for id in take(&overdue, &mut left, &mut swept) {
            self.rescue(*id, now)?;
            swept.rescued += 1;
        }
        let over_age = self.ids(|entry| is_over_age(&entry.job, retention, now));
        for id in take(&over_age, &mut left, &mut swept) {
            self.forget(*id);
            swept.forgotten += 1;
        }
        let over_size = self.over_size(retention);
        for id in take(&over_size, &mut left, &mut swept) {
            self.forget(*id);
            swept.forgotten += 1;
        }
        self.forget_keys(now);
        Ok(swept)
    }

    /// Of each function whose finished jobs take too much, the oldest that must go.
    fn over_size(&self, retention: &Retention) -> Vec<JobId> {
        let mut gone = Vec::new();
        for (function, stats) in self.stats().functions {
            let mut taken = stats.finished_bytes;
            let mut finished: Vec<_> = self.jobs.values().filter(|entry| entry.job.function == function).collect();
            finished.retain(|entry| entry.job.state.is_final());
            finished.sort_by_key(|entry| place(&entry.job));
            for entry in finished {
                if taken <= keep(&function, retention).bytes {
                    break;
                }
                taken -= entry.bytes();
                gone.push(entry.job.id);
            }
        }
        gone
    }

    /// Forgets a job before its time.
    pub(super) fn forget_finished(&mut self, id: JobId) -> Result<(), Error> {
        let state = self.entry(id)?.job.state;
        if !state.is_final() {
            return Err(Error::WrongState { id, state });
        }
        self.forget(id);
        Ok(())
    }

    fn forget(&mut self, id: JobId) {
        let Some(entry) = self.jobs.remove(&id) else { return };
        for key in self.keys.values_mut().filter(|key| key.id == id) {
            key.state_if_forgotten = entry.job.state;
        }
    }

    /// A key lives as long as its job, and at least its own time.
    fn forget_keys(&mut self, now: UnixMs) {
        let jobs = &self.jobs;
        self.keys.retain(|_, key| jobs.contains_key(&key.id) || key.id.accepted_at().after(IDEMPOTENCY_KEEP) > now);
    }
}

/// As much of the work as the limit leaves, and a note if that is not all.
fn take<'a>(ids: &'a [JobId], left: &mut usize, swept: &mut Swept) -> &'a [JobId] {
    let now = ids.len().min(*left);
    *left -= now;
    swept.more |= now < ids.len();
    &ids[..now]
}

fn keep(function: &FunctionName, retention: &Retention) -> Keep {
    retention.iter().find(|(named, _)| named == function).map(|(_, keep)| *keep).unwrap_or_default()
}

fn is_over_age(job: &Job, retention: &Retention, now: UnixMs) -> bool {
    let keep = keep(&job.function, retention);
    let age_max = match job.state {
        State::Succeeded => keep.succeeded,
        State::Failed | State::Cancelled => keep.failed,
        State::Scheduled | State::Queued | State::Running => return false,
    };
    job.finished_at.is_some_and(|at| at.after(age_max) <= now)
}
