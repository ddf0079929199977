//! Calls: the function's answer, untouched, or why there is none.

use kvern_core::{Failure, FailureCode};
use kvern_runtime::{Body, CallError, Reply};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::client::{begin, until, until_closed, within};
use crate::fakes::collect;
use crate::server::Server;

const HELLO: &str = "/v1/functions/hello";

#[tokio::test]
async fn a_call_gives_the_function_s_bytes() {
    let server = Server::start().await;
    let answer = server.send("POST", HELLO, &[("content-type", "text/x-poem")], "roses").await;
    assert_eq!((answer.status, answer.text()), (200, "roses"));
    assert_eq!(answer.header("content-type"), "text/x-poem");
    assert_eq!(server.jobs(), 0, "nothing is stored");
}

#[tokio::test]
async fn a_large_call_is_streamed_both_ways() {
    let server = Server::start().await;
    let body: Vec<u8> = (0..500_000u32).map(|at| (at % 253) as u8).collect();
    let answer = server.post(HELLO, body.clone()).await;
    assert_eq!((answer.status, answer.body.len()), (200, body.len()));
    assert_eq!(answer.body, body);
}

#[tokio::test]
async fn the_function_s_own_errors_pass_through() {
    let server = Server::start().await;
    server.play(async |_| {
        let body = Body::Bytes("{\"mine\":true}".into());
        Ok(Reply { status: Some(418), content_type: "application/x-mine".to_owned(), body })
    });
    let answer = server.post(HELLO, "").await;
    assert_eq!((answer.status, answer.text()), (418, "{\"mine\":true}"));
    assert_eq!(answer.header("content-type"), "application/x-mine");
    assert_eq!(answer.header("kvern-error"), "function");
}

#[tokio::test]
async fn a_function_s_page_lives_in_an_origin_of_its_own() {
    let server = Server::start().await;
    server.play(async |_| {
        let body = Body::Bytes("<script>fetch('/v1/jobs')</script>".into());
        Ok(Reply { status: None, content_type: "text/html".to_owned(), body })
    });
    for answer in [server.get("/report").await, server.post(HELLO, "").await] {
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("sandbox ") && policy.contains("allow-scripts"), "{policy}");
        assert!(!policy.contains("allow-same-origin"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("content-type"), "text/html");
    }
}

#[tokio::test]
async fn a_failed_call_says_what_the_function_said() {
    let server = Server::start().await;
    for (code, status, word) in [
        (FailureCode::Exception, 502, "function_failed"),
        (FailureCode::Crash, 502, "function_failed"),
        (FailureCode::CannotStart, 502, "function_failed"),
        (FailureCode::Timeout, 504, "timeout"),
        (FailureCode::BadInput, 400, "bad_input"),
    ] {
        server.play(move |_| {
            let failure = Failure::new(code, "no such file").with_class("OSError").with_trace("line 1\nline 2");
            async { Err(CallError::Failed(failure)) }
        });
        let answer = server.post(HELLO, "").await;
        let problem = answer.problem(status, word);
        assert_eq!(problem["detail"], "`hello` failed: OSError: no such file");
        assert_eq!(problem["error"]["code"], code.as_str());
        assert_eq!(problem["error"]["class"], "OSError");
        assert_eq!(problem["error"]["trace"], "line 1\nline 2");
        assert_eq!(problem["retryable"], code.retryable());
        assert_eq!(answer.header("kvern-error"), "function");
    }
}

#[tokio::test]
async fn a_call_that_finds_no_slot_is_sent_away() {
    let server = Server::start().await;
    server.play(async |call| Err(CallError::Busy { function: call.function, retry_after_s: 7 }));
    let answer = server.post(HELLO, "").await;
    answer.problem(503, "too_busy");
    assert_eq!(answer.header("retry-after"), "7");
    assert_eq!(answer.header("kvern-error"), "platform");
    server.play(async |call| Err(CallError::NoRoom { function: call.function, retry_after_s: 3 }));
    let answer = server.post(HELLO, "").await;
    let detail = answer.problem(503, "too_busy")["detail"].to_string();
    assert!(detail.contains("no open files") && !detail.contains("is busy"), "{detail}");
    assert_eq!(answer.header("retry-after"), "3");
    server.play(async |_| Err(CallError::Stopping));
    server.post(HELLO, "").await.problem(503, "stopping");
    server.play(async |call| Err(CallError::UnknownFunction(call.function)));
    server.post(HELLO, "").await.problem(404, "unknown_function");
}

#[tokio::test]
async fn an_input_that_finds_no_room_is_the_platform_s_error() {
    let server = Server::start().await;
    type Made = fn(String) -> CallError;
    let cases: [(Made, u16, &str, &str); 4] = [
        (CallError::NoSpace, 503, "no_space", "10"),
        (CallError::Disk, 503, "store_unavailable", "10"),
        (CallError::Scarce, 503, "too_busy", "1"),
        (CallError::Broken, 500, "internal", ""),
    ];
    for (made, status, code, retry_after) in cases {
        server.play(move |_| async move { Err(made("INNER".to_owned())) });
        let answer = server.post(HELLO, vec![b'x'; 100_000]).await;
        answer.problem(status, code);
        assert_eq!(answer.header("retry-after"), retry_after, "{code}");
        assert_eq!(answer.header("kvern-error"), "platform");
        assert!(!answer.text().contains("INNER"), "{}", answer.text());
    }
}

#[tokio::test]
async fn a_call_takes_no_options_of_a_job() {
    let server = Server::start().await;
    server.post("/v1/functions/hello?delay=5s", "").await.problem(400, "bad_query");
    let prefer = [("prefer", "respond-async")];
    let answer = server.send("POST", "/v1/functions/hello?delay=5s", &prefer, "").await;
    assert_eq!(answer.json()["state"], "scheduled");
}

#[tokio::test]
async fn a_key_that_a_call_cannot_keep_is_refused() {
    let server = Server::start().await;
    server.play(async |_| panic!("the function must not run"));
    for key in ["k1", "not a key"] {
        server.send("POST", HELLO, &[("idempotency-key", key)], "").await.problem(400, "bad_idempotency_key");
        server.send("GET", "/report", &[("idempotency-key", key)], "").await.problem(400, "bad_idempotency_key");
    }
    let job = [("idempotency-key", "k1"), ("prefer", "respond-async")];
    assert_eq!(server.send("POST", HELLO, &job, "").await.status, 202, "a job takes it");
}

#[tokio::test]
async fn a_streamed_input_over_the_limit_is_a_413_whatever_the_function_makes_of_it() {
    let server = Server::start().await;
    server.play(async |call| match collect(call.body).await {
        Ok(_) => panic!("the body is too large"),
        Err(error) => Err(CallError::Failed(Failure::new(FailureCode::Exception, error.to_string()))),
    });
    let mut request =
        b"POST /v1/functions/small HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n".to_vec();
    request.extend_from_slice(&[b'x'; 2000]);
    request.extend_from_slice(b"\r\n0\r\n\r\n");
    let mut stream = tokio::net::TcpStream::connect(server.address).await.expect("the gateway listens");
    tokio::io::AsyncWriteExt::write_all(&mut stream, &request).await.expect("sent");
    let answer = crate::client::until(&mut stream, "kvern.toml").await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn a_synchronous_route_is_a_call() {
    let server = Server::start().await;
    server.play(async |call| {
        assert_eq!(call.function.as_str(), "report");
        Ok(Reply { status: None, content_type: "text/csv".to_owned(), body: Body::Bytes("a,b".into()) })
    });
    let answer = server.get("/report?year=2026").await;
    assert_eq!((answer.status, answer.text(), answer.header("content-type")), (200, "a,b", "text/csv"));
    let head = server.send("HEAD", "/report", &[], "").await;
    assert_eq!((head.status, head.text(), head.header("content-length")), (200, "", "3"));
}

#[tokio::test]
async fn a_look_at_the_head_of_a_route_submits_nothing() {
    let server = Server::start().await;
    assert_eq!(server.get("/hook").await.status, 202);
    let head = server.send("HEAD", "/hook", &[], "").await;
    assert_eq!((head.status, head.header("allow")), (405, "GET, OPTIONS"));
    let head = server.send("HEAD", "/report", &[("prefer", "respond-async")], "").await;
    assert_eq!(head.status, 405);
    assert_eq!(server.jobs(), 1);
}

#[tokio::test]
async fn an_image_on_another_site_runs_no_function() {
    let server = Server::start().await;
    server.play(async |_| panic!("the function must not run"));
    for path in ["/hook", "/report"] {
        let answer = server.send("GET", path, &[("sec-fetch-site", "cross-site")], "").await;
        answer.problem(403, "forbidden_host");
    }
    assert_eq!(server.jobs(), 0);
    for site in ["none", "same-origin"] {
        assert_eq!(server.send("GET", "/hook", &[("sec-fetch-site", site)], "").await.status, 202, "{site}");
    }
    let page = server.send("GET", "/ui", &[("sec-fetch-site", "cross-site")], "").await;
    assert_eq!(page.status, 200, "a link to the console is a link");
    let token = kvern_gateway::Token::new("s3cret");
    let guarded = Server::with(kvern_gateway::Settings { token: Some(token), ..Default::default() }).await;
    let headers = [("sec-fetch-site", "cross-site"), ("authorization", "Bearer s3cret")];
    assert_eq!(guarded.send("GET", "/hook", &headers, "").await.status, 202, "who has the token may");
}

#[tokio::test]
async fn a_caller_that_leaves_drops_the_call() {
    let server = Server::start().await;
    let (tell_begun, begun) = oneshot::channel();
    let (tell_dropped, dropped) = oneshot::channel::<()>();
    let once = std::sync::Mutex::new(Some((tell_begun, tell_dropped)));
    server.play(move |_| {
        let (begun, held) = once.lock().expect("no panic in here").take().expect("one call is made");
        async move {
            let _ = begun.send(());
            let _held = held;
            std::future::pending().await
        }
    });
    let address = server.address;
    let caller = tokio::spawn(async move { begin(address, "POST", HELLO, &[], "").await });
    within(begun).await.expect("the call began");
    caller.abort();
    // The sender is dropped with the call.
    assert!(within(dropped).await.is_err());
}

#[tokio::test]
async fn a_call_that_never_begins_says_what_may_be_the_reason() {
    let server = Server::start().await;
    let (tell_begun, begun) = oneshot::channel();
    let once = std::sync::Mutex::new(Some(tell_begun));
    server.play(move |_| {
        let _ = once.lock().expect("no panic in here").take().expect("one call is made").send(());
        std::future::pending()
    });
    let address = server.address;
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("the gateway listens");
    let request = format!("POST {HELLO} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.expect("it is sent");
    within(begun).await.expect("the call began");
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(3600)).await;
    tokio::time::resume();
    let answer = crate::client::until_closed(&mut stream).await;
    assert!(answer.contains("a file whose import never returns"), "{answer}");
}

#[tokio::test]
async fn a_file_is_streamed_with_its_length() {
    let server = Server::start().await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), vec![b'z'; 100_000]).expect("written");
    let path = file.path().to_owned();
    server.play(move |_| {
        let body = Body::File(path.clone(), 100_000);
        async move { Ok(Reply { status: Some(201), content_type: "image/png".to_owned(), body }) }
    });
    let answer = server.post(HELLO, "").await;
    assert_eq!((answer.status, answer.body.len(), answer.header("content-length")), (201, 100_000, "100000"));
}

#[tokio::test]
async fn a_panic_in_one_request_is_the_end_of_that_one_alone() {
    let server = Server::start().await;
    let mut other = TcpStream::connect(server.address).await.expect("the gateway listens");
    server.play(async |_| panic!("a mistake of ours"));
    let mut unlucky = TcpStream::connect(server.address).await.expect("the gateway listens");
    let request = format!("POST {HELLO} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    unlucky.write_all(request.as_bytes()).await.expect("sent");
    assert_eq!(until_closed(&mut unlucky).await, "", "nobody knows what would have been the answer");
    other.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    until(&mut other, "ok\n").await;
    server.until_metric("kvern_http_connections 2").await;
}
