//! `kvern reload`: SIGHUP to the server that holds a data directory.

use rustix::process::{Pid, Signal, kill_process};

use crate::cli::Reload;
use crate::config;
use crate::exit::{Code, Outcome, Stop};
use crate::print;

/// Finds the server by the lock on its data directory and sends the signal.
pub(crate) fn run(reload: &Reload) -> Outcome {
    let data = match &reload.data {
        Some(data) => data.clone(),
        None => config::data_dir()?,
    };
    let holder = kvern_queue_sqlite::holder(&data).and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    let Some(pid) = holder else {
        return Err(Stop::new(Code::NotFound, format!("no server runs on the data directory {}", data.display()))
            .hint("name its data directory with --data DIR"));
    };
    kill_process(pid, Signal::HUP).map_err(|error| {
        Stop::new(Code::NotAllowed, format!("cannot signal process {}: {error}", pid.as_raw_nonzero()))
            .hint("reload as the user who runs the server")
    })?;
    print::say(&format!("told process {} to reload; its log says how that went", pid.as_raw_nonzero()));
    Ok(())
}
