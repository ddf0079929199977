//! `Idempotency-Key`: one request, one job, however often it is sent.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use crate::server::Server;

const JOBS: &str = "/v1/functions/hello/jobs";

#[tokio::test]
async fn the_same_key_gives_the_same_job() {
    let server = Server::start().await;
    let first = server.send("POST", JOBS, &[("idempotency-key", "order-17")], "body").await;
    let second = server.send("POST", JOBS, &[("idempotency-key", "\"order-17\"")], "body").await;
    assert_eq!((first.status, second.status), (202, 202));
    assert_eq!(first.id(), second.id());
    assert_eq!(first.json().get("duplicate"), None);
    assert_eq!(second.json()["duplicate"], true);
    assert_eq!(server.jobs(), 1);
    let other = server.send("POST", "/v1/functions/small/jobs", &[("idempotency-key", "order-17")], "body").await;
    assert_ne!(other.id(), first.id(), "a key belongs to one function");
}

#[tokio::test]
async fn twins_that_run_at_the_same_time_become_one_job() {
    let server = Server::start().await;
    let key = [("idempotency-key", "twin")];
    let twins = join_all((0..16).map(|_| server.send("POST", JOBS, &key, "body"))).await;
    let ids: BTreeSet<String> = twins.iter().map(crate::client::Answer::id).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(twins.iter().filter(|twin| twin.json().get("duplicate").is_none()).count(), 1);
    assert_eq!(server.jobs(), 1);
}

#[tokio::test]
async fn another_body_or_content_type_under_the_key_is_refused() {
    let server = Server::start().await;
    let key = ("idempotency-key", "k");
    let first = server.send("POST", JOBS, &[key], "one").await.id();
    let other_body = server.send("POST", JOBS, &[key], "two").await;
    assert_eq!(other_body.problem(422, "idempotency_key_reused")["job"], first);
    let other_type = server.send("POST", JOBS, &[key, ("content-type", "text/plain")], "one").await;
    other_type.problem(422, "idempotency_key_reused");
    assert_eq!(server.jobs(), 1);
}

#[tokio::test]
async fn a_large_body_is_hashed_as_it_comes() {
    let server = Server::start().await;
    let key = [("idempotency-key", "large")];
    let body = vec![7u8; 300_000];
    let first = server.send("POST", JOBS, &key, body.clone()).await.id();
    assert_eq!(server.send("POST", JOBS, &key, body.clone()).await.id(), first);
    let changed = [&body[..299_999], b"x"].concat();
    server.send("POST", JOBS, &key, changed).await.problem(422, "idempotency_key_reused");
}

#[tokio::test]
async fn a_malformed_key_is_refused_before_anything_is_stored() {
    let server = Server::start().await;
    for key in ["order 17", "", "\"\"", &"k".repeat(256)] {
        let answer = server.send("POST", JOBS, &[("idempotency-key", key)], "body").await;
        answer.problem(400, "bad_idempotency_key");
    }
    assert_eq!(server.jobs(), 0);
}
