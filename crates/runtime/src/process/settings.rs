//! What the process runtime is told.

use std::ffi::OsString;
use std::time::Duration;

use kvern_core::limits::{PROCESSES_MAX, STOP_GRACE};

use crate::prepare;

/// How long an instance may take until it is ready, unless the settings say otherwise: imports read from a cold disk.
const START_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);

/// What the process runtime is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The data directory, the interpreters and the jail.
    pub prepare: prepare::Settings,
    /// The functions' `PATH`.
    pub path: OsString,
    /// The functions' `HOME`.
    pub home: OsString,
    /// The functions' `LANG`.
    pub lang: OsString,
    /// Time between TERM and KILL for an attempt past its deadline.
    pub grace: Duration,
    /// How long an instance may take until it is ready.
    pub start_timeout: Duration,
    /// Whether limits are kept with cgroups where that is permitted; otherwise memory is limited with `RLIMIT_DATA`, and
    /// processes are not.
    pub use_cgroups: bool,
    /// How many processes and threads an instance may have.
    pub processes_max: u32,
}

// === impl Settings ===

impl Settings {
    /// Settings with this server's own environment.
    #[must_use]
    pub fn new(prepare: prepare::Settings) -> Self {
        let variable = |name: &str, default: &str| std::env::var_os(name).unwrap_or_else(|| default.into());
        Self {
            prepare,
            path: variable("PATH", "/usr/local/bin:/usr/bin:/bin"),
            home: variable("HOME", "/"),
            lang: variable("LANG", "C.UTF-8"),
            grace: STOP_GRACE,
            start_timeout: START_TIMEOUT_DEFAULT,
            use_cgroups: true,
            processes_max: PROCESSES_MAX,
        }
    }

    /// The limit on processes that a jail is told.
    pub(super) fn processes(&self) -> Option<u32> {
        self.use_cgroups.then_some(self.processes_max)
    }
}
