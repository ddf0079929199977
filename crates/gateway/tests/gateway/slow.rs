//! Clients that stall: every wait for them has an end.

use std::time::Duration;

use kvern_gateway::Limits;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::client::{until, until_closed};
use crate::server::Server;

const SOON: Duration = Duration::from_millis(150);
const LATE: Duration = Duration::from_secs(60);

async fn connected(server: &Server) -> TcpStream {
    TcpStream::connect(server.address).await.expect("the gateway listens")
}

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let server = Server::with_limits(Limits { head: SOON, idle: LATE, ..Limits::default() }).await;
    let mut stream = connected(&server).await;
    let begun = Instant::now();
    assert_eq!(until_closed(&mut stream).await, "");
    assert!(begun.elapsed() < LATE / 4);
}

#[tokio::test]
async fn half_a_head_is_closed() {
    let server = Server::with_limits(Limits { head: SOON, idle: LATE, ..Limits::default() }).await;
    let mut stream = connected(&server).await;
    stream.write_all(b"POST /v1/functions/hello/jobs HTTP/1.1\r\nHost: local").await.expect("sent");
    until_closed(&mut stream).await;
}

#[tokio::test]
async fn a_head_that_drips_is_closed() {
    let server = Server::with_limits(Limits { head: SOON, idle: LATE, ..Limits::default() }).await;
    let mut stream = connected(&server).await;
    let begun = Instant::now();
    let mut drip = tokio::time::interval(SOON / 10);
    // Each byte comes in time, the head as a whole does not.
    while stream.write_all(b"x").await.is_ok() {
        drip.tick().await;
        assert!(begun.elapsed() < LATE / 4, "it is still open");
    }
}

#[tokio::test]
async fn an_idle_connection_is_kept_for_a_while_and_then_closed() {
    let server = Server::with_limits(Limits { head: SOON / 3, idle: SOON * 2, ..Limits::default() }).await;
    let mut stream = connected(&server).await;
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request).await.expect("sent");
    until(&mut stream, "ok\n").await;
    let begun = Instant::now();
    assert_eq!(until_closed(&mut stream).await, "");
    assert!(begun.elapsed() >= SOON, "longer than a head may take");
}

#[tokio::test]
async fn half_a_body_is_answered_and_closed() {
    let server = Server::with_limits(Limits { body_idle: SOON, ..Limits::default() }).await;
    let mut stream = connected(&server).await;
    let head = b"POST /v1/functions/hello/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf";
    stream.write_all(head).await.expect("sent");
    let answer = until_closed(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("\"code\":\"body_timeout\""), "{answer}");
    assert_eq!(server.jobs(), 0);
}

#[tokio::test]
async fn a_body_that_drips_is_answered_and_closed() {
    let server = Server::with_limits(Limits { body: SOON, body_idle: LATE, ..Limits::default() }).await;
    let mut stream = connected(&server).await;
    let head = b"POST /v1/functions/hello/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n";
    stream.write_all(head).await.expect("sent");
    let (mut reader, mut writer) = stream.into_split();
    let drip = async {
        let mut drip = tokio::time::interval(SOON / 10);
        while writer.write_all(b"x").await.is_ok() {
            drip.tick().await;
        }
    };
    let answer = async {
        let mut answer = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut reader, &mut answer).await.expect("an answer");
        answer
    };
    let answer = tokio::select! {
        answer = answer => answer,
        () = drip => panic!("the connection broke before the answer came"),
    };
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn a_body_that_breaks_off_stores_nothing() {
    let server = Server::start().await;
    let mut stream = connected(&server).await;
    let head = b"POST /v1/functions/hello/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf";
    stream.write_all(head).await.expect("sent");
    stream.shutdown().await.expect("our side is closed");
    let answer = until_closed(&mut stream).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(server.jobs(), 0);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_off() {
    let server = Server::with_limits(Limits { write: SOON, ..Limits::default() }).await;
    server.play(async |_| {
        let endless = futures_util::stream::repeat_with(|| Ok(bytes::Bytes::from_static(&[0; 16 << 10])));
        let body = kvern_runtime::Body::Stream(Box::pin(endless));
        Ok(kvern_runtime::Reply { status: None, content_type: String::new(), body })
    });
    let mut stream = connected(&server).await;
    stream.write_all(b"POST /v1/functions/hello HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    // The only way to end is the server's: nothing is read here, and the answer has no end.
    server.until_metric("kvern_http_connections 1").await;
}

#[tokio::test]
async fn a_connection_beyond_the_bound_is_told_to_come_again() {
    let server = Server::with_limits(Limits { connections: 2, ..Limits::default() }).await;
    let (first, mut second) = (connected(&server).await, connected(&server).await);
    // Answered once, so both are accepted.
    second.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    until(&mut second, "ok\n").await;
    let refused = server.post("/v1/functions/hello/jobs", vec![0; 100_000]).await;
    refused.problem(503, "too_busy");
    assert_eq!((refused.header("retry-after"), refused.header("connection")), ("1", "close"));
    assert_eq!(server.get("/healthz").await.text(), "ok\n", "a probe is answered");
    assert_eq!(server.get("/readyz").await.status, 200);
    assert_eq!(server.jobs(), 0);
    drop(first);
    crate::client::within(async { while server.get("/v1/jobs").await.status != 200 {} }).await;
}
