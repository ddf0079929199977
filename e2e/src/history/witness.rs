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
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use super::Millis;

/// The `timeout` of each function that keeps the log.
pub const TIMEOUT: Duration = Duration::from_secs(3600);

/// The log, seen from the folder of the functions: beside it, because what lies in it is their code.
pub const FILE: &str = "../witness";

/// `witness.py` for Python functions: `with witness.run(ctx, note): …`, then `return witness.result(ctx)`.
pub const PYTHON: &str = "\
import contextlib, os

FILE = os.open('../witness', os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

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

def result(ctx):
    return f'{ctx.job_id} {ctx.attempt} {ctx.deadline_ms}\\n'.encode()
";

/// `witness.sh` for programs: `. ./witness.sh`, then `started NOTE`, then `ended NOTE ok` or `ended NOTE failed`, then `result`.
pub const SHELL: &str = "\
started() { echo \"start $KVERN_JOB_ID $KVERN_ATTEMPT $1 $KVERN_DEADLINE_MS\" >>../witness; }
ended() { echo \"end $KVERN_JOB_ID $KVERN_ATTEMPT $1 $KVERN_DEADLINE_MS $2\" >>../witness; }
result() { echo \"$KVERN_JOB_ID $KVERN_ATTEMPT $KVERN_DEADLINE_MS\"; }
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

// === impl Run ===

impl Run {
    /// The first line of its result, if it gives what `result` of [`PYTHON`] or [`SHELL`] says: the job, the attempt, the deadline.
    #[must_use]
    pub fn result(&self) -> String {
        format!("{} {} {}", self.job, self.attempt, self.began + timeout())
    }
}

fn timeout() -> Millis {
    Millis::try_from(TIMEOUT.as_millis()).expect("an hour")
}

/// Reads the log in this folder, which may not be there yet.
///
/// # Errors
/// The first line that is not as it should be, or an end without a start.
pub fn read(home: &Path) -> Result<Vec<Run>, String> {
    parse(&std::fs::read_to_string(home.join(FILE)).unwrap_or_default())
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
                let began = deadline.saturating_sub(timeout());
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

/// How long the log is now.
#[must_use]
pub fn length(home: &Path) -> u64 {
    std::fs::metadata(home.join(FILE)).map_or(0, |file| file.len())
}

/// Whether a run that the server began since then is in the log, after so many bytes of it.
#[must_use]
pub fn has_begun(home: &Path, after: u64, since: Millis) -> bool {
    let mut text = String::new();
    let file = File::open(home.join(FILE)).and_then(|mut file| file.seek(SeekFrom::Start(after)).map(|_| file));
    let _ = file.and_then(|mut file| file.read_to_string(&mut text));
    let deadline = |line: &str| line.strip_prefix("start ")?.split(' ').nth(3)?.parse::<Millis>().ok();
    text.lines().filter_map(deadline).any(|deadline| deadline >= since + timeout())
}

fn end(how: &str) -> Option<End> {
    match how {
        "ok" => Some(End::Ok),
        "failed" => Some(End::Failed),
        _ => None,
    }
}
