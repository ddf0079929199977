//! The limit on open files: every connection, pipe and stored file of the server counts against it.

use kvern_core::limits::{FILES_PER_SLOT, FILES_RESERVED};
use kvern_gateway::Limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit as far as the system lets us, and lowers the bound on connections to what it leaves room for. Many
/// systems give a process 1024 and allow it far more.
pub(crate) fn fit(limits: Limits, slots: usize) -> Limits {
    let open_files = raised();
    let wanted = limits.connections;
    let limits = limits.fitted_to(open_files, slots);
    if limits.connections < wanted {
        tracing::warn!(
            connections = limits.connections,
            wanted,
            open_files,
            "fewer connections than wanted: the limit on open files is low (`ulimit -Hn`, or LimitNOFILE= of systemd)"
        );
    }
    limits
}

/// Raises the limit for a process that has `slots` and no clients.
pub(crate) fn raise_for(slots: usize) {
    let wanted = FILES_RESERVED + FILES_PER_SLOT * slots as u64;
    let open_files = raised();
    if open_files < wanted {
        tracing::warn!(
            open_files,
            wanted,
            "the limit on open files is low for so many slots (`ulimit -Hn`, or LimitNOFILE= of systemd)"
        );
    }
}

fn raised() -> u64 {
    let before = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: before.maximum, maximum: before.maximum };
    let limit = match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => wanted,
        Err(error) => {
            tracing::warn!(%error, "the limit on open files cannot be raised");
            before
        }
    };
    limit.current.unwrap_or(u64::MAX)
}
