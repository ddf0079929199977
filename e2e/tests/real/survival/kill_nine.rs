//! `kill -9` of the server, at random moments and at every write: the crash harness in its short form. `make crash` runs
//! the same tests in their long form.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kvern_e2e::crash::{BUSY, FINISH, Length, Report, kills_at_every_write, random_kills};
use kvern_e2e::{Server, needs, until};

/// The promises are one second and two. The other tests run beside this one, so the best of five counts.
const FUNCTION_AGAIN: Duration = Duration::from_secs(1);
const SERVER_AGAIN: Duration = Duration::from_secs(2);

/// The short form, unless the environment says otherwise.
fn length() -> Length {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| u64::from(since.subsec_nanos()));
    Length::from_environment(Length { kills: 8, points: Some(2), seed, finish: FINISH })
}

fn says(report: &Report) {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), report.to_string().as_bytes());
    assert!(report.wrong.is_empty(), "{} violations, see above", report.wrong.len());
}

#[test]
fn every_acknowledged_job_survives_kill_nine() {
    if !needs::programs(&["python3"]) {
        return;
    }
    let report = random_kills(length());
    says(&report);
    assert!(report.busy * 2 >= report.kills, "too few of the kills came while {BUSY} jobs ran: {report}");
    assert!(
        report.cut_off > 0 && report.redirected.iter().all(|count| *count > 0),
        "too little was going on: {report}"
    );
    assert!(report.function_again <= FUNCTION_AGAIN, "{report}");
    assert!(report.server_again <= SERVER_AGAIN, "{report}");
}

#[test]
fn every_acknowledged_job_survives_a_kill_at_every_write() {
    if needs::programs(&["python3", "strace"]) {
        let report = kills_at_every_write(length());
        says(&report);
        assert!(report.kills > 0 && report.cut_off > 0, "nothing was killed: {report}");
    }
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
