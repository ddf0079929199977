//! Calls to a gateway without a worker of its own: jobs that are awaited and erased.

use std::io::Write;
use std::net::TcpStream;

use kvern_e2e::{Server, Worker, until};
use rustix::process::Signal;

use super::{all_ready, bytes, pair};

const MANIFEST: &str = "\
[functions.hello]
handler = \"hello.py:hello\"
max_input = \"6MiB\"

[functions.cat]
exec = [\"cat\"]

[functions.counted]
exec = [\"sh\", \"-c\", \"echo run >>runs; kill -9 $$\"]

[functions.bad]
exec = [\"sh\", \"-c\", \"echo run >>runs; exit 75\"]

[functions.held]
exec = [\"sh\", \"-c\", \"echo run >>runs; while ! [ -e go ]; do sleep 0.02; done; echo done\"]
timeout = \"1m\"
";

const HELLO: &str = "\
def hello(name='world'):
    return {'hello': name}
";

const FILES: [(&str, &str); 2] = [("kvern.toml", MANIFEST), ("hello.py", HELLO)];

fn times_run(gateway: &Server) -> usize {
    std::fs::read_to_string(gateway.home.join("runs")).unwrap_or_default().lines().count()
}

/// Nothing of a call is left: no job, no mark, no file.
fn nothing_is_left(gateway: &Server) {
    let is_empty = |folder: &str| std::fs::read_dir(gateway.data.join(folder)).expect("a folder").next().is_none();
    until("the calls to be erased", || {
        let jobs = gateway.http.get("/v1/jobs").json();
        (jobs["jobs"].as_array()?.is_empty() && is_empty("calls") && is_empty("blobs")).then_some(())
    });
}

/// Begins a call, and does not wait for its answer.
fn begin(gateway: &Server, function: &str) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.http.address).expect("it listens");
    let head = format!("POST /v1/functions/{function} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("it hears");
    stream
}

#[test]
fn a_call_is_answered_and_leaves_nothing() {
    let (gateway, _worker) = pair(&FILES);
    let answer = gateway.http.post("/v1/functions/hello", "{\"name\":\"Ada\"}");
    assert_eq!((answer.status, answer.text().as_str()), (200, "{\"hello\":\"Ada\"}"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    for size in [0, 70_000, 5_000_000] {
        let body = bytes(size);
        let answer = gateway.http.ask("POST", "/v1/functions/cat", &[], &body);
        assert!(answer.status == 200 && answer.body == body, "a call with {size} bytes");
    }
    let large = gateway.http.ask("POST", "/v1/functions/hello", &[], &bytes(7 << 20));
    assert_eq!(large.status, 413, "{}", large.text());
    nothing_is_left(&gateway);
}

#[test]
fn a_call_runs_once_whatever_its_end() {
    let (gateway, mut worker) = pair(&FILES);
    let crashed = gateway.http.post("/v1/functions/counted", "");
    assert_eq!((crashed.status, times_run(&gateway)), (502, 1), "{}", crashed.text());
    let failed = gateway.http.post("/v1/functions/bad", "");
    assert_eq!((failed.status, times_run(&gateway)), (502, 2), "{}", failed.text());
    nothing_is_left(&gateway);

    let http = gateway.http.clone();
    let calling = std::thread::spawn(move || http.post("/v1/functions/held", ""));
    until("the call to run", || (times_run(&gateway) == 3).then_some(()));
    worker.kill();
    worker.restart();
    let lost = calling.join().expect("no panic");
    assert_eq!((lost.status, times_run(&gateway)), (502, 3), "{}", lost.text());
    assert!(lost.text().contains("the worker went away"), "{}", lost.text());
    nothing_is_left(&gateway);
}

#[test]
fn a_caller_that_goes_away_ends_the_call() {
    let (gateway, _worker) = pair(&FILES);
    let caller = begin(&gateway, "held");
    until("the call to run", || (times_run(&gateway) == 1).then_some(()));
    drop(caller);
    nothing_is_left(&gateway);
}

#[test]
fn a_worker_that_stops_cuts_a_call_off_for_good() {
    let gateway = Server::start_with(&FILES, &["--role", "gateway"]);
    let mut worker = Worker::start(&gateway, "worker", &["--drain", "2s"]);
    all_ready(&gateway);
    let http = gateway.http.clone();
    let calling = std::thread::spawn(move || http.post("/v1/functions/held", ""));
    until("the call to run", || (times_run(&gateway) == 1).then_some(()));
    let _other = Worker::named(&gateway, "other");
    until("the other to be there", || {
        let verbose = gateway.http.get("/readyz?verbose").json();
        (verbose["workers"].as_array()?.len() == 2).then_some(())
    });
    worker.signal(Signal::TERM);
    assert!(worker.wait().success(), "{}", worker.log());
    let told = calling.join().expect("no panic");
    assert_eq!((told.status, times_run(&gateway)), (502, 1), "{}", told.text());
    assert!(told.text().contains("the worker went away"), "{}", told.text());
    nothing_is_left(&gateway);
}

#[test]
fn a_stop_of_the_gateway_tells_the_caller() {
    let mut gateway = Server::start_with(&FILES, &["--role", "gateway", "--drain", "3s"]);
    let _worker = Worker::beside(&gateway);
    all_ready(&gateway);
    let http = gateway.http.clone();
    let calling = std::thread::spawn(move || http.post("/v1/functions/held", ""));
    until("the call to run", || (times_run(&gateway) == 1).then_some(()));
    gateway.signal(Signal::TERM);
    let told = calling.join().expect("no panic");
    assert_eq!((told.status, told.json()["code"].as_str()), (503, Some("stopping")), "{}", told.text());
    assert!(gateway.wait().success(), "{}", gateway.log());
}

#[test]
fn a_killed_gateway_leaves_no_call_behind() {
    let (mut gateway, _worker) = pair(&FILES);
    let _caller = begin(&gateway, "held");
    until("the call to run", || (times_run(&gateway) == 1).then_some(()));
    until("its mark", || std::fs::read_dir(gateway.data.join("calls")).ok()?.next().map(|_| ()));
    gateway.kill();
    gateway.restart();
    nothing_is_left(&gateway);
    let other = gateway.http.ask("POST", "/v1/functions/cat", &[], b"after");
    assert_eq!((other.status, other.text().as_str()), (200, "after"));
    assert_eq!(times_run(&gateway), 1, "a call runs at most once, also over a kill");
}
