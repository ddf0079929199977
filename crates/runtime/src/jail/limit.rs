//! The limits of a function: memory by a cgroup where we may make one, by `RLIMIT_DATA` otherwise; processes by a cgroup,
//! or not at all (`RLIMIT_NPROC` counts all that a user has, and does not hold for root).
//!
//! A child inherits both, so the jail puts itself under the limit, spawns, and steps out again: the function is limited
//! from its first instruction, and the jail is never what the kernel kills.
//!
//! Our allocator reserves a gigabyte, more than many a limit. Under it the jail can map nothing new, and that is what
//! `posix_spawn` does for the child's stack; see [`Limit::is_below_us`].

use rustix::process::{Pid, Resource, Rlimit};

use super::cgroup::Cgroup;
use super::leash::LimitKind;
use super::task::{MemoryLimit, Task};

/// The limits in force.
#[derive(Debug)]
pub(super) struct Limit {
    cgroup: Cgroup,
    data: Option<Data>,
}

/// `RLIMIT_DATA`, and what it was before.
#[derive(Debug)]
struct Data {
    bytes: u64,
    before: Rlimit,
}

// === impl Limit ===

impl Limit {
    /// Puts this process under the limits.
    pub(super) fn enter(task: &Task) -> Self {
        let cgroup = Cgroup::enter(task.memory.and_then(|memory| memory.used), task.processes);
        let data = if cgroup.limits_memory() { None } else { task.memory.as_ref().and_then(Data::enter) };
        Self { cgroup, data }
    }

    /// Takes this process out again and nails the child down.
    pub(super) fn leave(&self, child: Option<Pid>) {
        self.cgroup.leave();
        if let Some(data) = &self.data {
            data.leave(child);
        }
    }

    /// How memory is limited.
    pub(super) fn kind(&self) -> LimitKind {
        match self.data {
            _ if self.cgroup.limits_memory() => LimitKind::Cgroup,
            Some(_) => LimitKind::Rlimit,
            None => LimitKind::None,
        }
    }

    /// Whether the jail is under a limit in which it can fork, but not `posix_spawn`.
    pub(super) fn is_below_us(&self) -> bool {
        self.data.is_some()
    }

    /// Kills everything at once, where the kernel can do that.
    pub(super) fn kill(&self) {
        self.cgroup.kill();
    }

    /// Whether the kernel killed something at the memory limit.
    pub(super) fn was_hit(&self) -> bool {
        self.cgroup.killed_for_memory()
    }

    pub(super) fn remove(self) {
        self.cgroup.remove();
    }
}

// === impl Data ===

impl Data {
    fn enter(memory: &MemoryLimit) -> Option<Self> {
        let before = rustix::process::getrlimit(Resource::Data);
        let bytes = before.maximum.map_or(memory.reserved, |maximum| memory.reserved.min(maximum));
        let limit = Rlimit { current: Some(bytes), maximum: before.maximum };
        rustix::process::setrlimit(Resource::Data, limit).ok().map(|()| Self { bytes, before })
    }

    fn leave(&self, child: Option<Pid>) {
        let limit = Rlimit { current: Some(self.bytes), maximum: Some(self.bytes) };
        _ = child.map(|child| rustix::process::prlimit(Some(child), Resource::Data, limit));
        _ = rustix::process::setrlimit(Resource::Data, self.before);
    }
}
