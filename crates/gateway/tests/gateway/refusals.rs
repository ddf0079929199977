//! What the queue refuses, as clients see it; and that nobody sees its inner words.

use kvern_core::JobId;
use kvern_queue::Error;

use crate::server::Server;

const JOBS: &str = "/v1/functions/hello/jobs";
const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

#[tokio::test]
async fn each_refusal_of_the_queue_has_its_status_and_code() {
    let server = Server::start().await;
    let id: JobId = ID.parse().expect("an id");
    let cases = [
        (Error::Full { function: "hello".parse().expect("a name"), limit: 7 }, 429, "queue_full", "1"),
        (Error::TooLarge { bytes: 9, limit: 8 }, 413, "payload_too_large", ""),
        (Error::KeyReused(id), 422, "idempotency_key_reused", ""),
        (Error::NoSpace("INNER".to_owned()), 503, "no_space", "10"),
        (Error::Busy("INNER".to_owned()), 503, "too_busy", "1"),
        (Error::Disk("INNER".to_owned()), 503, "store_unavailable", "10"),
        (Error::Unknown("INNER".to_owned()), 503, "store_unknown", "5"),
        (Error::Closed("INNER".to_owned()), 503, "store_closed", "5"),
        (Error::Broken("INNER".to_owned()), 500, "internal", ""),
        (Error::StaleLease(id), 500, "internal", ""),
    ];
    for (error, status, code, retry_after) in cases {
        server.queue.fail_next(error);
        let answer = server.post(JOBS, "hi").await;
        answer.problem(status, code);
        assert_eq!(answer.header("retry-after"), retry_after, "{code}");
        assert!(!answer.text().contains("INNER"), "{}", answer.text());
        assert_eq!(answer.header("kvern-error"), "platform");
    }
    assert_eq!(server.jobs(), 0);
}

#[tokio::test]
async fn damaged_bytes_are_not_given_out() {
    let server = Server::start().await;
    let id = server.submit().await;
    server.queue.fail_next(Error::Damaged(id.parse().expect("an id")));
    let problem = server.get(&format!("/v1/jobs/{id}/input")).await.problem(500, "damaged");
    assert_eq!(problem["retryable"], false);
}

#[tokio::test]
async fn a_full_queue_refuses_and_keeps_what_it_has() {
    let server = Server::start().await;
    for _ in 0..2 {
        assert_eq!(server.post("/v1/functions/small/jobs", "").await.status, 202);
    }
    let answer = server.post("/v1/functions/small/jobs", "").await;
    let problem = answer.problem(429, "queue_full");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("max_queued")));
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(server.jobs(), 2);
}

#[tokio::test]
async fn an_unknown_function_is_named_with_its_neighbour() {
    let server = Server::start().await;
    let problem = server.post("/v1/functions/helo/jobs", "").await.problem(404, "unknown_function");
    assert_eq!(problem["hint"], "did you mean `hello`?");
    for (method, path) in
        [("POST", "/v1/functions/nobody"), ("GET", "/v1/functions/nobody"), ("POST", "/v1/functions/HELLO/jobs")]
    {
        server.send(method, path, &[], "").await.problem(404, "unknown_function");
    }
}

#[tokio::test]
async fn wrong_options_store_nothing() {
    let server = Server::start().await;
    for query in [
        "dealy=5m",
        "delay=5",
        "priority=11",
        "tag=novalue",
        "expires_in=0",
        "delay=1h&expires_in=1m",
        "tag=a:1&tag=a:2",
    ] {
        server.post(&format!("{JOBS}?{query}"), "").await.problem(400, "bad_query");
    }
    let headers = [("content-type", "text/\u{e9}")];
    server.send("POST", JOBS, &headers, "").await.problem(400, "bad_request");
    assert_eq!(server.jobs(), 0);
}
