//! Cancel reaches a job wherever it is, and a running one within a second.

use std::time::{Duration, Instant};

use kvern_e2e::{Server, needs, until};

const MANIFEST: &str = "\
[functions.long]
exec = [\"sh\", \"-c\", \"echo $$ > pid; exec sleep 1000\"]
concurrency = 1
";

fn state(server: &Server, id: &str) -> String {
    server.http.get(&format!("/v1/jobs/{id}")).json()["state"].as_str().expect("a state").to_owned()
}

#[test]
fn a_queued_and_a_running_job_are_cancelled_within_a_second() {
    let server = Server::start(&[("kvern.toml", MANIFEST)]);
    let mut took = Vec::new();
    // The other tests run beside this one: the best of three counts.
    for _ in 0..3 {
        let running = server.http.submit("long", "");
        until("the first to run", || {
            (state(&server, &running) == "running" && server.home.join("pid").exists()).then_some(())
        });
        let queued = server.http.submit("long", "");
        let cancel = |id: &str| server.http.post(&format!("/v1/jobs/{id}/cancel"), "");
        assert_eq!(cancel(&queued).json()["state"], "cancelled", "nothing runs it, so it is cancelled at once");
        let began = Instant::now();
        assert_eq!(cancel(&running).status, 200);
        let job = server.http.finished(&running);
        took.push(began.elapsed());
        assert_eq!(job["state"], "cancelled", "{job}");
        assert_eq!(job["attempts"][0]["outcome"], "cancelled");
        let pid = std::fs::read_to_string(server.home.join("pid")).expect("a process id");
        let process = std::path::PathBuf::from(format!("/proc/{}", pid.trim()));
        assert!(!process.exists(), "its process was there when it was told to be cancelled");
        std::fs::remove_file(server.home.join("pid")).expect("removed");
        assert_eq!(state(&server, &queued), "cancelled", "it never ran");
        assert_eq!(cancel(&queued).status, 409);
        assert_eq!(server.http.get(&format!("/v1/jobs/{running}/result")).json()["code"], "job_cancelled");
    }
    assert!(took.iter().min().expect("three") <= &Duration::from_secs(1), "{took:?}");
}

/// An attempt that ignores TERM, and holds a lock together with a child that has detached itself.
const STUBBORN: &str = "\
#!/bin/sh
exec 9>>lock
flock -n 9 || exit 65
test ! -e go || exit 0
trap '' TERM
setsid sleep 1000 &
touch holding
while :; do sleep 1; done
";

#[test]
fn a_retry_does_not_overlap_an_attempt_that_ignores_its_cancel() {
    if !needs::programs(&["flock", "setsid"]) {
        return;
    }
    let manifest = "[functions.stubborn]\nexec = [\"./stubborn.sh\"]\n";
    let server = Server::start(&[("kvern.toml", manifest), ("stubborn.sh", STUBBORN)]);
    let id = server.http.submit("stubborn", "");
    until("it to hold the lock", || server.home.join("holding").exists().then_some(()));
    std::fs::write(server.home.join("go"), "").expect("a file");
    assert_eq!(server.http.post(&format!("/v1/jobs/{id}/cancel"), "").status, 200);
    assert_eq!(server.http.finished(&id)["state"], "cancelled");
    assert_eq!(server.http.post(&format!("/v1/jobs/{id}/retry"), "").status, 200);
    let job = server.http.finished(&id);
    assert_eq!(job["state"], "succeeded", "the lock was free: {job}");
}

#[test]
fn a_cancelled_job_can_have_another_life() {
    let server = Server::start(&[("kvern.toml", "[functions.cat]\nexec = [\"cat\"]\n")]);
    let id = server.http.post("/v1/functions/cat/jobs?delay=1h", "x").json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(server.http.post(&format!("/v1/jobs/{id}/cancel"), "").json()["state"], "cancelled");
    assert_eq!(server.http.post(&format!("/v1/jobs/{id}/retry"), "").status, 200);
    assert_eq!(server.http.finished(&id)["state"], "succeeded");
    assert_eq!(server.http.get(&format!("/v1/jobs/{id}/result")).text(), "x");
}
