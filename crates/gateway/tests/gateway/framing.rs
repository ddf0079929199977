//! Requests that two servers could cut differently: refused, and the connection closed.

use crate::client::raw;
use crate::server::Server;

#[tokio::test]
async fn ambiguous_framing_is_refused_and_the_connection_closed() {
    let server = Server::start().await;
    for framing in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length : 5\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer_Encoding: chunked\r\n",
        "Content_Length: 5\r\n",
        "X: a\r\n Content-Length: 5\r\n",
        "X: a\nContent-Length: 5\r\n",
    ] {
        // Whatever the body is taken for, a second request stands behind it.
        let request = format!(
            "POST /v1/functions/hello/jobs HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        );
        let answer = raw(server.address, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{framing:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{framing:?}: {answer}");
    }
    assert_eq!(server.jobs(), 0);
}

#[tokio::test]
async fn what_came_before_is_still_answered() {
    let server = Server::start().await;
    let good = "POST /v1/functions/hello/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi";
    let bad =
        "POST /v1/functions/hello/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi";
    let answer = raw(server.address, format!("{good}{good}{bad}{good}").as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 202 ").count(), 2, "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 400 ").count(), 1, "{answer}");
    assert_eq!(server.jobs(), 2);
}

#[tokio::test]
async fn a_client_that_speaks_http2_at_once_is_answered() {
    let server = Server::start().await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let answer = raw(server.address, preface).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn a_request_without_a_host_is_refused() {
    let server = Server::start().await;
    let close = "Connection: close\r\n\r\n";
    let none = raw(server.address, format!("GET /v1/jobs HTTP/1.1\r\n{close}").as_bytes()).await;
    assert!(none.starts_with("HTTP/1.1 400 "), "{none}");
    let old = raw(server.address, b"GET /healthz HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200 "), "{old}");
    let garbage = raw(server.address, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await;
    assert!(garbage.is_empty() || garbage.starts_with("HTTP/1.1 400 "), "{garbage}");
}

#[tokio::test]
async fn a_foreign_host_in_the_target_is_refused() {
    let server = Server::start().await;
    for (host, status) in [("evil.example", 403), ("localhost", 200)] {
        let request =
            format!("GET http://{host}/v1/functions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer = raw(server.address, request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
}
