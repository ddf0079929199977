//! `kill -9` at every write and sync, by strace: it kills the server when one of its threads begins its Nth call of a name.
//! The call itself is not made, so each point lies between two calls.
//!
//! The data directory is the same in all lives. In each, a script goes over everything that writes; once it comes to its
//! end without a kill, the name has no further points.

use std::time::{Duration, Instant};

use super::clients::Crowd;
use super::functions::{FILES, Plan};
use super::random::Random;
use super::report::{Report, progress};
use super::{Length, evidence};
use crate::history::{Millis, NOBODY_LISTENS, Told, now};
use crate::server::Server;
use crate::wait::until_within;

/// What changes the data directory, and what sends an answer. `write` and `sendto` go elsewhere too; a kill there is as
/// good as any.
const CALLS: [&str; 9] =
    ["pwrite64", "fdatasync", "fsync", "write", "ftruncate", "fallocate", "rename", "unlink", "sendto"];
/// The most points of one name.
const POINTS_MAX: usize = 150;
/// For a start or an end under strace.
const PATIENCE: Duration = Duration::from_secs(60);

/// Kills the server at so many points of each call, and judges.
///
/// # Panics
/// If the server does not start, or jobs do not finish in time.
#[must_use]
pub fn kills_at_every_write(length: Length) -> Report {
    let began = Instant::now();
    let mut lives = vec![now()];
    let mut server = Server::start(&FILES);
    let crowd = Crowd::new(server.http.clone());
    let mut random = Random::of(length.seed, 0);
    server.kill();
    let mut points = Vec::new();
    for call in CALLS {
        let hit = kill_at_each(call, &length, &mut random, &mut server, &crowd, &mut lives);
        progress(&format!("{call}: killed at {hit} points"));
        points.push(format!("{call} {hit}"));
    }
    lives.push(now());
    server.restart();
    evidence::quiet(&crowd.client.http);
    let mut report = Report::judge("kills at every write", &server, &crowd, &lives);
    report.row("points", points.join(", "));
    report.row("seed", length.seed.to_string());
    report.row("time", format!("{} s", began.elapsed().as_secs()));
    report
}

/// Each point of one call, or a spread of them; gives how many there were.
fn kill_at_each(
    call: &str,
    length: &Length,
    random: &mut Random,
    server: &mut Server,
    crowd: &Crowd,
    lives: &mut Vec<Millis>,
) -> usize {
    let mut nth = 0;
    for hit in 0..length.points.unwrap_or(POINTS_MAX).min(POINTS_MAX) {
        // Of a spread the steps grow: most points of a name that has many lie late.
        let step = length.points.map_or(1, |_| 1 + random.below(1 + 4 * u64::try_from(hit).expect("a count")));
        nth += step;
        lives.push(now());
        let (trace, inject) = (format!("trace={call}"), format!("inject={call}:signal=KILL:when={nth}"));
        server.launch(&[
            "strace",
            "-D",
            "--seccomp-bpf",
            "-f",
            "-q",
            "-e",
            &trace,
            "-e",
            &inject,
            "-e",
            "signal=none",
            "-o",
            "/dev/null",
        ]);
        let is_ready = until_within(PATIENCE, "a server under strace", || {
            server.ended().map(|_| false).or_else(|| server.is_ready().then_some(true))
        });
        if is_ready && script(crowd).is_some() {
            server.kill();
            return hit;
        }
        until_within(PATIENCE, "the end of the server", || server.ended());
    }
    length.points.unwrap_or(POINTS_MAX).min(POINTS_MAX)
}

/// Goes over everything that writes; nothing if the server did not live to its end.
fn script(crowd: &Crowd) -> Option<()> {
    let client = &crowd.client;
    let plan = |function, what, millis| Plan::of(crowd.note(), function, what, millis);
    let submit = |plan: Plan| match crowd.send(&plan) {
        Told::Accepted(id) => Some(id),
        _ => None,
    };
    let keyed = plan("quick", "ok", 0);
    let key = Some(format!("key-{}", keyed.note));
    let quick = submit(Plan { key, ..keyed })?;
    let large = submit(Plan { large: true, ..plan("slow", "big", 20) })?;
    let late = submit(Plan { options: "&delay=1h".to_owned(), ..plan("far", "ok", 20) })?;
    let bad = submit(plan("quick", "permanent", 0))?;
    let held = submit(plan("slow", "hold", 600_000))?;
    lived(&client.look(&quick, "2s"))?;
    lived(&client.look(&bad, "2s"))?;
    lived(&client.retry(&bad))?;
    lived(&client.cancel(&late))?;
    lived(&client.retry(&late))?;
    lived(&client.look(&large, "3s"))?;
    lived(&client.cancel(&held))?;
    lived(&client.look(&held, "3s"))?;
    lived(&client.retry(&held))?;
    lived(&client.cancel(&held))?;
    lived(&client.look(&late, "3s"))
}

/// Whether somebody answered.
fn lived(told: &Told) -> Option<()> {
    match told {
        Told::Unknown(_) => None,
        Told::Refused(why) if why == NOBODY_LISTENS => None,
        _ => Some(()),
    }
}
