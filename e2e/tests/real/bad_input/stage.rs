//! What the cases share: servers, a good job before and after each case, and what was said as lines of the table.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use kvern_e2e::{Answer, Http, Server, kvern_under};
use serde_json::Value;

use super::table::{Line, labelled, line};

/// A function that every server here has: its result is its input.
pub(crate) const GOOD: &str = "[functions.good]\nexec = [\"cat\"]\n\n";

/// A server that the cases of one theme use together: it lives while any of them does.
pub(crate) struct Shared {
    needs: &'static [&'static str],
    start: fn() -> Server,
    running: Mutex<Weak<Server>>,
}

/// What a run of `kvern` gave.
pub(crate) type Run = (i32, String, String);

impl Shared {
    /// A server that is started by `start` when the first case needs it, if these programs are there.
    pub(crate) const fn new(needs: &'static [&'static str], start: fn() -> Server) -> Self {
        Self { needs, start, running: Mutex::new(Weak::new()) }
    }

    /// The server; none if a program is missing, which has been said.
    pub(crate) fn get(&self) -> Option<Arc<Server>> {
        if !self.needs.iter().all(|program| has(program)) {
            return None;
        }
        // A case that failed while it started the server is no reason for the others to fail.
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let server = running.upgrade().unwrap_or_else(|| Arc::new((self.start)()));
        *running = Arc::downgrade(&server);
        Some(server)
    }
}

/// Whether a program is there. If not, CI fails; elsewhere the case is skipped, and says so past the test's capture.
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if !is_there {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{program} is not installed, and CI=true");
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: {program} is not installed; a case of docs/bad-input.md was not tried"
        );
    }
    is_there
}

/// Carries out a case between two good jobs: whatever it does, both succeed, and the server goes on answering.
#[track_caller]
pub(crate) fn nothing_is_lost<T>(http: &Http, case: impl FnOnce() -> T) -> T {
    let before = http.submit("good", r#"{"it came":"before"}"#);
    let said = case();
    let after = http.submit("good", r#"{"it came":"after"}"#);
    for (id, input) in [(before, r#"{"it came":"before"}"#), (after, r#"{"it came":"after"}"#)] {
        let job = http.finished(&id);
        assert_eq!(job["state"], "succeeded", "{job}");
        assert_eq!(http.get(&format!("/v1/jobs/{id}/result")).text(), input);
    }
    assert_eq!(http.get("/readyz").status, 200);
    said
}

/// A problem document as the table tells it, once what all of them share was checked.
#[track_caller]
pub(crate) fn problem(answer: &Answer) -> Vec<Line> {
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{}", answer.text());
    let document = answer.json();
    let code = word(&document, "code");
    assert_eq!(document["status"], answer.status);
    assert_eq!(document["type"], format!("/v1/errors#{code}"));
    assert!(!word(&document, "title").is_empty() && document["retryable"].is_boolean(), "{document}");
    assert!(matches!(answer.header("kvern-error"), Some("platform" | "function")), "{document}");
    let mut lines = vec![line(format!("{} {code}", answer.status)), labelled("detail", word(&document, "detail"))];
    lines.extend(document["hint"].as_str().map(|hint| labelled("hint", hint)));
    for header in ["Allow", "Retry-After", "WWW-Authenticate"] {
        let value = answer.header(&header.to_lowercase());
        lines.extend(value.map(|value| labelled("header", format!("{header}: {value}"))));
    }
    lines
}

/// How a job ended, as the table tells it.
pub(crate) fn ending(job: &Value) -> Vec<Line> {
    let error = &job["error"];
    let state = format!("{} {}", word(job, "state"), word(error, "code"));
    let mut lines = vec![line(state.trim_end())];
    if let Some(message) = error["message"].as_str() {
        let class = error["class"].as_str().map(|class| format!("{class}: ")).unwrap_or_default();
        lines.push(labelled("message", class + message));
    }
    if job["strikes"].as_u64().is_some_and(|strikes| strikes > 0) {
        lines.push(labelled("strikes", job["strikes"].to_string()));
    }
    lines
}

/// A run of `kvern` as the table tells it: the exit code, then what was printed, stdout with a label.
pub(crate) fn run_of((code, stdout, stderr): &Run) -> Vec<Line> {
    let said =
        |text: &str| text.lines().map(str::trim_end).filter(|l| !l.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let mut lines = vec![line(format!("exit {code}"))];
    lines.extend(said(stdout).into_iter().map(|text| labelled("stdout", text)));
    lines.extend(said(stderr).into_iter().map(line));
    lines
}

/// A text in a document; empty if it is not there.
pub(crate) fn word<'a>(document: &'a Value, key: &str) -> &'a str {
    document[key].as_str().unwrap_or_default()
}

/// Runs `kvern` in a folder, with no server given and no settings from outside.
pub(crate) fn run_in(folder: &std::path::Path, arguments: &[&str]) -> Run {
    run_under(&[], folder, arguments)
}

/// The same, started by another program.
pub(crate) fn run_under(under: &[&str], folder: &std::path::Path, arguments: &[&str]) -> Run {
    let mut command = kvern_under(under);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KVERN_")) {
        command.env_remove(name);
    }
    let output = command.args(arguments).current_dir(folder).stdin(Stdio::null()).output().expect("kvern runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// Sends these bytes and gives the answer: for requests that a proper client does not send.
pub(crate) fn raw(http: &Http, request: &str) -> Answer {
    let mut stream = TcpStream::connect(http.address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time limit");
    stream.write_all(request.as_bytes()).expect("the request is sent");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer and its end");
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
    let headers = head.lines().filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    Answer { status, headers, body: body.as_bytes().to_vec() }
}
