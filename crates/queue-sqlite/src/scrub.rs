//! Scrub: reads what is stored, slowly and for ever, so that damage is found within a day and not only when the bytes are
//! wanted. Waiting jobs whose input is damaged go to the writer, which fails them; of everything else the log tells.
//!
//! It is made not to be felt. A step every few minutes reads a share of the jobs, so that an idle server sleeps in between;
//! within a step bytes come at a bounded rate; and no read of the database lasts longer than one row, so that the
//! write-ahead log is never held back.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvern_core::State;
use rusqlite::{Connection, Result as SqlResult};

use crate::checksum::{Checker, Looked, Order, Part, keys};
use crate::schema;
use crate::shared::Shared;

/// Everything is read once in this time.
pub(crate) const SCRUB_ROUND: Duration = Duration::from_secs(20 * 3600);
/// Steps in a round where many jobs are stored: one in five minutes. With fewer jobs than that, each has its own step.
const STEPS_MAX: u32 = 240;
/// Steps in a round where hardly any are: one an hour, because more may come.
const STEPS_MIN: u32 = 20;
/// Most bytes a second within a step.
const BYTES_A_SECOND: u64 = 16 << 20;
/// Shorter rests are put together: each one is a wake-up.
const REST_LEAST: Duration = Duration::from_millis(20);
/// Jobs whose keys are read at once.
const KEYS_MAX: usize = 256;
/// Its thread is nicer than the rest of the server by this much.
const NICER_BY: i32 = 10;

const _: () = {
    let longest_step = SCRUB_ROUND.as_secs() / STEPS_MIN as u64;
    assert!(SCRUB_ROUND.as_secs() + longest_step < 24 * 3600, "damage is found within a day");
};

/// The thread. Dropped, it has ended.
#[derive(Debug)]
pub(crate) struct Scrub {
    thread: Option<JoinHandle<()>>,
    end: Arc<Bell>,
}

/// Rings at the end.
#[derive(Debug, Default)]
struct Bell {
    has_rung: Mutex<bool>,
    rings: Condvar,
}

/// What the thread takes with it.
struct Reader {
    shared: Arc<Shared>,
    path: PathBuf,
    round: Duration,
    end: Arc<Bell>,
    /// The last job that was read in this round.
    last: i64,
}

/// Keeps to [`BYTES_A_SECOND`].
struct Pace<'a> {
    end: &'a Bell,
    began: Instant,
    bytes: u64,
}

// === impl Scrub ===

impl Scrub {
    /// Starts to read. A server without a scrub is better than none, so what hinders it is logged.
    pub(crate) fn start(shared: &Arc<Shared>, database: &Path, round: Duration) -> Option<Self> {
        let end = Arc::new(Bell::default());
        let (shared, path) = (Arc::clone(shared), database.to_owned());
        let reader = Reader { shared, path, round, end: Arc::clone(&end), last: 0 };
        let spawned = std::thread::Builder::new().name("queue-scrub".to_owned()).spawn(|| reader.run());
        let thread = spawned.inspect_err(|error| tracing::warn!(%error, "stored bytes will not be read for damage"));
        Some(Self { thread: Some(thread.ok()?), end })
    }
}

impl Drop for Scrub {
    fn drop(&mut self) {
        self.end.ring();
        // A thread that panicked has said so.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

// === impl Bell ===

impl Bell {
    fn ring(&self) {
        *self.has_rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.rings.notify_all();
    }

    /// Waits this long; false if it is the end.
    fn wait(&self, time: Duration) -> bool {
        let has_rung = self.has_rung.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.rings.wait_timeout_while(has_rung, time, |has_rung| !*has_rung);
        !*waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

// === impl Reader ===

impl Reader {
    fn run(mut self) {
        // On Linux a thread has its own. If it cannot be changed, the bounds on what it does are enough.
        let _ = rustix::process::setpriority_process(None, NICER_BY);
        loop {
            let (pause, jobs) = plan(self.jobs_stored(), self.round);
            if !self.end.wait(pause) {
                return;
            }
            if let Err(error) = self.step(jobs) {
                // The next round begins at the first job: what can be read again then will be.
                self.last = 0;
                tracing::error!(%error, "stored jobs cannot be read; `kvern doctor` says more");
            }
        }
    }

    fn jobs_stored(&self) -> u64 {
        let functions = self.shared.memory().stats().functions;
        let counts = functions.iter().map(|(_, stats)| stats);
        counts.map(|all| all.waiting() + all.running + all.succeeded + all.failed + all.cancelled).sum()
    }

    /// Reads so many jobs.
    fn step(&mut self, jobs: u64) -> SqlResult<()> {
        // Opened for each step: between two of them it holds neither memory nor files.
        let connection = schema::open_reader(&self.path)?;
        let mut left = usize::try_from(jobs).unwrap_or(usize::MAX);
        let mut pace = Pace { end: &self.end, began: Instant::now(), bytes: 0 };
        while left > 0 {
            let keys = keys(&connection, Order::Up, self.last, left.min(KEYS_MAX))?;
            if keys.is_empty() {
                self.last = 0;
                return Ok(());
            }
            left -= keys.len();
            for key in keys {
                if let ControlFlow::Break(()) = look(&self.shared, &connection, key, &mut pace)? {
                    return Ok(());
                }
                self.last = key;
            }
        }
        Ok(())
    }
}

/// Reads one job, unless it is the end.
fn look(shared: &Shared, connection: &Connection, key: i64, pace: &mut Pace<'_>) -> SqlResult<ControlFlow<()>> {
    let mut checker = Checker {
        connection,
        blobs: shared.blobs.dir(),
        name: &|function| shared.name(function),
        pace: &mut |bytes| pace.keep(bytes),
    };
    if let Some(looked) = checker.look(key)? {
        tell(shared, &looked);
    }
    Ok(if pace.keep(0) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
}

fn tell(shared: &Shared, looked: &Looked) {
    let Looked { id, state, damaged, .. } = looked;
    for (part, what) in damaged {
        let id = id.map(tracing::field::display);
        tracing::error!(job_id = id, ?part, what, "stored bytes are damaged; `kvern doctor` names all jobs concerned");
        let waits = matches!(state, Some(State::Queued | State::Scheduled));
        if *part == Part::Input && waits {
            shared.tell_damaged(looked.id);
        }
    }
}

/// How long to wait before the next step, and how many jobs it reads, so that a round takes its time.
fn plan(jobs: u64, round: Duration) -> (Duration, u64) {
    let one_each = round / u32::try_from(jobs.max(1)).unwrap_or(u32::MAX);
    let pause = one_each.clamp(round / STEPS_MAX, round / STEPS_MIN);
    let share = u128::from(jobs) * pause.as_nanos();
    let share = share.div_ceil(round.as_nanos().max(1));
    (pause, u64::try_from(share).unwrap_or(u64::MAX).max(1))
}

// === impl Pace ===

impl Pace<'_> {
    /// So many bytes were read: waits if that was too fast. False if it is the end.
    fn keep(&mut self, bytes: u64) -> bool {
        self.bytes += bytes;
        let due = Duration::from_millis(self.bytes * 1000 / BYTES_A_SECOND);
        let ahead = due.saturating_sub(self.began.elapsed());
        self.end.wait(if ahead < REST_LEAST { Duration::ZERO } else { ahead })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_reads_everything_and_seldom_wakes() {
        for jobs in [0, 1, 7, 20, 21, 239, 240, 241, 100_000, 10_000_000, u64::MAX] {
            let (pause, share) = plan(jobs, SCRUB_ROUND);
            assert!(pause >= Duration::from_secs(5 * 60), "{jobs}: every {pause:?}");
            let steps = u128::from(jobs).div_ceil(u128::from(share));
            let takes = steps * pause.as_nanos();
            assert!(takes <= SCRUB_ROUND.as_nanos() + pause.as_nanos(), "{jobs}: {steps} steps of {share}");
        }
    }
}
