//! A server that stood still, as in a paused machine: what it ran goes on.

use std::time::{Duration, Instant};

use kvern_e2e::{Server, Start, until};
use rustix::process::Signal;

const MANIFEST: &str = "\
[functions.wait]
exec = [\"sh\", \"-c\", \"until test -e go; do sleep 0.02; done; echo done\"]
";
/// Longer than a lease stands that nobody renews.
const STOPPED_FOR: Duration = Duration::from_secs(11);

#[test]
fn a_server_that_was_stopped_for_a_while_keeps_its_leases() {
    let server = Server::start_as(Start { files: &[("kvern.toml", MANIFEST)], ..Start::default() });
    let http = &server.http;
    let answer = http.ask("POST", "/v1/functions/wait/jobs", &[], b"x");
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    until("the job to run", || (http.get(&format!("/v1/jobs/{id}")).json()["state"] == "running").then_some(()));

    server.signal(Signal::STOP);
    let began = Instant::now();
    until("a lease to run out", || (began.elapsed() > STOPPED_FOR).then_some(()));
    server.signal(Signal::CONT);

    assert_eq!(http.get(&format!("/v1/jobs/{id}")).json()["state"], "running");
    std::fs::write(server.home.join("go"), "").expect("a file");
    let job = http.finished(&id);
    let ran = (&job["state"], job["attempts"].as_array().map(Vec::len), &job["interruptions"]);
    assert_eq!(ran, (&"succeeded".into(), Some(1), &0.into()), "{job}");
    assert!(!server.log().contains("leases ran out"), "{}", server.log());
}
