//! `kill -9` of the server at random moments, while clients submit without a pause.
//!
//! The clients keep their own list of what was acknowledged, the function its own of what it ran; the server's answers
//! are compared with both.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kvern_e2e::{Http, Server, needs, until, until_within};
use serde_json::Value;

const KILLS: usize = 6;
const CLIENTS: usize = 3;
/// For whatever is left when the clients stop.
const FINISH: Duration = Duration::from_secs(60);

const MANIFEST: &str = "[functions.append]\nhandler = \"append.py:append\"\nretry = { attempts = 1 }\n";
/// One write of one line to a file opened for appending: whole or not at all.
const APPEND: &str = "\
import os

def append(event, ctx):
    file = os.open('ran', os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, (ctx.job_id + '\\n').encode())
    os.close(file)
    return event
";

/// Submits until told to stop; what was answered with 202 goes to the list. A broken connection acknowledges nothing.
fn submit_all(http: &Http, acknowledged: &Mutex<Vec<String>>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let answer =
            http.try_ask("POST", "/v1/functions/append/jobs", &[("content-type", "application/json")], b"{\"n\":1}");
        let Ok(answer) = answer else { continue };
        if answer.status == 202 && !answer.body.is_empty() {
            let id = answer.json()["id"].as_str().expect("an id").to_owned();
            acknowledged.lock().expect("the list").push(id);
        }
    }
}

/// Kills and restarts the server, each time after a random number of further acknowledgements.
fn kill_often(server: &mut Server, count: impl Fn() -> usize) {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64 | 1);
    let mut state = seed;
    for kill in 0..KILLS {
        // xorshift (Marsaglia, 2003)
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let more = 1 + (state % 150) as usize;
        let begun = count();
        until_within(FINISH, &format!("{more} more before kill {kill}, seed {seed}"), || {
            (count() >= begun + more).then_some(())
        });
        server.kill();
        server.restart();
    }
}

/// The ids in the function's own file.
fn ran(home: &Path) -> BTreeSet<String> {
    std::fs::read_to_string(home.join("ran")).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn every_acknowledged_job_survives_kill_nine() {
    if !needs::programs(&["python3"]) {
        return;
    }
    let mut server = Server::start(&[("kvern.toml", MANIFEST), ("append.py", APPEND)]);
    let acknowledged = Mutex::new(Vec::new());
    let stop = AtomicBool::new(false);
    let http = server.http.clone();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| submit_all(&http, &acknowledged, &stop));
        }
        kill_often(&mut server, || acknowledged.lock().expect("the list").len());
        stop.store(true, Ordering::Relaxed);
    });
    let acknowledged = acknowledged.into_inner().expect("the list");
    assert!(acknowledged.len() > KILLS, "{} jobs are no test", acknowledged.len());
    let unique: BTreeSet<&String> = acknowledged.iter().collect();
    assert_eq!(unique.len(), acknowledged.len(), "no id was given twice");

    until_within(FINISH, "every job to finish", || {
        let jobs = http.get("/v1/functions/append").json()["jobs"].clone();
        (jobs["queued"] == 0 && jobs["running"] == 0 && jobs["scheduled"] == 0).then_some(())
    });
    for id in &acknowledged {
        let answer = http.get(&format!("/v1/jobs/{id}"));
        assert_eq!(answer.status, 200, "acknowledged and unknown: {id}");
        has_one_outcome(&answer.json());
        assert_eq!(http.get(&format!("/v1/jobs/{id}/result")).text(), "{\"n\":1}");
    }
    let ran = ran(&server.home);
    let never: Vec<_> = acknowledged.iter().filter(|id| !ran.contains(*id)).collect();
    assert!(never.is_empty(), "acknowledged and never ran: {never:?}");
}

/// It succeeded, in its last attempt and in no other; the others were cut off by the death of the server.
fn has_one_outcome(job: &Value) {
    assert_eq!(
        (&job["state"], &job["failures"], &job["strikes"]),
        (&"succeeded".into(), &0.into(), &0.into()),
        "{job}"
    );
    let attempts = job["attempts"].as_array().expect("attempts");
    let succeeded = attempts.iter().filter(|attempt| attempt["outcome"] == "succeeded").count();
    assert_eq!(succeeded, 1, "{job}");
    assert_eq!(attempts.last().map(|attempt| &attempt["outcome"]), Some(&"succeeded".into()), "{job}");
    assert!(job["interruptions"].as_u64().is_some_and(|cut| cut <= KILLS as u64), "{job}");
}

#[test]
fn a_second_server_on_the_same_data_is_refused() {
    let server = Server::start(&[("kvern.toml", "[functions.cat]\nexec = [\"cat\"]\n")]);
    let data = server.data.display().to_string();
    let address = format!("127.0.0.1:{}", kvern_e2e::server::free_port());
    let (code, stdout, said) = server.cli(&["serve", "--data", &data, "--listen", &address]);
    assert_eq!((code, stdout.as_str()), (4, ""), "{said}");
    assert!(said.contains(&server.pid().to_string()) && said.contains(&data), "it says who works where: {said}");
    let id = server.http.submit("cat", "1");
    assert_eq!(server.http.finished(&id)["state"], "succeeded", "the first goes on");
}

#[test]
fn a_killed_server_is_ready_again_with_its_schedule() {
    let mut server = Server::start(&[("kvern.toml", "[functions.cat]\nexec = [\"cat\"]\n")]);
    let later = server.http.post("/v1/functions/cat/jobs?delay=700ms", "later").json()["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let far =
        server.http.post("/v1/functions/cat/jobs?delay=1h", "far").json()["id"].as_str().expect("an id").to_owned();
    let _ = server.http.post("/v1/functions/cat/pause", "");
    server.kill();
    server.restart();
    let function = server.http.get("/v1/functions/cat").json();
    assert_eq!(function["paused"], true, "a pause outlives the server");
    let _ = server.http.post("/v1/functions/cat/resume", "");
    assert_eq!(server.http.finished(&later)["state"], "succeeded");
    let far = until("the far job", || Some(server.http.get(&format!("/v1/jobs/{far}")).json()));
    assert_eq!(far["state"], "scheduled");
}
