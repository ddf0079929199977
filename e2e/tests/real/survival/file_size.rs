//! A limit on the size of files (`ulimit -f`): a write over it is refused, and the server goes on with the rest.

use kvern_e2e::{Server, Start};

const FILES: &[(&str, &str)] = &[("kvern.toml", "[functions.same]\nexec = [\"cat\"]\n")];
const JOBS: &str = "/v1/functions/same/jobs";
/// More than the files of the database hold under the limit.
const JOBS_MAX: usize = 500;

fn start() -> Server {
    // In blocks of 512 bytes.
    let under = ["sh", "-c", "ulimit -f 1000; exec \"$0\" \"$@\""];
    Server::start_as(Start { files: FILES, under: &under, ..Start::default() })
}

#[test]
fn an_input_that_no_file_may_hold_does_not_end_the_server() {
    let server = start();
    let large = "x".repeat(8 << 20);
    let refused = server.http.post(JOBS, &large);
    assert!(refused.status >= 500, "{}: {}", refused.status, refused.text());
    assert_eq!(server.http.post("/v1/functions/same", "hi").text(), "hi");
    let id = server.http.submit("same", "after it");
    assert_eq!(server.http.get(&format!("/v1/jobs/{id}?wait=10s")).json()["state"], "succeeded");
}

#[test]
fn a_database_that_may_not_grow_refuses_jobs_and_loses_none() {
    let server = start();
    let input = "x".repeat(20_000);
    let mut accepted = Vec::new();
    let refused = loop {
        let answer = server.http.post(JOBS, &input);
        if answer.status != 202 {
            break answer;
        }
        accepted.push(answer.json()["id"].as_str().expect("an id").to_owned());
        assert!(accepted.len() < JOBS_MAX, "the limit is never reached");
    };
    assert_eq!((refused.status, &refused.json()["code"]), (503, &"no_space".into()), "{}", refused.text());
    // As on a full disk: it lives, and shows what it has.
    assert_eq!(server.http.get("/healthz").status, 200);
    for id in accepted {
        let shown = server.http.get(&format!("/v1/jobs/{id}"));
        assert_eq!(shown.status, 200, "{id}: {}", shown.text());
    }
}
