//! How soon a job runs again on a server that has nothing else to do.

use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use super::clients::Crowd;
use super::functions::Plan;
use super::random::Random;
use super::report::Times;
use crate::history::{Millis, Told, now};
use crate::server::Server;
use crate::wait::until;

const ROUNDS: usize = 5;

/// The function's process is killed.
pub(super) fn function_killed(server: &Server, crowd: &Crowd) -> Times {
    let mut times = Times::default();
    for _ in 0..ROUNDS {
        let (id, pid) = hold(server, crowd);
        let killed = Instant::now();
        kill_process(pid, Signal::KILL).expect("it can be killed");
        runs_as_another(server, &id, pid);
        times.push(killed.elapsed());
        let _ = crowd.client.cancel(&id);
    }
    times
}

/// The server is killed; the time counts from its start.
pub(super) fn server_killed(server: &mut Server, crowd: &Crowd, lives: &mut Vec<Millis>) -> Times {
    let mut times = Times::default();
    for _ in 0..ROUNDS {
        let (id, pid) = hold(server, crowd);
        server.kill();
        lives.push(now());
        let launched = Instant::now();
        server.launch(&[]);
        runs_as_another(server, &id, pid);
        times.push(launched.elapsed());
        let _ = crowd.client.cancel(&id);
    }
    times
}

/// A job that runs until it is cancelled, and its process.
fn hold(server: &Server, crowd: &Crowd) -> (String, Pid) {
    let plan = Plan::of(crowd.note(), "slow", "hold", 600_000);
    let told = crowd.submit(&plan, &mut Random::of(0, 0));
    let Told::Accepted(id) = told else { panic!("a server at rest accepts a job: {told:?}") };
    let pid = until("it to run", || process(server, &id));
    (id, pid)
}

fn runs_as_another(server: &Server, id: &str, before: Pid) {
    until("it to run again", || process(server, id).filter(|pid| *pid != before));
}

fn process(server: &Server, id: &str) -> Option<Pid> {
    let pid = std::fs::read_to_string(server.home.join(format!("../holds.{id}"))).ok()?;
    // It is written anew by each run: a line without its end is half a number.
    Pid::from_raw(pid.strip_suffix('\n')?.parse().ok()?)
}
