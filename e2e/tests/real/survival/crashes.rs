//! The function's process is killed while it works: the job runs again at once, and not for ever.

use std::time::{Duration, Instant};

use kvern_e2e::{Server, needs, until, until_within};
use rustix::process::{Pid, Signal, kill_process};

const MANIFEST: &str = "[functions.victim]\nhandler = \"victim.py:victim\"\nconcurrency = 1\n";
/// Adds its process id to a file named after the job, then waits for a file.
const VICTIM: &str = "\
import os, time

def victim(ctx):
    with open(ctx.job_id, 'a') as file:
        file.write(f'{os.getpid()}\\n')
    while not os.path.exists('go'):
        time.sleep(0.01)
    return ctx.attempt
";
/// The promise is a second.
const AGAIN: Duration = Duration::from_secs(1);

fn start() -> Option<Server> {
    let files = [("kvern.toml", MANIFEST), ("victim.py", VICTIM)];
    needs::programs(&["python3"]).then(|| Server::start(&files))
}

/// Waits until the job runs for the nth time and gives its process.
fn running(server: &Server, id: &str, nth: usize) -> Pid {
    let pid = until(&format!("run {nth}"), || {
        let pids = std::fs::read_to_string(server.home.join(id)).ok()?;
        pids.lines().nth(nth - 1).filter(|_| pids.ends_with('\n')).map(str::to_owned)
    });
    Pid::from_raw(pid.parse().expect("a number")).expect("a process id")
}

#[test]
fn a_job_whose_process_was_killed_runs_again_within_a_second() {
    let Some(server) = start() else { return };
    let mut took = Vec::new();
    // The figure holds on a machine that has time for us. The other tests run beside this one, so the best of five
    // counts, and each must come at all.
    for _ in 0..5 {
        let _ = std::fs::remove_file(server.home.join("go"));
        let id = server.http.submit("victim", "{}");
        let first = running(&server, &id, 1);
        let killed = Instant::now();
        kill_process(first, Signal::KILL).expect("it can be killed");
        let second = running(&server, &id, 2);
        took.push(killed.elapsed());
        assert_ne!(first, second);
        std::fs::write(server.home.join("go"), "").expect("a file");
        let job = server.http.finished(&id);
        assert_eq!(
            (&job["state"], &job["strikes"], &job["failures"]),
            (&"succeeded".into(), &1.into(), &0.into()),
            "{job}"
        );
        let outcomes: Vec<&str> =
            job["attempts"].as_array().expect("attempts").iter().filter_map(|a| a["outcome"].as_str()).collect();
        assert_eq!(outcomes, ["crashed", "succeeded"]);
        assert_eq!(server.http.get(&format!("/v1/jobs/{id}/result")).text(), "2");
    }
    let best = took.iter().min().expect("five");
    assert!(*best <= AGAIN, "{took:?}");
}

#[test]
fn the_third_strike_makes_a_dead_letter_and_the_next_job_goes_on() {
    let Some(server) = start() else { return };
    let id = server.http.submit("victim", "{}");
    for nth in 1..=3 {
        kill_process(running(&server, &id, nth), Signal::KILL).expect("it can be killed");
    }
    let job = server.http.finished(&id);
    assert_eq!(
        (&job["state"], &job["strikes"], &job["error"]["code"]),
        (&"failed".into(), &3.into(), &"crash".into()),
        "{job}"
    );
    std::fs::write(server.home.join("go"), "").expect("a file");
    let next = server.http.submit("victim", "{}");
    assert_eq!(server.http.finished(&next)["state"], "succeeded");
}

#[test]
fn a_server_that_dies_is_no_strike() {
    let Some(mut server) = start() else { return };
    let id = server.http.submit("victim", "{}");
    let first = running(&server, &id, 1);
    server.kill();
    until_within(Duration::from_secs(10), "the function to end with its server", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", first.as_raw_nonzero())).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
    server.restart();
    running(&server, &id, 2);
    std::fs::write(server.home.join("go"), "").expect("a file");
    let job = server.http.finished(&id);
    assert_eq!(
        (&job["state"], &job["strikes"], &job["failures"]),
        (&"succeeded".into(), &0.into(), &0.into()),
        "{job}"
    );
    // One is counted only if the attempt was seen to be more than a moment old (rule 19 of the queue).
    assert!(job["interruptions"].as_u64().is_some_and(|cut| cut <= 1), "{job}");
}
