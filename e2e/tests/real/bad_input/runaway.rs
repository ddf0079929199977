//! Functions that run away: each is stopped or bounded, the server stays small, and nothing is left behind.

use std::time::Duration;

use kvern_e2e::processes::{processes_of, stays_small};
use kvern_e2e::wait::until_within;
use kvern_e2e::{Server, until};

use super::stage::{GOOD, Shared, ending, nothing_is_lost, problem};
use super::table::{labelled, told};

const MANIFEST: &str = r#"
[functions.endless]
handler = "runaway.py:endless"
timeout = "500ms"
retry = { attempts = 1 }

[functions.stubborn]
handler = "runaway.py:stubborn"
timeout = "500ms"
retry = { attempts = 1 }

[functions.printer]
handler = "runaway.py:printer"

[functions.returner]
handler = "runaway.py:returner"

[functions.yes]
exec = ["head", "-c", "1G", "/dev/zero"]

[functions.closer]
handler = "runaway.py:closer"

[functions.segfault]
handler = "runaway.py:segfault"

[functions.echo]
handler = "runaway.py:echo"

[functions.parent]
handler = "runaway.py:parent"
scale = { max = 1, idle = "200ms" }

[functions.orphans]
exec = ["sh", "-c", "sleep 1000 & setsid sleep 1000 & (setsid sleep 1000 &) ; echo done"]
"#;

const CODE: &str = r#"
import ctypes, os, signal, subprocess, sys, time

def endless(event):
    while True:
        pass

def stubborn(event):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(1)

def printer(event):
    line = b"x" * 1023 + b"\n"
    for _ in range(event["mebibytes"]):
        os.write(1, line * 1024)
    return "printed"

def returner(event):
    return b"x" * (1 << 30)

def closer(event):
    sys.stdout.close()
    os.closerange(1, 3)
    return "still here"

def segfault(event):
    ctypes.string_at(0)

def echo(event):
    return event

def parent(event):
    if os.fork() == 0:
        time.sleep(1000)
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(1000)
        os._exit(0)
    return "gone home"
"#;

static SERVER: Shared =
    Shared::new(&["python3"], || Server::start(&[("kvern.toml", &format!("{GOOD}{MANIFEST}")), ("runaway.py", CODE)]));

#[test]
fn never_returns() {
    let Some(server) = SERVER.get() else { return };
    let job = nothing_is_lost(&server.http, || server.http.finished(&server.http.submit("endless", "{}")));
    told("a function that never returns").is(&ending(&job));
}

#[test]
fn never_returns_and_ignores_term() {
    let Some(server) = SERVER.get() else { return };
    let job = nothing_is_lost(&server.http, || server.http.finished(&server.http.submit("stubborn", "{}")));
    told("a function that never returns and ignores TERM").is(&ending(&job));
}

#[test]
fn prints_without_end() {
    let Some(server) = SERVER.get() else { return };
    let http = &server.http;
    let id = nothing_is_lost(http, || {
        stays_small(&server, || {
            let id = http.submit("printer", r#"{"mebibytes": 1024}"#);
            until_within(Duration::from_secs(60), "the end of it", || {
                let job = http.get(&format!("/v1/jobs/{id}?wait=5s")).json();
                (job["state"] == "succeeded").then_some(())
            });
            id
        })
    });
    let log = http.get(&format!("/v1/jobs/{id}/logs"));
    assert!(log.body.len() < (1 << 20) + (64 << 10) + 100, "the log is bounded: {} bytes", log.body.len());
    let text = log.text();
    let dropped = text.lines().find(|line| line.starts_with("[kvern")).expect("the log says what was dropped");
    let mut said = ending(&http.get(&format!("/v1/jobs/{id}")).json());
    said.push(labelled("log", dropped));
    told("a function that prints without end").is(&said);
}

#[test]
fn returns_a_gigabyte() {
    let Some(server) = SERVER.get() else { return };
    let http = &server.http;
    let job = nothing_is_lost(http, || stays_small(&server, || http.finished(&http.submit("returner", "{}"))));
    told("a function that returns a gigabyte").is(&ending(&job));
    assert_eq!(job["attempt"], 1, "it is not tried again: {job}");
}

#[test]
fn writes_a_gigabyte_of_result() {
    let Some(server) = SERVER.get() else { return };
    let http = &server.http;
    let job = nothing_is_lost(http, || stays_small(&server, || http.finished(&http.submit("yes", "{}"))));
    told("a program that writes a gigabyte of result").is(&ending(&job));
    assert_eq!(job["attempt"], 1, "it is not tried again: {job}");
}

#[test]
fn returns_a_gigabyte_to_a_call() {
    let Some(server) = SERVER.get() else { return };
    let http = &server.http;
    let answer = nothing_is_lost(http, || stays_small(&server, || http.post("/v1/functions/returner", "{}")));
    told("a call that returns a gigabyte").is(&problem(&answer));
}

#[test]
fn closes_stdout() {
    let Some(server) = SERVER.get() else { return };
    let http = &server.http;
    for _ in 0..2 {
        let job = nothing_is_lost(http, || http.finished(&http.submit("closer", "{}")));
        let mut said = ending(&job);
        let id = job["id"].as_str().expect("an id");
        said.push(labelled("result", http.get(&format!("/v1/jobs/{id}/result")).text()));
        told("a function that closes stdout").is(&said);
    }
}

#[test]
fn segfaults_three_times() {
    let Some(server) = SERVER.get() else { return };
    let job = nothing_is_lost(&server.http, || server.http.finished(&server.http.submit("segfault", "{}")));
    told("a function that segfaults").is(&ending(&job));
    assert_eq!(job["failures"], 0, "strikes are not retries: {job}");
}

#[test]
fn program_leaves_children_behind() {
    let Some(server) = SERVER.get() else { return };
    let http = &server.http;
    let id = nothing_is_lost(http, || {
        let id = http.submit("orphans", "{}");
        assert_eq!(http.finished(&id)["state"], "succeeded");
        // No waiting here: nothing of an attempt is left when its outcome can be seen.
        assert_eq!(processes_of(&server, "orphans"), Vec::<u32>::new());
        id
    });
    let mut said = ending(&http.get(&format!("/v1/jobs/{id}")).json());
    said.push(labelled("result", http.get(&format!("/v1/jobs/{id}/result")).text().trim()));
    told("a program that leaves children behind").is(&said);
}

#[test]
fn handler_leaves_children_behind() {
    let Some(server) = SERVER.get() else { return };
    let http = &server.http;
    let id = nothing_is_lost(http, || {
        let id = http.submit("parent", "{}");
        assert_eq!(http.finished(&id)["state"], "succeeded");
        until("the children to go with their instance", || processes_of(&server, "parent").is_empty().then_some(()));
        id
    });
    let mut said = ending(&http.get(&format!("/v1/jobs/{id}")).json());
    said.push(labelled("result", http.get(&format!("/v1/jobs/{id}/result")).text()));
    told("a handler that leaves children behind").is(&said);
}

#[test]
fn large_input_comes_back_byte_for_byte() {
    let Some(server) = SERVER.get() else { return };
    let http = &server.http;
    let input: Vec<u8> = (0..1u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let octets = [("content-type", "application/octet-stream")];
    let id = nothing_is_lost(http, || {
        let accepted = http.ask("POST", "/v1/functions/echo/jobs", &octets, &input);
        assert_eq!(accepted.status, 202, "{}", accepted.text());
        accepted.json()["id"].as_str().expect("an id").to_owned()
    });
    told("an input of a megabyte").is(&ending(&http.finished(&id)));
    let result = http.get(&format!("/v1/jobs/{id}/result"));
    assert_eq!((result.status, result.header("content-type")), (200, Some("application/octet-stream")));
    assert!(result.body == input, "{} of {} bytes came back, or others", result.body.len(), input.len());
}
