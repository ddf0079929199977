//! The end of a gateway.

use std::time::Duration;

use kvern_gateway::{Drained, Limits};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::client::{begin, until, until_closed, whole, within};
use crate::server::Server;

#[tokio::test]
async fn open_requests_are_finished_and_nothing_new_is_taken() {
    let server = Server::start().await;
    let held = server.queue.gate.acquire_many(crate::fakes::GATE).await.expect("open");
    let mut stream = TcpStream::connect(server.address).await.expect("the gateway listens");
    stream.write_all(b"POST /v1/functions/hello/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\nExpect: 100-continue\r\n\r\n").await.expect("sent");
    // The body is asked for, so the request is open.
    until(&mut stream, "100 Continue").await;
    server.stop.cancel();
    drop(held);
    stream.write_all(&[b'x'; 100_000]).await.expect("sent");
    let answer = until_closed(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    assert_eq!(within(server.ended).await.expect("no panic"), Drained { cut_off: 0 });
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn idle_connections_are_closed_and_waits_end_at_once() {
    let server = Server::start().await;
    let id = server.submit().await;
    let mut idle = TcpStream::connect(server.address).await.expect("the gateway listens");
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    until(&mut idle, "ok\n").await;
    let logs = begin(server.address, "GET", &format!("/v1/jobs/{id}/logs?follow"), &[], "").await;
    let events = begin(server.address, "GET", "/ui/events", &[], "").await;
    let path = format!("/v1/jobs/{id}?wait=60s");
    let waiting = server.get(&path);
    let stop = async {
        // The wait has begun once its connection is there: it is the fifth, and its request came with it.
        server.until_metric("kvern_http_connections 5").await;
        server.stop.cancel();
    };
    let (answer, ()) = within(async { tokio::join!(waiting, stop) }).await;
    assert_eq!((answer.status, &answer.json()["state"]), (200, &"queued".into()));
    assert_eq!(whole(logs).await.status, 200);
    assert_eq!(whole(events).await.text(), "data: 1\n\n", "a page's stream ends, and is not broken off");
    assert_eq!(until_closed(&mut idle).await, "");
    assert_eq!(within(server.ended).await.expect("no panic"), Drained { cut_off: 0 });
}

#[tokio::test]
async fn what_does_not_end_is_cut_off() {
    let server = Server::with_limits(Limits { drain: Duration::from_millis(100), ..Limits::default() }).await;
    server.play(async |_| std::future::pending().await);
    let mut stream = TcpStream::connect(server.address).await.expect("the gateway listens");
    stream.write_all(b"POST /v1/functions/hello HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n").await.expect("sent");
    until(&mut stream, "100 Continue").await;
    stream.write_all(b"x").await.expect("sent");
    server.stop.cancel();
    assert_eq!(within(server.ended).await.expect("no panic"), Drained { cut_off: 1 });
}

#[tokio::test]
async fn a_job_that_was_begun_before_the_stop_is_taken() {
    let server = Server::start().await;
    let mut stream = TcpStream::connect(server.address).await.expect("the gateway listens");
    // The head is begun before the stop, so the connection is not idle.
    stream.write_all(b"POST /v1/functions/hello/jobs HTTP/1.1\r\nHost: localhost\r\n").await.expect("sent");
    server.until_metric("kvern_http_connections 2").await;
    server.stop.cancel();
    stream.write_all(b"Content-Length: 0\r\n\r\n").await.expect("sent");
    let answer = until_closed(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    assert_eq!(server.jobs(), 1);
}

/// As a client that came a moment before a restart: it is not to be told by a reset.
#[tokio::test]
async fn a_connection_that_was_accepted_before_the_stop_gets_its_answer() {
    let server = Server::start().await;
    let mut stream = TcpStream::connect(server.address).await.expect("the gateway listens");
    server.until_metric("kvern_http_connections 2").await;
    server.stop.cancel();
    // Once nobody listens any more, the stop has been heard.
    until_refused(server.address).await;
    let request = b"POST /v1/functions/hello/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(request).await.expect("sent");
    let answer = until_closed(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 202 ") && answer.contains("connection: close"), "{answer}");
    assert_eq!(within(server.ended).await.expect("no panic"), Drained { cut_off: 0 });
}

async fn until_refused(address: std::net::SocketAddr) {
    within(async { while TcpStream::connect(address).await.is_ok() {} }).await;
}

#[tokio::test]
async fn a_connection_that_has_said_nothing_holds_nothing_up() {
    let server = Server::start().await;
    let mut silent = TcpStream::connect(server.address).await.expect("the gateway listens");
    server.until_metric("kvern_http_connections 2").await;
    let begun = tokio::time::Instant::now();
    server.stop.cancel();
    assert_eq!(within(server.ended).await.expect("no panic"), Drained { cut_off: 0 });
    assert!(begun.elapsed() < Limits::default().head / 2, "it did not wait for a head");
    assert_eq!(until_closed(&mut silent).await, "");
}
