//! Looking at a job: record, result, wait.

use std::time::Duration;

use http_body_util::BodyExt;
use kvern_core::{Failure, FailureCode};
use kvern_queue::{Blob, Payload, Queue, Stored};
use tokio::time::Instant;

use crate::client::within;
use crate::server::Server;

#[tokio::test]
async fn a_record_follows_the_job() {
    let server = Server::start().await;
    let id = server.submit().await;
    let path = format!("/v1/jobs/{id}");
    let job = server.get(&path).await.json();
    assert_eq!((&job["state"], &job["attempt"], &job["attempts_max"]), (&"queued".into(), &0.into(), &5.into()));
    let leased = server.lease().await;
    let job = server.get(&path).await.json();
    assert_eq!((&job["state"], &job["attempt"]), (&"running".into(), &1.into()));
    assert_eq!(job["started_at"], "2027-01-15T08:00:00.123Z");
    server.settle(leased, Ok("done")).await;
    let answer = server.get(&path).await;
    let job = answer.json();
    assert_eq!(job["state"], "succeeded");
    assert_eq!(
        job["result"],
        serde_json::json!({"content_type": "text/plain", "bytes": 4, "url": format!("{path}/result")})
    );
    assert_eq!(job["attempts"][0]["outcome"], "succeeded");
    assert_eq!(job["attempts"][0]["version"], "abc123");
    assert_eq!(job["error"], serde_json::Value::Null);
    assert_eq!(answer.header("cache-control"), "no-store");
}

#[tokio::test]
async fn a_result_comes_with_its_own_content_type_and_runs_in_no_browser() {
    let server = Server::start().await;
    let id = server.finished(Ok("<script>alert(1)</script>")).await;
    let answer = server.get(&format!("/v1/jobs/{id}/result")).await;
    assert_eq!((answer.status, answer.text()), (200, "<script>alert(1)</script>"));
    assert_eq!(answer.header("content-type"), "text/plain");
    assert!(answer.header("content-security-policy").starts_with("sandbox"));
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    let head = server.send("HEAD", &format!("/v1/jobs/{id}/result"), &[], "").await;
    assert_eq!((head.header("content-length"), head.text()), ("25", ""));
}

#[tokio::test]
async fn a_large_result_is_streamed_from_its_file() {
    let server = Server::start().await;
    let id = server.submit().await;
    let bytes: Vec<u8> = (0..2_000_000u32).map(|at| (at % 249) as u8).collect();
    let _file = large_result(&server, &bytes, &bytes);
    let answer = server.get(&format!("/v1/jobs/{id}/result")).await;
    assert_eq!(answer.header("content-length"), "2000000");
    assert_eq!(answer.header("content-type"), "application/octet-stream");
    assert!(answer.body == bytes);
}

/// Gives every job a result that was stored as one and is another.
fn large_result(server: &Server, stored: &[u8], is: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), is).expect("written");
    let blob = Blob::new(file.path().to_owned(), stored.len() as u64, crc32c::crc32c(stored));
    *server.queue.result.lock().expect("no panic in here") =
        Some(Stored { content_type: None, payload: Payload::Blob(blob) });
    file
}

#[tokio::test]
async fn a_large_result_that_is_damaged_is_never_given_whole() {
    let server = Server::start().await;
    let path = format!("/v1/jobs/{}/result", server.submit().await);
    let stored = vec![7; 200_000];
    let mut flipped = stored.clone();
    flipped[1000] ^= 1;
    let file = large_result(&server, &stored, &flipped);
    let answer = crate::client::begin(server.address, "GET", &path, &[], "").await;
    assert_eq!(answer.headers()["content-length"], "200000");
    assert!(within(answer.collect()).await.is_err(), "the answer breaks off before its end");
    drop(file);
    server.get(&path).await.problem(500, "damaged");
    let _file = large_result(&server, &stored, &stored[..199_999]);
    server.get(&path).await.problem(500, "damaged");
}

#[tokio::test]
async fn a_result_that_is_not_there_says_why() {
    let server = Server::start().await;
    let id = server.submit().await;
    let path = format!("/v1/jobs/{id}/result");
    let answer = server.get(&path).await;
    answer.problem(409, "not_finished");
    assert_eq!(answer.header("retry-after"), "1");
    let leased = server.lease().await;
    server.settle(leased, Err(Failure::new(FailureCode::Permanent, "no such customer"))).await;
    let problem = server.get(&path).await.problem(409, "job_failed");
    assert_eq!(problem["error"]["message"], "no such customer");
    assert_eq!(problem["job"], id);
    let other = server.submit().await;
    server.queue.cancel(other.parse().expect("an id")).await.expect("it is queued");
    server.get(&format!("/v1/jobs/{other}/result")).await.problem(409, "job_cancelled");
}

#[tokio::test]
async fn a_wait_ends_with_the_job() {
    let server = Server::start().await;
    let id = server.submit().await;
    let work = async {
        let leased = server.lease().await;
        server.settle(leased, Ok("done")).await;
    };
    let path = format!("/v1/jobs/{id}?wait=60s");
    let begun = Instant::now();
    let (answer, ()) = tokio::join!(server.get(&path), work);
    assert_eq!(answer.json()["state"], "succeeded");
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn a_wait_that_is_over_gives_the_state_as_it_is() {
    let server = Server::start().await;
    let id = server.submit().await;
    let begun = Instant::now();
    let answer = server.get(&format!("/v1/jobs/{id}?wait=120ms")).await;
    assert_eq!((answer.status, &answer.json()["state"]), (200, &"queued".into()));
    assert!(begun.elapsed() >= Duration::from_millis(120));
    let leased = server.lease().await;
    server.settle(leased, Ok("x")).await;
    // Of a job that has finished already, the answer is there at once.
    assert_eq!(server.get(&format!("/v1/jobs/{id}?wait=60s")).await.json()["state"], "succeeded");
}

#[tokio::test]
async fn a_wait_has_a_unit() {
    let server = Server::start().await;
    let id = server.submit().await;
    for bad in ["5", "soon", "-1s", ""] {
        server.get(&format!("/v1/jobs/{id}?wait={bad}")).await.problem(400, "bad_query");
    }
}

#[tokio::test]
async fn unknown_and_malformed_ids_are_told_apart() {
    let server = Server::start().await;
    let unknown = "01890a5d-ac96-774b-bcce-b302099a8057";
    for (method, rest) in [
        ("GET", ""),
        ("GET", "?wait=1s"),
        ("GET", "/result"),
        ("GET", "/logs"),
        ("GET", "/input"),
        ("POST", "/cancel"),
        ("POST", "/retry"),
    ] {
        server.send(method, &format!("/v1/jobs/{unknown}{rest}"), &[], "").await.problem(404, "unknown_job");
        server.send(method, &format!("/v1/jobs/42{rest}"), &[], "").await.problem(400, "bad_job_id");
    }
}
