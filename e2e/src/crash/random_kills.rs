//! `kill -9` at random moments.

use std::time::{Duration, Instant};

use super::clients::{CLIENTS, Crowd};
use super::random::Random;
use super::report::{Report, Times, median, progress};
use super::{AGAIN_WITHIN, BUSY, Length, evidence, figures, functions};
use crate::history::{Millis, now, witness};
use crate::server::Server;
use crate::wait::{until_within, within};

/// A kill comes once the functions have written fewer further bytes than this: about 70 for each start and each end, so
/// that as a rule some dozen jobs end between two kills.
const WRITTEN_MAX: u64 = 5_000;
/// After this long it comes in any case.
const BUSY_WITHIN: Duration = Duration::from_secs(20);
/// One kill in so many comes while the server starts.
const EARLY: u64 = 8;
/// It comes within so many milliseconds of the start.
const EARLY_MS: u64 = 400;
/// After so many kills a line says how it goes.
const PROGRESS: usize = 10;

/// Whoever kills the server, and what it saw.
#[derive(Debug)]
struct Killer<'a> {
    server: Server,
    crowd: &'a Crowd,
    random: Random,
    lives: Vec<Millis>,
    /// How many jobs ran at each kill.
    running: Vec<u64>,
    /// How many waited to be tried again at each kill.
    waiting: Vec<u64>,
    ready: Times,
    again: Times,
}

/// Kills the server so often, and judges.
///
/// # Panics
/// If the server does not start, or jobs do not finish in time.
#[must_use]
pub fn random_kills(length: Length) -> Report {
    let began = Instant::now();
    let lives = vec![now()];
    let server = Server::start(&functions::FILES);
    let crowd = Crowd::new(server.http.clone());
    let mut killer = Killer {
        server,
        crowd: &crowd,
        random: Random::of(length.seed, CLIENTS),
        lives,
        running: Vec::new(),
        waiting: Vec::new(),
        ready: Times::default(),
        again: Times::default(),
    };
    crowd.at_work_while(length.seed, || {
        while killer.running.len() < length.kills {
            killer.strike(length.kills);
        }
    });
    let mut report = killer.report(length.finish);
    if report.wrong.is_empty() {
        // At rest, and judged with all the rest. A server that has lost a job already may have lost that one.
        let function = figures::function_killed(&killer.server, &crowd);
        let server = figures::server_killed(&mut killer.server, &crowd, &mut killer.lives);
        report = killer.report(length.finish);
        report.again(&function, &server);
    }
    report.row("seed", length.seed.to_string());
    report.row("time", format!("{} s", began.elapsed().as_secs()));
    report
}

// === impl Killer ===

impl Killer<'_> {
    /// Waits for a moment, kills, and starts again.
    fn strike(&mut self, kills: usize) {
        self.aim();
        let (running, waiting) = self.counts();
        self.kill(running, waiting, kills);
        let logged = witness::length(&self.server.home);
        let launched = self.launch();
        if self.running.len() < kills && self.random.once_in(EARLY) {
            let moment = Duration::from_millis(self.random.below(EARLY_MS));
            let _ = within(moment, || self.server.is_ready().then_some(()));
            self.kill(0, 0, kills);
            let _ = self.launch();
            self.server.wait_until_ready();
            return;
        }
        self.server.wait_until_ready();
        self.ready.push(launched.elapsed());
        let since = self.lives.last().copied().unwrap_or_default();
        let home = self.server.home.clone();
        until_within(AGAIN_WITHIN, "a job to run again", || witness::has_begun(&home, logged, since).then_some(()));
        self.again.push(launched.elapsed());
    }

    /// Waits until enough runs, and then until more has begun and ended; how much, nobody knows before.
    fn aim(&mut self) {
        let _ = within(BUSY_WITHIN, || (self.counts().0 >= BUSY).then_some(()));
        let enough = witness::length(&self.server.home) + self.random.below(WRITTEN_MAX);
        let _ = within(BUSY_WITHIN, || (witness::length(&self.server.home) >= enough).then_some(()));
    }

    /// How many jobs run, and how many wait to be tried again or for their time.
    fn counts(&self) -> (u64, u64) {
        let functions = self.server.http.get("/v1/functions").json();
        let soon = functions["functions"].as_array().into_iter().flatten();
        let soon: Vec<_> = soon.filter(|f| functions::SOON.iter().any(|name| f["name"] == *name)).collect();
        let sum = |state: &str| soon.iter().filter_map(|function| function["jobs"][state].as_u64()).sum();
        (sum("running"), sum("scheduled"))
    }

    fn kill(&mut self, running: u64, waiting: u64, kills: usize) {
        self.server.kill();
        self.running.push(running);
        self.waiting.push(waiting);
        let done = self.running.len();
        if done.is_multiple_of(PROGRESS) {
            progress(&format!(
                "kill {done} of {kills}: {running} jobs ran, {} requests so far",
                self.crowd.client.history.requests()
            ));
        }
    }

    fn launch(&mut self) -> Instant {
        self.lives.push(now());
        self.server.launch(&[]);
        Instant::now()
    }

    /// Judges what has been, once all of it has finished.
    fn report(&mut self, finish: Duration) -> Report {
        let is_quiet = evidence::quiet(&self.crowd.client.http, finish);
        let mut report = Report::judge("random kills", &self.server, self.crowd, &self.lives, is_quiet);
        report.kills = self.running.len();
        report.busy = self.running.iter().filter(|running| **running >= BUSY).count();
        let (ran, waited) = (median(&mut self.running), median(&mut self.waiting));
        report.row("kills", format!("{}, {} of them while {BUSY} or more jobs ran", report.kills, report.busy));
        report.row("at a kill", format!("{ran} jobs ran and {waited} waited for their time (medians)"));
        report.row("server killed: it answers again after", self.ready.to_string());
        report.row("server killed: the first job runs after", self.again.to_string());
        report
    }
}
