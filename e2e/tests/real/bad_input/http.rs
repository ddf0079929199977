//! Requests that the gateway refuses.

use kvern_e2e::Server;

use super::stage::{GOOD, Shared, nothing_is_lost, problem, raw};
use super::table::told;

const GREET: &str = "def greet(name: str, greeting: str = \"hello\"):\n    return f\"{greeting}, {name}\"\n";

static SERVER: Shared = Shared::new(&["python3"], || {
    let functions = "\
        [functions.greet]\nhandler = \"greet.py:greet\"\n\n\
        [functions.small]\nexec = [\"cat\"]\nmax_input = 1000\n\n\
        [functions.full]\nexec = [\"cat\"]\nmax_queued = 1\n";
    Server::start(&[("kvern.toml", &format!("{GOOD}{functions}")), ("greet.py", GREET)])
});

#[test]
fn unknown_function() {
    let Some(server) = SERVER.get() else { return };
    let answer = nothing_is_lost(&server.http, || server.http.post("/v1/functions/gret/jobs", "{}"));
    told("an unknown function").is(&problem(&answer));
}

#[test]
fn unknown_path() {
    let Some(server) = SERVER.get() else { return };
    let answer = nothing_is_lost(&server.http, || server.http.get("/v1/job"));
    told("an unknown path").is(&problem(&answer));
}

#[test]
fn wrong_method() {
    let Some(server) = SERVER.get() else { return };
    let answer = nothing_is_lost(&server.http, || server.http.ask("DELETE", "/v1/functions/good", &[], b""));
    told("a wrong method").is(&problem(&answer));
}

#[test]
fn body_over_the_limit() {
    let Some(server) = SERVER.get() else { return };
    let http = &server.http;
    let answer = nothing_is_lost(http, || http.post("/v1/functions/small/jobs", &"x".repeat(1001)));
    told("a body over the limit").is(&problem(&answer));
    assert_eq!(http.post("/v1/functions/small/jobs", &"x".repeat(1000)).status, 202, "the limit itself is allowed");
}

#[test]
fn body_over_the_limit_in_chunks() {
    let Some(server) = SERVER.get() else { return };
    let head = "POST /v1/functions/small/jobs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
    let chunk = format!("1f4\r\n{}\r\n", "x".repeat(500));
    let request = format!("{head}transfer-encoding: chunked\r\n\r\n{chunk}{chunk}{chunk}0\r\n\r\n");
    let answer = nothing_is_lost(&server.http, || raw(&server.http, &request));
    told("a body over the limit, in chunks").is(&problem(&answer));
}

#[test]
fn bad_json_in_a_call() {
    let Some(server) = SERVER.get() else { return };
    let answer = nothing_is_lost(&server.http, || server.http.post("/v1/functions/greet", r#"{"name": }"#));
    told("bad JSON in a call").is(&problem(&answer));
}

#[test]
fn missing_argument() {
    let Some(server) = SERVER.get() else { return };
    let answer = nothing_is_lost(&server.http, || server.http.post("/v1/functions/greet", r#"{"greeting": "hi"}"#));
    told("a missing argument").is(&problem(&answer));
}

#[test]
fn wrong_argument() {
    let Some(server) = SERVER.get() else { return };
    let answer = nothing_is_lost(&server.http, || {
        server.http.post("/v1/functions/greet", r#"{"name": "Ada", "greting": "hi"}"#)
    });
    told("a wrong argument").is(&problem(&answer));
}

#[test]
fn malformed_idempotency_key() {
    let Some(server) = SERVER.get() else { return };
    let answer = nothing_is_lost(&server.http, || {
        server.http.ask("POST", "/v1/functions/good/jobs", &[("idempotency-key", "order 17")], b"{}")
    });
    told("a malformed Idempotency-Key").is(&problem(&answer));
}

#[test]
fn idempotency_key_on_a_call() {
    let Some(server) = SERVER.get() else { return };
    let answer = nothing_is_lost(&server.http, || {
        server.http.ask("POST", "/v1/functions/good", &[("idempotency-key", "order-17")], b"{}")
    });
    told("an Idempotency-Key on a call").is(&problem(&answer));
}

#[test]
fn same_key_with_another_body() {
    let Some(server) = SERVER.get() else { return };
    let http = &server.http;
    let send = |body: &[u8]| http.ask("POST", "/v1/functions/good/jobs", &[("idempotency-key", "order-17")], body);
    let first = send(b"one");
    let answer = nothing_is_lost(http, || send(b"another"));
    told("the same Idempotency-Key with another body").is(&problem(&answer));
    assert_eq!(answer.json()["job"], first.json()["id"], "it names the job that has the key");
    assert_eq!(send(b"one").json()["id"], first.json()["id"], "the first body still gets its job");
}

#[test]
fn full_queue() {
    let Some(server) = SERVER.get() else { return };
    let http = &server.http;
    assert_eq!(http.post("/v1/functions/full/pause", "").status, 200);
    let first = http.submit("full", "{}");
    let answer = nothing_is_lost(http, || http.post("/v1/functions/full/jobs", "{}"));
    told("a full queue").is(&problem(&answer));
    assert_eq!(http.post("/v1/functions/full/resume", "").status, 200);
    assert_eq!(http.finished(&first)["state"], "succeeded");
    assert_eq!(http.finished(&http.submit("full", "{}"))["state"], "succeeded", "there is room again");
}

#[test]
fn foreign_host() {
    let Some(server) = SERVER.get() else { return };
    let request = "GET /v1/jobs HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n";
    let answer = nothing_is_lost(&server.http, || raw(&server.http, request));
    told("a foreign Host").is(&problem(&answer));
}

#[test]
fn foreign_host_in_the_target() {
    let Some(server) = SERVER.get() else { return };
    let request = "GET http://evil.example/v1/jobs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let answer = nothing_is_lost(&server.http, || raw(&server.http, request));
    told("a foreign host in the target").is(&problem(&answer));
}

#[test]
fn two_content_types() {
    let Some(server) = SERVER.get() else { return };
    let types = [("content-type", "image/jpeg"), ("content-type", "application/json")];
    let answer = nothing_is_lost(&server.http, || server.http.ask("POST", "/v1/functions/good/jobs", &types, b"{}"));
    told("two Content-Type headers").is(&problem(&answer));
}

#[test]
fn foreign_page() {
    let Some(server) = SERVER.get() else { return };
    let answer = nothing_is_lost(&server.http, || {
        server.http.ask("POST", "/v1/functions/good/jobs", &[("origin", "https://evil.example")], b"{}")
    });
    told("a page of another site").is(&problem(&answer));
}

#[test]
fn no_token() {
    let server = Server::start_with(&[("kvern.toml", GOOD)], &["--token", "s3cret"]);
    let with_token = [("authorization", "Bearer s3cret")];
    let answer = server.http.post("/v1/functions/good/jobs", "{}");
    told("no token where one is needed").is(&problem(&answer));
    let answer = server.http.ask("POST", "/v1/functions/good/jobs", &with_token, b"{}");
    assert_eq!(answer.status, 202, "{}", answer.text());
    let path = format!("/v1/jobs/{}?wait=20s", answer.json()["id"].as_str().expect("an id"));
    assert_eq!(server.http.ask("GET", &path, &with_token, b"").json()["state"], "succeeded");
}
