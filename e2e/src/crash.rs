//! The crash harness: clients that work without a pause, a server that is killed with -9 over and over, and a judge that
//! asks neither of them alone.
//!
//! [`random_kills`] kills at moments that nobody chose, while 50 and more jobs run. [`kills_at_every_write`] has the
//! kernel's own debugger kill the server at its Nth write, sync or answer, for each N. [`kills_of_either`] has gateway and
//! worker as two processes, and kills now one and now the other. All end with a [`Report`], which
//! the [judge](mod@crate::history::check) has written. The seed of a run decides what clients and killer draw; the machine
//! decides the rest.

use std::time::Duration;

mod clients;
mod evidence;
mod figures;
mod functions;
mod points;
mod random;
mod random_kills;
mod report;
mod two_processes;

pub use points::kills_at_every_write;
pub use random_kills::random_kills;
pub use report::Report;
pub use two_processes::kills_of_either;

/// From so many running jobs on, a kill counts as one in the middle of the work.
pub const BUSY: u64 = 50;
/// For whatever runs, or waits to run, once the clients have stopped.
pub const FINISH: Duration = Duration::from_secs(300);
/// For a job to run again after a restart.
const AGAIN_WITHIN: Duration = Duration::from_secs(120);

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub struct Length {
    /// Random kills.
    pub kills: usize,
    /// Points at which the server is killed, of each system call; none: all of them.
    pub points: Option<usize>,
    /// What decides all draws.
    pub seed: u64,
    /// How long everything may take to finish in the end.
    pub finish: Duration,
}

// === impl Length ===

impl Length {
    /// The short form, or what `KILLS`, `POINTS` (a number, or `all`), `SEED` and `FINISH` (seconds) say.
    ///
    /// # Panics
    /// If one of them is not a number.
    #[must_use]
    pub fn from_environment(short: Self) -> Self {
        let number = |name: &str| {
            let text = std::env::var(name).ok()?;
            Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
        };
        let points = match std::env::var("POINTS").as_deref() {
            Ok("all") => None,
            _ => number("POINTS").map_or(short.points, |points| usize::try_from(points).ok()),
        };
        let kills = number("KILLS").and_then(|kills| usize::try_from(kills).ok()).unwrap_or(short.kills);
        let finish = number("FINISH").map_or(short.finish, Duration::from_secs);
        Self { kills, points, seed: number("SEED").unwrap_or(short.seed), finish }
    }
}
