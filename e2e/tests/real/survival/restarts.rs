//! Restarts by a supervisor under 500 requests a second: TERM, another binary in its place, and `kill -9`.
//!
//! The clients keep their own list: each request has its own key, and is sent again with it until it has its 202. The
//! function keeps another of what it ran. Both are compared with what the server knows.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kvern_e2e::{Http, Server, Start, needs, until_within};
use rustix::process::Signal;

const CLIENTS: usize = 10;
/// Each client's time between two requests; together they send 500 a second.
const BEAT: Duration = Duration::from_millis(20);
/// Between two restarts so many more must be accepted, and after the last.
const BETWEEN: usize = 750;
/// A second, at least, half of what is asked for: of the stretches between restarts the middle one was this fast. The
/// others may hold a restart, or what the tests beside this one do.
const RATE_MIN: f64 = 250.0;
/// For whatever is slow on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(120);

const MANIFEST: &str = "[functions.append]\nhandler = \"append.py:append\"\nretry = { attempts = 1 }\n";
/// One write of one line to a file opened for appending: whole or not at all.
const APPEND: &str = "\
import os

def append(key):
    file = os.open('ran', os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, (key + '\\n').encode())
    os.close(file)
    return key
";

/// What the clients met, and what they were given.
#[derive(Default)]
struct Load {
    /// The id of each key.
    accepted: Mutex<BTreeMap<String, String>>,
    count: AtomicUsize,
    /// When each was accepted.
    accepted_at: Mutex<Vec<Instant>>,
    /// Nobody listened.
    refused: AtomicUsize,
    /// The connection broke before the answer had come.
    broken: AtomicUsize,
    /// Answered, and not with 202.
    told_to_come_again: AtomicUsize,
    longest_ms: AtomicU64,
}

// === impl Load ===

impl Load {
    /// Sends requests at the beat until so many were accepted in all.
    fn client(&self, name: usize, http: &Http, goal: usize) {
        let (_never, rest) = std::sync::mpsc::channel::<()>();
        let mut next = Instant::now();
        for number in 0.. {
            if self.count.load(Ordering::Relaxed) >= goal {
                return;
            }
            let _ = rest.recv_timeout(next.saturating_duration_since(Instant::now()));
            next += BEAT;
            let key = format!("{name}-{number}");
            let id = self.send(http, &key);
            self.accepted.lock().expect("the list").insert(key, id);
            self.accepted_at.lock().expect("the times").push(Instant::now());
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sends one request until it is accepted.
    fn send(&self, http: &Http, key: &str) -> String {
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        let began = Instant::now();
        let id = until_within(PATIENCE, key, || {
            let met = match http.try_ask("POST", "/v1/functions/append/jobs", &headers, format!("{key:?}").as_bytes()) {
                Ok(answer) if answer.status == 202 => return answer.json()["id"].as_str().map(str::to_owned),
                Ok(_) => &self.told_to_come_again,
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => &self.refused,
                Err(_) => &self.broken,
            };
            met.fetch_add(1, Ordering::Relaxed);
            None
        });
        self.longest_ms.fetch_max(began.elapsed().as_millis() as u64, Ordering::Relaxed);
        id
    }

    /// Runs the clients, and `restart` so many times, after [`BETWEEN`] more acceptances each.
    fn beside(&self, http: &Http, count: usize, mut restart: impl FnMut(usize)) {
        let goal = BETWEEN * (count + 1);
        let began = Instant::now();
        std::thread::scope(|scope| {
            for name in 0..CLIENTS {
                scope.spawn(move || self.client(name, http, goal));
            }
            for number in 0..count {
                until_within(PATIENCE, "more to be accepted", || {
                    (self.count.load(Ordering::Relaxed) >= BETWEEN * (number + 1)).then_some(())
                });
                restart(number);
            }
        });
        self.say(began.elapsed());
        let rate = self.rate();
        assert!(rate >= RATE_MIN, "only {rate:.0} requests a second were accepted: this was no load");
    }

    /// Requests accepted a second, in the middle one of the stretches by speed.
    fn rate(&self) -> f64 {
        let mut times = self.accepted_at.lock().expect("the times").clone();
        times.sort();
        let stretches = times.chunks_exact(BETWEEN).map(|times| times[BETWEEN - 1] - times[0]);
        let mut rates: Vec<f64> = stretches.map(|took| BETWEEN as f64 / took.as_secs_f64()).collect();
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    }

    fn met(&self) -> [usize; 3] {
        [&self.refused, &self.broken, &self.told_to_come_again].map(|count| count.load(Ordering::Relaxed))
    }

    fn say(&self, took: Duration) {
        let accepted = self.count.load(Ordering::Relaxed);
        let [refused, broken, told] = self.met();
        let said = format!(
            "{accepted} accepted, {:.0} a second; {refused} times refused, {broken} broken, {told} told to come again; \
             the longest took {} ms\n",
            accepted as f64 / took.as_secs_f64(),
            self.longest_ms.load(Ordering::Relaxed)
        );
        let _ = std::io::Write::write_all(&mut std::io::stderr(), said.as_bytes());
    }

    /// Every accepted job has succeeded, in the server's book and in the function's, and there is no other.
    fn nothing_is_lost(&self, server: &Server) {
        until_within(PATIENCE, "every job to finish", || {
            let jobs = server.http.get("/v1/functions/append").json()["jobs"].clone();
            (jobs["queued"] == 0 && jobs["running"] == 0 && jobs["scheduled"] == 0).then_some(())
        });
        let accepted = self.accepted.lock().expect("the list");
        let ids: BTreeSet<&String> = accepted.values().collect();
        assert_eq!(ids.len(), accepted.len(), "an id was given twice");
        let jobs = jobs(&server.http);
        let lost: Vec<_> = ids.iter().filter(|id| jobs.get(**id).is_none_or(|state| state != "succeeded")).collect();
        assert!(lost.is_empty(), "accepted, and not succeeded: {lost:?}");
        assert_eq!(jobs.len(), ids.len(), "there are jobs that nobody was told of");
        let ran = std::fs::read_to_string(server.home.join("ran")).expect("the function's list");
        let ran: BTreeSet<&str> = ran.lines().collect();
        let never: Vec<_> = accepted.keys().filter(|key| !ran.contains(key.as_str())).collect();
        assert!(never.is_empty(), "accepted, and never ran: {never:?}");
    }
}

/// The state of every job.
fn jobs(http: &Http) -> BTreeMap<String, String> {
    let mut jobs = BTreeMap::new();
    let mut page = "/v1/jobs?limit=500".to_owned();
    loop {
        let answer = http.get(&page).json();
        for job in answer["jobs"].as_array().expect("jobs") {
            let word = |key: &str| job[key].as_str().expect("a word").to_owned();
            jobs.insert(word("id"), word("state"));
        }
        let Some(next) = answer["next"].as_str() else { return jobs };
        page = format!("/v1/jobs?limit=500&cursor={next}");
    }
}

fn start(passes_socket: bool) -> Option<Server> {
    let files = [("kvern.toml", MANIFEST), ("append.py", APPEND)];
    needs::programs(&["python3"]).then(|| Server::start_as(Start { files: &files, passes_socket, ..Start::default() }))
}

/// TERM, the end, and the same or another binary in its place.
fn stop_and_start(server: &mut Server) {
    server.signal(Signal::TERM);
    let status = server.wait();
    assert!(status.success(), "{status}");
    server.restart();
}

#[test]
fn restarts_under_load_lose_nothing() {
    let Some(mut server) = start(false) else { return };
    let (load, http) = (Load::default(), server.http.clone());
    load.beside(&http, 4, |number| match number {
        0 => stop_and_start(&mut server),
        1 => {
            server.upgrade();
            stop_and_start(&mut server);
        }
        _ => {
            server.kill();
            server.restart();
        }
    });
    load.nothing_is_lost(&server);
}

#[test]
fn with_a_passed_socket_no_connection_is_refused() {
    let Some(mut server) = start(true) else { return };
    let (load, http) = (Load::default(), server.http.clone());
    load.beside(&http, 3, |number| {
        if number == 1 {
            server.upgrade();
        }
        stop_and_start(&mut server);
    });
    assert_eq!(load.met(), [0; 3], "every request was answered with 202 the first time");
    load.nothing_is_lost(&server);
}

#[test]
fn with_a_passed_socket_a_kill_breaks_only_what_was_open() {
    let Some(mut server) = start(true) else { return };
    let (load, http) = (Load::default(), server.http.clone());
    load.beside(&http, 2, |_| {
        server.kill();
        server.restart();
    });
    let [refused, broken, told] = load.met();
    assert_eq!((refused, told), (0, 0), "whoever comes while there is no server waits");
    assert!(broken <= 2 * CLIENTS, "{broken} broke, and {CLIENTS} were open at each kill");
    load.nothing_is_lost(&server);
}
