//! `kvern reload`: SIGUSR1 to the server that holds a data directory, and how the reload went.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::cli::{Format, Global, Reload};
use crate::exit::{Code, Outcome, Stop};
use crate::reloads::{End, Reloads};
use crate::{config, print, reloads};

/// As long as installing the requirements of a few functions may take.
const END_WITHIN: Duration = Duration::from_secs(15 * 60);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const GOES_ON: &str = "not reloaded; what ran before goes on";

/// Finds the server by the lock on its data directory, sends the signal, and waits for the end of the reload.
pub(crate) fn run(global: &Global, reload: &Reload) -> Outcome {
    let data = match &reload.data {
        Some(data) => data.clone(),
        None => config::data_dir()?,
    };
    let Some(pid) = kvern_queue_sqlite::holder(&data) else { return Err(no_server(&data)) };
    let Some(before) = reloads::read(&data, pid) else {
        return Err(Stop::new(Code::Conflict, format!("process {pid} takes no reload now"))
            .hint("it takes one once it is ready"));
    };
    signal(pid)?;
    let end = wait_for_end(&data, &before)?;
    judge(&end)?;
    match global.output {
        Format::Table => {
            let names: Vec<&str> = end.functions.iter().map(|function| function.name.as_str()).collect();
            print::say(&format!("reloaded: {}", names.join(", ")));
        }
        Format::Json => print::json(&serde_json::json!({ "functions": end.functions })),
    }
    Ok(())
}

fn no_server(data: &Path) -> Stop {
    Stop::new(Code::NotFound, format!("no server runs on the data directory {}", data.display())).hint(
        "name its data directory with --data DIR; that of `kvern dev` is .kvern in its folder, and a worker apart from \
               its gateway has its own",
    )
}

fn signal(pid: u32) -> Outcome {
    let known = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let sent = known.map(|pid| kill_process(pid, Signal::USR1));
    match sent {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => Err(Stop::new(Code::NotAllowed, format!("cannot signal process {pid}: {error}"))
            .hint("reload as the user who runs the server")),
        None => Err(Stop::failed(format!("{pid} is not the id of a process"))),
    }
}

/// The end of a reload that began after `before` was read.
fn wait_for_end(data: &Path, before: &Reloads) -> Result<End, Stop> {
    let began = Instant::now();
    while began.elapsed() < END_WITHIN {
        if let Some(now) = reloads::read(data, before.pid)
            && now.ended > before.begun
        {
            return Ok(now.end);
        }
        if kvern_queue_sqlite::holder(data) != Some(before.pid) {
            return Err(Stop::failed(format!("the server, process {}, ended before it had reloaded", before.pid)));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Err(Stop::new(Code::TimedOut, "the reload has not ended yet").hint("the log of the server says how it goes"))
}

/// A reload that changed less than it was asked to has failed.
fn judge(end: &End) -> Outcome {
    if let Some(mistakes) = &end.mistakes {
        return Err(Stop::page(mistakes.as_str()).hint(GOES_ON));
    }
    let broken = end.functions.iter().filter_map(|function| Some((&function.name, function.error.as_ref()?)));
    let broken: Vec<String> = broken.map(|(name, error)| format!("`{name}`: {error}")).collect();
    match &broken[..] {
        [] => Ok(()),
        [first, others @ ..] => Err(others.iter().fold(Stop::failed(first), Stop::hint).hint(GOES_ON)),
    }
}
