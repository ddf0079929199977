//! Request bodies and their bounds.

use bytes::Bytes;
use kvern_gateway::Limits;
use kvern_queue::{Error, Payload};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::client::{raw, until, until_closed};
use crate::server::Server;

const JOBS: &str = "/v1/functions/hello/jobs";
const SMALL: &str = "/v1/functions/small/jobs";

fn chunked(path: &str, chunks: &[&[u8]]) -> Vec<u8> {
    let mut request =
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
            .into_bytes();
    for chunk in chunks {
        request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        request.extend_from_slice(chunk);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    request
}

#[tokio::test]
async fn bodies_of_every_size_come_back_byte_for_byte() {
    let server = Server::start().await;
    for size in [0usize, 1, 8191, 8193, 65_535, 65_536, 65_537, 1 << 20] {
        let body: Vec<u8> = (0..size).map(|at| (at * 7 % 251) as u8).collect();
        assert_eq!(server.post(JOBS, body.clone()).await.status, 202, "{size}");
        let leased = server.lease().await;
        assert_eq!(leased.input, Payload::Inline(Bytes::from(body)), "{size}");
    }
}

#[tokio::test]
async fn chunked_bodies_come_whole() {
    let server = Server::start().await;
    let large = vec![b'x'; 100_000];
    for chunks in [&[&b"one"[..], b"two"][..], &[&large, &large, b"end"]] {
        let answer = raw(server.address, &chunked(JOBS, chunks)).await;
        assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
        assert_eq!(server.lease().await.input, Payload::Inline(chunks.concat().into()));
    }
}

#[tokio::test]
async fn a_large_body_is_refused_before_it_is_written_where_there_is_no_room() {
    let server = Server::start().await;
    *server.queue.tightness.lock().expect("no panic in here") = Some(Error::NoSpace("1 MiB free".to_owned()));
    let mut stream = TcpStream::connect(server.address).await.expect("the gateway listens");
    let head = format!("POST {JOBS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n");
    // Less than the whole body, and the answer comes.
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream.write_all(&[b'x'; 100_000]).await.expect("sent");
    let answer = until(&mut stream, "nothing was stored").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("no_space"), "{answer}");
    assert_eq!(server.jobs(), 0);
}

#[tokio::test]
async fn an_announced_size_over_the_limit_is_refused_before_the_body() {
    let server = Server::start().await;
    // Nothing of the body is sent, and the answer comes.
    let mut stream = TcpStream::connect(server.address).await.expect("the gateway listens");
    let head = format!("POST {SMALL} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1001\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let answer = until(&mut stream, "kvern.toml").await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(
        answer.contains("the input has 1001 bytes; `small` takes at most 1000 bytes (its `max_input`)"),
        "{answer}"
    );
    assert_eq!(server.jobs(), 0);
}

#[tokio::test]
async fn a_body_that_grows_over_the_limit_is_refused() {
    let server = Server::start().await;
    let answer = raw(server.address, &chunked(SMALL, &[&[1; 600], &[2; 600]])).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("more than 1000 bytes"), "{answer}");
    assert_eq!(server.jobs(), 0);
    assert_eq!(server.post(SMALL, vec![0; 1000]).await.status, 202);
}

#[tokio::test]
async fn a_client_that_sends_all_before_it_reads_still_sees_the_refusal() {
    let server = Server::start().await;
    // Ten megabytes do not fit into the sockets' buffers: closing at once would reset the connection.
    let mut request =
        b"POST /v1/functions/small/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\n".to_vec();
    request.resize(request.len() + 10_000_000, b'x');
    let answer = raw(server.address, &request).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
}

#[tokio::test]
async fn an_unknown_function_is_told_without_reading_the_body() {
    let server = Server::start().await;
    let mut stream = TcpStream::connect(server.address).await.expect("the gateway listens");
    let head = "POST /v1/functions/nobody/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("sent");
    let answer = until(&mut stream, "kvern.toml").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "no `100 Continue` comes first: {answer}");
}

#[tokio::test]
async fn the_bytes_in_flight_are_bounded() {
    let server = Server::with_limits(Limits { body_bytes: 10_000, ..Limits::default() }).await;
    let all = server.queue.gate.acquire_many(crate::fakes::GATE).await.expect("open");
    // Two bodies of 4,000 bytes are held by the queue, a third has no room.
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(server.address).await.expect("the gateway listens");
        let head =
            format!("POST {JOBS} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 4000\r\n\r\n");
        stream.write_all(&[head.as_bytes(), &[b'x'; 4000]].concat()).await.expect("sent");
        held.push(stream);
    }
    let third = loop {
        let answer = server.post(JOBS, vec![0; 4000]).await;
        // Until both are in, the third may be the one that fits, and is then held as well.
        if answer.status == 503 {
            break answer;
        }
    };
    let problem = third.problem(503, "too_busy");
    assert_eq!(problem["retryable"], true);
    assert_eq!(third.header("retry-after"), "1");
    assert_eq!(third.header("connection"), "", "such a body is in the buffer already");
    drop(all);
    for mut stream in held {
        assert!(until_closed(&mut stream).await.starts_with("HTTP/1.1 202 "));
    }
    assert_eq!(server.post(JOBS, vec![0; 4000]).await.status, 202, "the room came back");
}

#[tokio::test]
async fn a_head_has_its_bounds() {
    let server = Server::start().await;
    let long = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(40_000));
    assert!(raw(server.address, long.as_bytes()).await.starts_with("HTTP/1.1 431 "));
    let many = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: y\r\n".repeat(70));
    assert!(raw(server.address, many.as_bytes()).await.starts_with("HTTP/1.1 431 "));
}
