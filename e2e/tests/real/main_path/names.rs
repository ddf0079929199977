//! The names under which a server without a token answers.

use std::io::{Read, Write};
use std::net::TcpStream;

use kvern_e2e::Server;

const MANIFEST: &str = "\
[functions.good]
exec = [\"cat\"]

[server]
hosts = [\"kvern.lan\"]
";

/// The status for a request with this `Host`.
fn status(server: &Server, host: &str) -> u16 {
    let mut stream = TcpStream::connect(server.http.address).expect("it listens");
    let request = format!("GET /v1/jobs HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
}

#[test]
fn a_name_that_was_allowed_is_answered() {
    let server = Server::start(&[("kvern.toml", MANIFEST)]);
    assert_eq!((status(&server, "kvern.lan:80"), status(&server, "evil.example")), (200, 403));
    let arguments = ["--host", "Box.lan", "--host", "box.example.org"];
    let server = Server::start_with(&[("kvern.toml", MANIFEST)], &arguments);
    assert_eq!((status(&server, "box.lan"), status(&server, "box.example.org:8080")), (200, 200));
    assert_eq!(status(&server, "kvern.lan"), 403, "the flags come instead of the manifest's list");
}
