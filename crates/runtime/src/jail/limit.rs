//! The memory limit of a function: a cgroup where we may make one, `RLIMIT_DATA` otherwise.
//!
//! A child inherits both, so the jail puts itself under the limit, spawns, and steps out again: the function is limited
//! from its first instruction, and the jail is never what the kernel kills.

use rustix::process::{Pid, Resource, Rlimit};

use super::cgroup::Cgroup;
use super::leash::LimitKind;
use super::task::MemoryLimit;

/// The limit in force.
#[derive(Debug)]
pub(super) enum Limit {
    None,
    Cgroup(Cgroup),
    Rlimit { bytes: u64, before: Rlimit },
}

impl Limit {
    /// Puts this process under the limit.
    pub(super) fn enter(memory: Option<&MemoryLimit>) -> Self {
        let Some(memory) = memory else { return Self::None };
        if let Some(cgroup) = memory.used.and_then(Cgroup::enter) {
            return Self::Cgroup(cgroup);
        }
        let before = rustix::process::getrlimit(Resource::Data);
        let bytes = before.maximum.map_or(memory.reserved, |maximum| memory.reserved.min(maximum));
        let limit = Rlimit { current: Some(bytes), maximum: before.maximum };
        match rustix::process::setrlimit(Resource::Data, limit) {
            Ok(()) => Self::Rlimit { bytes, before },
            Err(_) => Self::None,
        }
    }

    /// Takes this process out again and nails the child down.
    pub(super) fn leave(&self, child: Option<Pid>) {
        match self {
            Self::None => {}
            Self::Cgroup(cgroup) => cgroup.leave(),
            Self::Rlimit { bytes, before } => {
                let limit = Rlimit { current: Some(*bytes), maximum: Some(*bytes) };
                _ = child.map(|child| rustix::process::prlimit(Some(child), Resource::Data, limit));
                _ = rustix::process::setrlimit(Resource::Data, *before);
            }
        }
    }

    pub(super) fn kind(&self) -> LimitKind {
        match self {
            Self::None => LimitKind::None,
            Self::Cgroup(_) => LimitKind::Cgroup,
            Self::Rlimit { .. } => LimitKind::Rlimit,
        }
    }

    /// Kills everything at once, where the kernel can do that.
    pub(super) fn kill(&self) {
        if let Self::Cgroup(cgroup) = self {
            cgroup.kill();
        }
    }

    /// Whether the kernel killed something at this limit.
    pub(super) fn was_hit(&self) -> bool {
        matches!(self, Self::Cgroup(cgroup) if cgroup.killed_for_memory())
    }

    pub(super) fn remove(self) {
        if let Self::Cgroup(cgroup) = self {
            cgroup.remove();
        }
    }
}
