//! The log that functions keep of what they did: a line when a run begins and one when it ends, each written at once to a
//! file that is opened for appending.
//!
//! ```text
//! start 0192f3a1-7c3e-7a41-9d0e-5b2f4c1b7e55 1 17 1764230400123
//! end 0192f3a1-7c3e-7a41-9d0e-5b2f4c1b7e55 1 17 1764230400123 ok
//! ```
//!
//! Job, attempt, note of the client, deadline. The deadline is the server's time at the start and [`TIMEOUT`]: it tells
//! two runs of the same attempt apart, and says in which life of the server each began.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use super::Millis;

/// The `timeout` of each function that keeps the log.
pub const TIMEOUT: Duration = Duration::from_secs(3600);

/// The name of the log, in the folder of the functions.
pub const FILE: &str = "witness";

/// `witness.py` for Python functions: `with witness.run(ctx, note): …`.
pub const PYTHON: &str = "\
import contextlib, os

FILE = os.open('witness', os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

def say(what, ctx, note, *more):
    words = [what, ctx.job_id, ctx.attempt, note, ctx.deadline_ms, *more]
    os.write(FILE, (' '.join(map(str, words)) + '\\n').encode())

@contextlib.contextmanager
def run(ctx, note):
    say('start', ctx, note)
    try:
        yield
    except BaseException:
        say('end', ctx, note, 'failed')
        raise
    say('end', ctx, note, 'ok')
";

/// `witness.sh` for programs: `. ./witness.sh`, then `started NOTE`, then `ended NOTE ok` or `ended NOTE failed`.
pub const SHELL: &str = "\
started() { echo \"start $KVERN_JOB_ID $KVERN_ATTEMPT $1 $KVERN_DEADLINE_MS\" >>witness; }
ended() { echo \"end $KVERN_JOB_ID $KVERN_ATTEMPT $1 $KVERN_DEADLINE_MS $2\" >>witness; }
";

/// How a run ended by its own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It did its work.
    Ok,
    /// It failed.
    Failed,
}

/// One run of an attempt. A server that died may not have kept that it ran; then the attempt runs once more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The job.
    pub job: String,
    /// The number of the attempt.
    pub attempt: u64,
    /// The note that the client put into the job.
    pub note: u64,
    /// When the server began it.
    pub began: Millis,
    /// How it ended; none if it was cut off.
    pub end: Option<End>,
}

/// Reads a log that may not be there yet. What is no line of it is given back as the error.
///
/// # Errors
/// The first line that is not as it should be, or an end without a start.
pub fn read(path: &Path) -> Result<Vec<Run>, String> {
    parse(&std::fs::read_to_string(path).unwrap_or_default())
}

/// [`read`], of the text.
///
/// # Errors
/// See [`read`].
pub fn parse(text: &str) -> Result<Vec<Run>, String> {
    let mut runs: Vec<Run> = Vec::new();
    let mut places: HashMap<(&str, u64, Millis), usize> = HashMap::new();
    for line in text.lines() {
        let wrong = || format!("the witness wrote `{line}`");
        let words: Vec<&str> = line.split(' ').collect();
        let (&[what, job, attempt, note, deadline], more) = words.split_first_chunk().ok_or_else(wrong)?;
        let number = |word: &str| word.parse::<u64>().map_err(|_| wrong());
        let (attempt, note, deadline) = (number(attempt)?, number(note)?, number(deadline)?);
        let place = (job, attempt, deadline);
        match (what, more) {
            ("start", []) => {
                let began = deadline.saturating_sub(u64::try_from(TIMEOUT.as_millis()).expect("an hour"));
                // Twice the same would be two runs in one millisecond: both are kept, and judged.
                places.insert(place, runs.len());
                runs.push(Run { job: job.to_owned(), attempt, note, began, end: None });
            }
            ("end", [how]) => {
                let run = places.get(&place).map(|at| &mut runs[*at]).filter(|run| run.end.is_none());
                run.ok_or_else(wrong)?.end = Some(end(how).ok_or_else(wrong)?);
            }
            _ => return Err(wrong()),
        }
    }
    Ok(runs)
}

fn end(how: &str) -> Option<End> {
    match how {
        "ok" => Some(End::Ok),
        "failed" => Some(End::Failed),
        _ => None,
    }
}
