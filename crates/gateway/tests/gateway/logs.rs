//! The log of a job, read at once or followed.

use bytes::Bytes;
use http_body_util::BodyExt;
use kvern_queue::Queue;

use crate::client::{begin, within};
use crate::server::Server;

#[tokio::test]
async fn a_log_is_text_from_any_offset() {
    let server = Server::start().await;
    let id = server.submit().await;
    assert_eq!(server.get(&format!("/v1/jobs/{id}/logs")).await.text(), "");
    let leased = server.lease().await;
    let lines = Bytes::from(b"0123456789".repeat(5000));
    server.queue.append_log(leased.lease.token(), lines.clone()).await.expect("the lease stands");
    let answer = server.get(&format!("/v1/jobs/{id}/logs")).await;
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(answer.body, lines);
    assert_eq!(server.get(&format!("/v1/jobs/{id}/logs?offset=49995")).await.text(), "56789");
    assert_eq!(server.get(&format!("/v1/jobs/{id}/logs?offset=60000")).await.text(), "");
    server.get(&format!("/v1/jobs/{id}/logs?offset=x")).await.problem(400, "bad_query");
    server.get(&format!("/v1/jobs/{id}/logs?follow=maybe")).await.problem(400, "bad_query");
}

#[tokio::test]
async fn a_followed_log_ends_with_its_job() {
    let server = Server::start().await;
    let id = server.submit().await;
    let leased = server.lease().await;
    let token = leased.lease.token();
    let mut body = begin(server.address, "GET", &format!("/v1/jobs/{id}/logs?follow"), &[], "").await.into_body();
    for line in ["one\n", "two\n"] {
        server.queue.append_log(token, Bytes::from_static(line.as_bytes())).await.expect("the lease stands");
        let frame = within(body.frame()).await.expect("more comes").expect("no error");
        assert_eq!(frame.into_data().expect("data"), line.as_bytes());
    }
    server.settle(leased, Ok("done")).await;
    let rest = within(body.collect()).await.expect("it ends well").to_bytes();
    assert_eq!(rest, b"last line\n"[..]);
}
