//! `kill -9` at every write and sync, by strace: it kills the server when one of its threads begins its Nth call of a name.
//! The call itself is not made, so each point lies between two calls.
//!
//! First on an empty data directory, up to the moment when the server answers: it must start after that as if nothing had
//! been. Then on one directory in all lives: in each, a script goes over everything that writes. Once it comes to its end
//! without a kill, the name has no further points.
//!
//! Without `--seccomp-bpf`: with it strace 6.1 delivers the signal only at the first call.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use super::clients::Crowd;
use super::functions::{BRIEF, FILES, Plan};
use super::random::Random;
use super::report::{Report, progress};
use super::{Length, evidence};
use crate::history::{Millis, NOBODY_LISTENS, Told, now};
use crate::server::Server;
use crate::wait::until_within;

/// What changes the data directory, and what sends an answer; and about how many of these a life has, for draws.
/// `write` and `sendto` go elsewhere too: a kill there is as good as any.
const CALLS: [(&str, u64); 10] = [
    ("pwrite64", 60),
    ("fdatasync", 12),
    ("fsync", 2),
    ("write", 20),
    ("ftruncate", 1),
    ("fallocate", 1),
    ("mkdir", 8),
    ("rename", 3),
    ("unlink", 1),
    ("sendto", 6),
];
/// The most points of one name.
const POINTS_MAX: u64 = 150;
/// For a start or an end under strace.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whoever sets the points.
#[derive(Debug)]
struct Sniper<'a> {
    server: Server,
    crowd: &'a Crowd,
    lives: Vec<Millis>,
    random: Random,
    points: Option<usize>,
    kills: usize,
}

/// Kills the server at so many points of each call, and judges.
///
/// # Panics
/// If the server does not start, or jobs do not finish in time.
#[must_use]
pub fn kills_at_every_write(length: Length) -> Report {
    let began = Instant::now();
    let mut server = Server::start(&FILES);
    server.kill();
    let crowd = Crowd::new(server.http.clone());
    let random = Random::of(length.seed, 0);
    let mut sniper = Sniper { server, crowd: &crowd, lives: Vec::new(), random, points: length.points, kills: 0 };
    let first = sniper.all("first start", Sniper::first_start);
    sniper.forget_everything();
    let later = sniper.all("at work", Sniper::life);
    sniper.lives.push(now());
    sniper.server.restart();
    let is_quiet = evidence::quiet(&crowd.client.http, length.finish);
    let mut report = Report::judge("kills at every write", &sniper.server, &crowd, &sniper.lives, is_quiet);
    report.kills = sniper.kills;
    report.row("kills", sniper.kills.to_string());
    report.row("points of a first start", first);
    report.row("points at work", later);
    report.row("seed", length.seed.to_string());
    report.row("time", format!("{} s", began.elapsed().as_secs()));
    report
}

// === impl Sniper ===

impl Sniper<'_> {
    /// Each point of each call, or a draw of them; gives how many were hit. `lives` starts the server with that point set
    /// and says whether it was hit.
    fn all(&mut self, title: &str, lives: fn(&mut Self, &str, u64) -> bool) -> String {
        let mut told = Vec::new();
        for (call, about) in CALLS {
            let hit = match self.points {
                Some(points) => (0..points)
                    .filter(|_| {
                        let nth = 1 + self.random.below(about);
                        lives(self, call, nth)
                    })
                    .count(),
                None => (1..=POINTS_MAX).take_while(|nth| lives(self, call, *nth)).count(),
            };
            assert!((hit as u64) < POINTS_MAX, "{call} has more points than are tried: raise POINTS_MAX");
            self.kills += hit;
            told.push(format!("{call} {hit}"));
            if self.points.is_none() {
                progress(&format!("{title}: killed at {hit} points of {call}"));
            }
        }
        told.join(", ")
    }

    /// On an empty directory, up to the first answer; afterwards it starts as ever.
    fn first_start(&mut self, call: &str, nth: u64) -> bool {
        self.forget_everything();
        let is_ready = self.start_under(call, nth);
        if is_ready {
            self.server.kill();
            return false;
        }
        self.server.launch(&[]);
        self.server.wait_until_ready();
        self.server.kill();
        true
    }

    fn forget_everything(&self) {
        std::fs::remove_dir_all(&self.server.data).expect("the data directory is ours");
    }

    /// A life with the script.
    fn life(&mut self, call: &str, nth: u64) -> bool {
        self.lives.push(now());
        let is_ready = self.start_under(call, nth);
        if is_ready && script(self.crowd).is_some() {
            self.server.kill();
            return false;
        }
        assert_killed(until_within(PATIENCE, "the end of the server", || self.server.ended()));
        true
    }

    /// Starts the server with a point set; whether it answers before it is killed.
    fn start_under(&mut self, call: &str, nth: u64) -> bool {
        let (trace, inject) = (format!("trace={call}"), format!("inject={call}:signal=KILL:when={nth}"));
        // As a grandchild (-D), so that the server is our own child.
        let strace = ["strace", "-D", "-f", "-q", "-e", &trace, "-e", &inject, "-e", "signal=none", "-o", "/dev/null"];
        self.server.launch(&strace);
        until_within(PATIENCE, "a server under strace", || {
            let ended = self.server.ended().map(assert_killed);
            ended.map(|()| false).or_else(|| self.server.is_ready().then_some(true))
        })
    }
}

/// An end by itself, or of strace, is no point that was hit.
fn assert_killed(status: ExitStatus) {
    assert_eq!(status.signal(), Some(9), "the server was to be killed, and ended with {status}");
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
    submit(Plan { large: true, ..plan(BRIEF, "big", 0) })?;
    let late = submit(Plan { options: "&delay=1h".to_owned(), ..plan("far", "ok", 20) })?;
    let bad = submit(plan("quick", "permanent", 0))?;
    let held = submit(plan("slow", "ok", 5000))?;
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
