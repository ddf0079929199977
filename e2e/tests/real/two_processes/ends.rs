//! What either process leaves behind when it is killed, or told to stop.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kvern_e2e::crash::{Length, kills_of_either};
use kvern_e2e::{needs, socket_of, until, until_within};
use rustix::process::Signal;

use super::{job, pair};

/// Each run has a line in `begun`. It ends once there is a file `go`.
const MANIFEST: &str = "\
[functions.held]
exec = [\"sh\", \"-c\", \"echo $KVERN_ATTEMPT >>begun; while ! [ -e go ]; do sleep 0.02; done; echo done\"]
timeout = \"5m\"
retry = { attempts = 1 }
";

/// The promise, and what the other tests take of the machine.
const AGAIN_WITHIN: Duration = Duration::from_secs(10);
const OTHERS: Duration = Duration::from_secs(2);

fn begun(gateway: &kvern_e2e::Server) -> Vec<String> {
    let text = std::fs::read_to_string(gateway.home.join("begun")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn begins(gateway: &kvern_e2e::Server, times: usize) {
    until_within(AGAIN_WITHIN + OTHERS, "a run to begin", || (begun(gateway).len() == times).then_some(()));
}

#[test]
fn every_acknowledged_job_survives_the_kill_of_either_process() {
    if !needs::programs(&["python3"]) {
        return;
    }
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| u64::from(since.subsec_nanos()));
    let report = kills_of_either(Length::from_environment(Length {
        kills: 6,
        points: None,
        seed,
        finish: Duration::from_secs(120),
    }));
    let _ = std::io::Write::write_all(&mut std::io::stderr(), report.to_string().as_bytes());
    assert!(report.wrong.is_empty(), "{} violations, see above", report.wrong.len());
    assert!(report.cut_off > 0, "nothing was cut off: {report}");
}

#[test]
fn jobs_of_a_killed_worker_run_again_within_ten_seconds() {
    let (gateway, mut worker) = pair(&[("kvern.toml", MANIFEST)]);
    let id = gateway.http.submit("held", "");
    begins(&gateway, 1);
    worker.kill();
    let killed = Instant::now();
    worker.restart();
    begins(&gateway, 2);
    let took = killed.elapsed();
    std::fs::write(gateway.home.join("go"), "").expect("a file");
    let record = gateway.http.finished(&id);
    assert_eq!(record["state"], "succeeded", "one attempt was allowed, and this was none: {record}");
    assert_eq!((record["failures"].as_u64(), record["strikes"].as_u64()), (Some(0), Some(0)), "{record}");
    assert!(took < AGAIN_WITHIN + OTHERS, "{took:?}");
}

#[test]
fn what_a_killed_gateway_had_leased_is_fenced_and_runs_again() {
    let (mut gateway, worker) = pair(&[("kvern.toml", MANIFEST)]);
    let id = gateway.http.submit("held", "");
    begins(&gateway, 1);
    gateway.kill();
    assert!(socket_of(&gateway).exists(), "a kill leaves the socket");
    gateway.restart();
    begins(&gateway, 2);
    std::fs::write(gateway.home.join("go"), "").expect("a file");
    let record = gateway.http.finished(&id);
    assert_eq!(record["state"], "succeeded", "one attempt was allowed, and this was none: {record}");
    assert_eq!((record["failures"].as_u64(), record["strikes"].as_u64()), (Some(0), Some(0)), "{record}");
    let outcomes: Vec<_> =
        record["attempts"].as_array().expect("attempts").iter().map(|a| a["outcome"].clone()).collect();
    let succeeded = outcomes.iter().filter(|outcome| **outcome == "succeeded").count();
    assert_eq!(succeeded, 1, "one outcome: {record}");
    assert_eq!(begun(&gateway).len(), 2, "and no third run");
    let log = worker.log();
    assert!(
        log.contains("the connection to the queue has ended; trying again") && log.contains("answers again"),
        "{log}"
    );
}

#[test]
fn a_gateway_that_stops_lets_running_jobs_end() {
    let (mut gateway, _worker) = pair(&[("kvern.toml", MANIFEST)]);
    let id = gateway.http.submit("held", "");
    begins(&gateway, 1);
    gateway.signal(Signal::TERM);
    until("it to refuse clients", || (!gateway.is_ready()).then_some(()));
    std::fs::write(gateway.home.join("go"), "").expect("a file");
    assert!(gateway.wait().success(), "{}", gateway.log());
    assert!(!socket_of(&gateway).exists(), "a stop leaves none");
    gateway.restart();
    let record = job(&gateway, &id);
    assert_eq!((record["state"].as_str(), begun(&gateway).len()), (Some("succeeded"), 1), "{record}");
}

#[test]
fn a_worker_that_stops_lets_its_jobs_end_and_leaves_the_rest() {
    let (gateway, mut worker) = pair(&[("kvern.toml", MANIFEST)]);
    let id = gateway.http.submit("held", "");
    begins(&gateway, 1);
    worker.signal(Signal::TERM);
    until("it to stop leasing", || worker.log().contains("stopping").then_some(()));
    let later = gateway.http.submit("held", "");
    std::fs::write(gateway.home.join("go"), "").expect("a file");
    assert!(worker.wait().success(), "{}", worker.log());
    assert_eq!(job(&gateway, &id)["state"], "succeeded");
    assert_eq!(job(&gateway, &later)["state"], "queued", "nobody runs it");
    worker.restart();
    assert_eq!(gateway.http.finished(&later)["state"], "succeeded");
}

#[test]
fn a_worker_that_pauses_for_long_is_fenced() {
    let (gateway, worker) = pair(&[("kvern.toml", MANIFEST)]);
    let id = gateway.http.submit("held", "");
    begins(&gateway, 1);
    worker.signal(Signal::STOP);
    let _other = kvern_e2e::Worker::named(&gateway, "other");
    begins(&gateway, 2);
    std::fs::write(gateway.home.join("go"), "").expect("a file");
    worker.signal(Signal::CONT);
    let record = gateway.http.finished(&id);
    assert_eq!(record["attempts"].as_array().map(Vec::len), Some(2), "{record}");
    assert_eq!((record["state"].as_str(), record["attempt"].as_u64()), (Some("succeeded"), Some(2)), "{record}");
    runs_no_more(&gateway, &id);
}

/// What a stale settlement would do to a record, it would have done by the time that another job has gone through.
fn runs_no_more(gateway: &kvern_e2e::Server, id: &str) {
    let before = job(gateway, id);
    let other = gateway.http.submit("held", "");
    assert_eq!(gateway.http.finished(&other)["state"], "succeeded");
    assert_eq!(job(gateway, id), before);
}
