//! `kill -9` of gateway and worker as two processes, now of one, now of the other, now of both.
//!
//! To the judge a kill of either is the end of a life: what ran under a lease may run again. Nothing else may.

use std::time::{Duration, Instant};

use super::clients::{CLIENTS, Crowd};
use super::random::Random;
use super::report::{Report, Times};
use super::{AGAIN_WITHIN, Length, evidence, functions};
use crate::history::{Millis, now, witness};
use crate::server::Server;
use crate::wait::{until_within, within};
use crate::worker::Worker;

/// A kill comes once the functions have written fewer further bytes than this, or after a while in any case.
const WRITTEN_MAX: u64 = 4_000;
const BUSY_WITHIN: Duration = Duration::from_secs(20);
/// Enough jobs for a kill.
const RUNS: u64 = 8;
/// A job that is leased begins sooner than this.
const BEGUN_WITHIN: Duration = Duration::from_millis(400);

/// Kills one of the two processes so often, and judges.
///
/// # Panics
/// If one does not start, or jobs do not finish in time.
#[must_use]
pub fn kills_of_either(length: Length) -> Report {
    let began = Instant::now();
    let mut lives = vec![now()];
    let mut gateway = Server::start_with(&functions::FILES, &["--role", "gateway"]);
    let mut worker = Worker::beside(&gateway);
    let crowd = Crowd::new(gateway.http.clone());
    let (mut random, mut again) = (Random::of(length.seed, CLIENTS), Times::default());
    crowd.at_work_while(length.seed, || {
        for kill in 0..length.kills {
            aim(&gateway, &mut random);
            let logged = witness::length(&gateway.home);
            let killed = Instant::now();
            match kill % 3 {
                0 => end(&mut gateway, None, &mut lives),
                1 => end_worker(&mut worker, &mut lives),
                _ => end(&mut gateway, Some(&mut worker), &mut lives),
            }
            let (since, home) = (lives.last().copied().unwrap_or_default(), gateway.home.clone());
            until_within(AGAIN_WITHIN, "a job to run", || witness::has_begun(&home, logged, since).then_some(()));
            again.push(killed.elapsed());
        }
    });
    let is_quiet = evidence::quiet(&crowd.client.http, length.finish);
    let mut report = Report::judge("kills of gateway and worker", &gateway, &crowd, &lives, is_quiet);
    report.kills = length.kills;
    report.row("kills", length.kills.to_string());
    report.row("one killed: the next job begins after", again.to_string());
    report.row("seed", length.seed.to_string());
    report.row("time", format!("{} s", began.elapsed().as_secs()));
    report
}

/// Waits until some jobs run, and then until more has begun and ended.
fn aim(gateway: &Server, random: &mut Random) {
    let runs = || {
        let functions = gateway.http.get("/v1/functions").json();
        let functions = functions["functions"].as_array()?.iter();
        (functions.filter_map(|function| function["jobs"]["running"].as_u64()).sum::<u64>() >= RUNS).then_some(())
    };
    let _ = within(BUSY_WITHIN, runs);
    let enough = witness::length(&gateway.home) + random.below(WRITTEN_MAX);
    let _ = within(BUSY_WITHIN, || (witness::length(&gateway.home) >= enough).then_some(()));
}

/// The gateway, and with it the worker if there is one.
fn end(gateway: &mut Server, worker: Option<&mut Worker>, lives: &mut Vec<Millis>) {
    gateway.kill();
    if let Some(worker) = worker {
        worker.kill();
        lives.push(now());
        // It comes first, and waits.
        worker.restart();
    } else {
        // What it had leased may still begin, and belongs to its life.
        all_has_begun(gateway);
        lives.push(now());
    }
    gateway.restart();
}

/// Waits until no job has begun for a while: nobody leases any.
fn all_has_begun(gateway: &Server) {
    let begun = || witness::read(&gateway.home).map(|runs| runs.len());
    let mut last = (begun(), Instant::now());
    until_within(BUSY_WITHIN, "what was leased to begin", || {
        let now = begun();
        if now != last.0 {
            last = (now, Instant::now());
        }
        (last.1.elapsed() >= BEGUN_WITHIN).then_some(())
    });
}

fn end_worker(worker: &mut Worker, lives: &mut Vec<Millis>) {
    worker.kill();
    lives.push(now());
    worker.restart();
}
