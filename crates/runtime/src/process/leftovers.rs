//! What a server that died has left behind.
//!
//! Its jails saw the end of the leash and are killing their functions already; here we wait for them, so that no job of
//! theirs is leased while its old attempt may still run, and finish what they could not.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::jail::record::{self, Recorded};

/// How long the jails get to finish by themselves, and what we killed to be gone.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Kills and waits for everything that `run/jails` names, then empties `run/jails` and `run/tmp`.
pub(super) async fn clean_up(run: &Path) {
    let entries: Vec<_> = fs::read_dir(record::folder(run)).into_iter().flatten().flatten().collect();
    let left = || entries.iter().flat_map(|entry| Recorded::read(&entry.path())).filter_map(Recorded::alive).count();
    if !gone_within_patience(left).await {
        let processes: usize = entries.iter().map(|entry| record::kill(&entry.path())).sum();
        tracing::warn!(processes, "killed what an earlier server had left behind");
        if !gone_within_patience(left).await {
            tracing::error!("processes of an earlier server outlive KILL");
        }
    }
    for entry in entries {
        record::remove(&entry.path());
    }
    for entry in fs::read_dir(run.join("tmp")).into_iter().flatten().flatten() {
        // Folders of functions and installers, files of calls.
        let path = entry.path();
        _ = if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        };
    }
}

async fn gone_within_patience(left: impl Fn() -> usize) -> bool {
    let until = Instant::now() + PATIENCE;
    while left() > 0 {
        if Instant::now() > until {
            return false;
        }
        sleep(LOOK_EVERY).await;
    }
    true
}
