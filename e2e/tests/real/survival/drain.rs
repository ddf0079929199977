//! TERM: what is short finishes, what is long is released and runs again, and the server ends well.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use kvern_e2e::{Server, until};
use rustix::process::Signal;

/// Each job waits for a file with the name that came in.
const MANIFEST: &str = "\
[functions.wait]
exec = [\"sh\", \"-c\", \"read -r name; touch began-$name; until test -e $name; do sleep 0.02; done; echo done\"]
concurrency = 4
";
const DRAIN: Duration = Duration::from_secs(4);
/// On a machine that is busy with other tests.
const SLACK: Duration = Duration::from_secs(10);

#[test]
fn a_stop_lets_short_jobs_finish_and_releases_long_ones() {
    let mut server = Server::start_with(&[("kvern.toml", MANIFEST)], &["--drain", "4s"]);
    let submit = |name: &str| {
        let accepted = server.http.ask("POST", "/v1/functions/wait/jobs", &[], format!("{name}\n").as_bytes());
        let id = accepted.json()["id"].as_str().expect("an id").to_owned();
        until("the job to begin", || server.home.join(format!("began-{name}")).exists().then_some(()));
        id
    };
    let (short, long) = (submit("short"), submit("long"));
    let waiting = {
        let (http, id) = (server.http.clone(), short.clone());
        std::thread::spawn(move || http.try_ask("GET", &format!("/v1/jobs/{id}?wait=30s"), &[], b""))
    };
    until("the server to have the waiting client", || {
        let metrics = server.http.get("/metrics").text();
        metrics.lines().any(|line| line == "kvern_http_connections 2").then_some(())
    });
    let began = Instant::now();
    server.signal(Signal::TERM);
    until("new work to be refused", || match server.http.try_ask("POST", "/v1/functions/wait/jobs", &[], b"late\n") {
        Ok(answer) if answer.status == 202 => None,
        Ok(answer) => (answer.status == 503).then_some(()),
        Err(_) => Some(()),
    });
    std::fs::write(server.home.join("short"), "").expect("a file");
    let status = server.wait();
    assert!(status.success(), "{status}");
    assert!(began.elapsed() < DRAIN + SLACK, "{:?}", began.elapsed());
    let told = waiting.join().expect("no panic").expect("a waiting client is answered before the server ends");
    assert_eq!(told.status, 200);
    assert!(!server.home.join("began-late").exists(), "nothing new begins in a drain");

    std::fs::remove_file(server.home.join("began-long")).expect("it had begun");
    server.restart();
    let finished = server.http.finished(&short);
    assert_eq!((&finished["state"], &finished["attempt"]), (&"succeeded".into(), &1.into()), "{finished}");
    until("the long one to begin again", || server.home.join("began-long").exists().then_some(()));
    std::fs::write(server.home.join("long"), "").expect("a file");
    let again = server.http.finished(&long);
    assert_eq!(
        (&again["state"], &again["failures"], &again["strikes"]),
        (&"succeeded".into(), &0.into(), &0.into()),
        "{again}"
    );
}

#[test]
fn a_second_signal_stops_at_once() {
    let mut server = Server::start_with(&[("kvern.toml", MANIFEST)], &["--drain", "10m"]);
    let id = server.http.ask("POST", "/v1/functions/wait/jobs", &[], b"never\n").json()["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    until("the job to begin", || server.home.join("began-never").exists().then_some(()));
    server.signal(Signal::TERM);
    until("the first to be heard", || server.log().contains("stopping").then_some(()));
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(130));
    server.restart();
    until("the job to begin again", || {
        (server.http.get(&format!("/v1/jobs/{id}")).json()["state"] == "running").then_some(())
    });
}

#[test]
fn an_open_console_holds_no_stop_up() {
    let mut server = Server::start_with(&[("kvern.toml", MANIFEST)], &["--drain", "10m"]);
    let mut console = TcpStream::connect(server.http.address).expect("the server listens");
    console.write_all(b"GET /ui/events HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("sent");
    let mut told = String::new();
    let mut lines = BufReader::new(&console);
    while !told.contains("snapshot") {
        assert!(lines.read_line(&mut told).expect("the stream goes on") > 0, "{told}");
    }
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    lines.read_to_string(&mut told).expect("the rest");
    assert!(told.ends_with("0\r\n\r\n"), "the stream ends like any answer: {told}");
    assert!(server.log().contains("cut_off: 0"), "{}", server.log());
}

#[test]
fn a_short_drain_is_short_for_open_requests_too() {
    let mut server = Server::start_with(&[("kvern.toml", MANIFEST)], &["--drain", "1s"]);
    let mut stalled = TcpStream::connect(server.http.address).expect("the server listens");
    let head = "POST /v1/functions/wait/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nhalf";
    stalled.write_all(head.as_bytes()).expect("sent");
    until("the server to have the request", || {
        let metrics = server.http.get("/metrics").text();
        metrics.lines().any(|line| line == "kvern_http_connections 2").then_some(())
    });
    let began = Instant::now();
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    // A gateway without its share of --drain would wait for ten seconds.
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert!(server.log().contains("\"requests_cut_off\":1"), "what was cut off is told: {}", server.log());
}
