//! Functions in every language that run away while a neighbour works: each ends as it must, is bounded, and takes neither
//! the server nor the neighbour along.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kvern_e2e::processes::{processes_of, stays_small};
use kvern_e2e::{Http, Nobody, Server, needs, until_within};
use serde_json::Value;

/// A gigabyte goes past, and a machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);
/// Timeout, grace (between TERM and KILL), and a second.
const LATE_MS: u64 = 1_000 + 5_000 + 1_000;

const LANGUAGES: [&str; 3] = ["python", "node", "shell"];

/// What is the same for all: a function in each language, which does what its input says, and a neighbour.
const MANIFEST: &str = r#"
[functions.neighbour]
handler = "neighbour.py:neighbour"
concurrency = 1

[functions.python]
handler = "runaway.py:runaway"
memory = "64M"
timeout = "60s"
concurrency = 1
retry = { attempts = 3, backoff = "100ms" }

[functions.node]
handler = "runaway.mjs:runaway"
memory = "64M"
timeout = "60s"
concurrency = 1
retry = { attempts = 3, backoff = "100ms" }

[functions.shell]
exec = ["./runaway.sh"]
memory = "64M"
timeout = "60s"
concurrency = 1
retry = { attempts = 3, backoff = "100ms" }
"#;
/// Without limits on memory, and with what only one language has to do.
const FLOODS: &str = r#"
[functions.returner]
handler = "flood.mjs:returner"

[functions.printer]
handler = "flood.mjs:printer"

[functions.yes]
exec = ["sh", "-c", "head -c 1G /dev/zero >&2"]

[functions.ignorer]
exec = ["sleep", "0.1"]

[functions.garbage]
handler = "garbage.py:garbage"
"#;
const FLOOD: &str = "\
export const returner = () => Buffer.alloc(1 << 30);
export const printer = () => { for (let i = 0; i < 256; i++) process.stdout.write('x'.repeat(1 << 20)); };
";
/// Writes to the private descriptor, which is the only socket; the second time it behaves.
const GARBAGE: &str = "\
import os

def garbage(ctx):
    for fd in os.listdir('/proc/self/fd'):
        if ctx.attempt == 1 and os.path.exists(f'/proc/self/fd/{fd}') and 'socket:' in os.readlink(f'/proc/self/fd/{fd}'):
            os.write(int(fd), os.urandom(4) + b'\\xff' * 1000)
    return 'well'
";
const NEIGHBOUR: &str = "def neighbour(event):\n    return event\n";
const PYTHON: &str = r#"
import ctypes, os, signal, subprocess, sys, time

def runaway(deed):
    if deed == "hog":
        return len(b"x" * (300 << 20))
    if deed == "hog-child":
        return subprocess.run([sys.executable, "-c", "b'x' * (300 << 20)"]).returncode
    if deed == "crash":
        ctypes.string_at(0)
    if deed == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(1)
    if deed == "fork":
        subprocess.Popen(["sleep", "1000"], start_new_session=True)
        time.sleep(1000)
    if deed == "fail":
        raise ValueError("last words")
    return deed
"#;
const NODE: &str = r#"
import { spawn, spawnSync } from 'node:child_process';

export async function runaway(deed) {
  if (deed === 'hog') {
    const all = [];
    for (;;) all.push(new Array(131072).fill(deed));
  }
  if (deed === 'hog-child') return spawnSync(process.execPath, ['-e', "Buffer.alloc(900 << 20, 'x')"]).status;
  if (deed === 'crash') process.abort();
  if (deed === 'stubborn') {
    process.on('SIGTERM', () => {});
    await new Promise((done) => setTimeout(done, 1e6));
  }
  if (deed === 'fork') {
    spawn('sleep', ['1000'], { detached: true });
    await new Promise((done) => setTimeout(done, 1e6));
  }
  if (deed === 'fail') throw new Error('last words');
  return deed;
}
"#;
const SHELL: &str = r#"#!/bin/sh
read -r deed
case $deed in
  hog) exec dd if=/dev/zero of=/dev/null bs=300M count=1 ;;
  hog-child) dd if=/dev/zero of=/dev/null bs=300M count=1; exit 3 ;;
  crash) kill -SEGV $$ ;;
  stubborn) trap '' TERM; while :; do sleep 1; done ;;
  fork) setsid sleep 1000 & sleep 1000 ;;
  fail) echo 'last words' >&2; exit 3 ;;
esac
printf %s "$deed"
"#;

const FILES: [(&str, &str); 5] = [
    ("kvern.toml", MANIFEST),
    ("neighbour.py", NEIGHBOUR),
    ("runaway.py", PYTHON),
    ("runaway.mjs", NODE),
    ("runaway.sh", SHELL),
];

fn submit(http: &Http, function: &str, deed: &str) -> String {
    let input = if function == "shell" { format!("{deed}\n") } else { format!("{deed:?}") };
    http.submit(function, &input)
}

/// The record of a job that takes longer than one answer does.
fn finished(http: &Http, id: &str) -> Value {
    until_within(PATIENCE, "the job to end", || {
        let job = http.get(&format!("/v1/jobs/{id}?wait=10s")).json();
        matches!(job["state"].as_str(), Some("succeeded" | "failed")).then_some(job)
    })
}

/// Ends the neighbour's work, also when a deed did not end as it must.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Has each language do the deed, beside a neighbour whose jobs must all succeed the first time. The functions do well
/// afterwards: whatever stood behind the deed in their queue runs.
fn beside_a_neighbour(http: &Http, deed: &str) -> [Value; 3] {
    let over = AtomicBool::new(false);
    let (ends, neighbours) = std::thread::scope(|scope| {
        let _over = Over(&over);
        let neighbour = scope.spawn(|| {
            let mut jobs = Vec::new();
            while !over.load(Ordering::Relaxed) || jobs.is_empty() {
                jobs.push(finished(http, &http.submit("neighbour", "{}")));
            }
            jobs
        });
        let deeds = LANGUAGES.map(|language| (submit(http, language, deed), submit(http, language, "well")));
        let ends = deeds.map(|(deed, well)| {
            let end = finished(http, &deed);
            assert_eq!(finished(http, &well)["state"], "succeeded", "it stood behind {end}");
            end
        });
        over.store(true, Ordering::Relaxed);
        (ends, neighbour.join().expect("no panic"))
    });
    for job in neighbours {
        assert_eq!((&job["state"], &job["attempt"]), (&"succeeded".into(), &1.into()), "{job}");
    }
    ends
}

/// Out of memory, three times: a dead letter by its strikes, though retries remain.
fn ran_out_of_memory(job: &Value) {
    assert_eq!((&job["state"], &job["strikes"], &job["failures"]), (&"failed".into(), &3.into(), &0.into()), "{job}");
    assert_eq!(job["error"]["code"], "out_of_memory", "{job}");
    let message = job["error"]["message"].as_str().expect("a message");
    assert!(message.starts_with("out of memory: ") && message.contains("64 MiB"), "{message}");
}

#[test]
fn a_hog_is_out_of_memory_and_its_neighbour_is_not() {
    if !needs::programs(&["python3", "node"]) || !needs::root() {
        return;
    }
    let server = Server::start(&FILES);
    beside_a_neighbour(&server.http, "hog").iter().for_each(ran_out_of_memory);
    // The kernel kills the child alone. What a handler makes of that is its own business; of a program that fails
    // then, it is told.
    let [python, node, shell] = beside_a_neighbour(&server.http, "hog-child");
    assert_eq!((&python["state"], &node["state"]), (&"succeeded".into(), &"succeeded".into()), "{python} {node}");
    ran_out_of_memory(&shell);
}

/// Where no cgroup may be made.
#[test]
fn a_hog_of_a_user_who_is_not_root_is_out_of_memory_too() {
    if !needs::programs(&["python3", "node", "setpriv"]) || !needs::root() {
        return;
    }
    let server = Nobody::start(&FILES, &[]);
    beside_a_neighbour(&server.http, "hog").iter().for_each(ran_out_of_memory);
    // Its own allocation fails, and what its parent makes of that is the parent's business.
    for job in beside_a_neighbour(&server.http, "hog-child") {
        assert!(matches!(job["state"].as_str(), Some("succeeded" | "failed")), "{job}");
    }
}

fn start(timeout: &str) -> Option<Server> {
    let manifest = MANIFEST.replace("\"60s\"", &format!("{timeout:?}"));
    let files = FILES.map(|(name, text)| (name, if name == "kvern.toml" { manifest.as_str() } else { text }));
    needs::programs(&["python3", "node", "setsid"]).then(|| Server::start(&files))
}

#[test]
fn a_crash_is_a_strike_and_three_are_a_dead_letter() {
    let Some(server) = start("60s") else { return };
    for job in beside_a_neighbour(&server.http, "crash") {
        assert_eq!((&job["state"], &job["strikes"]), (&"failed".into(), &3.into()), "{job}");
        assert_eq!((&job["error"]["code"], &job["failures"]), (&"crash".into(), &0.into()), "{job}");
    }
}

#[test]
fn a_poison_message_is_tried_again_and_kept_with_its_last_words() {
    let Some(server) = start("60s") else { return };
    for job in beside_a_neighbour(&server.http, "fail") {
        assert_eq!(
            (&job["state"], &job["failures"], &job["strikes"]),
            (&"failed".into(), &3.into(), &0.into()),
            "{job}"
        );
        assert_eq!(job["attempts"].as_array().map(Vec::len), Some(3), "{job}");
        assert!(job["error"]["message"].as_str().is_some_and(|told| told.contains("last words")), "{job}");
    }
}

#[test]
fn whoever_ignores_term_is_killed_within_the_grace() {
    let Some(server) = start("1s") else { return };
    for job in beside_a_neighbour(&server.http, "stubborn") {
        assert_eq!((&job["state"], &job["error"]["code"]), (&"failed".into(), &"timeout".into()), "{job}");
        let took: Vec<u64> = job["attempts"].as_array().expect("attempts").iter().map(took_ms).collect();
        assert_eq!(took.len(), 3, "{job}");
        // The figure holds on a machine that has time for us: the best of three counts.
        assert!(took.iter().min().is_some_and(|best| *best <= LATE_MS), "{took:?}: {job}");
    }
}

#[test]
fn nothing_of_a_late_function_is_left() {
    let Some(server) = start("1s") else { return };
    for (language, job) in LANGUAGES.iter().zip(beside_a_neighbour(&server.http, "fork")) {
        assert_eq!((&job["state"], &job["error"]["code"]), (&"failed".into(), &"timeout".into()), "{job}");
        let left = || processes_of(&server, language);
        // Of the warm ones only the instance that did well is there: a jail and a process.
        until_within(PATIENCE, "the others to go", || (left().len() <= 2).then_some(()));
        let sleeps =
            |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n");
        assert!(!left().iter().any(sleeps), "{language}");
    }
}

#[test]
fn floods_are_bounded_and_the_server_stays_small() {
    if !needs::programs(&["python3", "node"]) {
        return;
    }
    let manifest = format!("{MANIFEST}{FLOODS}");
    let files =
        [&FILES[1..], &[("kvern.toml", manifest.as_str()), ("flood.mjs", FLOOD), ("garbage.py", GARBAGE)]].concat();
    let server = Server::start(&files);
    let http = &server.http;
    let job = stays_small(&server, || finished(http, &http.submit("returner", "{}")));
    assert_eq!((&job["error"]["code"], &job["attempt"]), (&"result_too_large".into(), &1.into()), "{job}");
    for printer in ["printer", "yes"] {
        let id = stays_small(&server, || {
            let id = http.submit(printer, "{}");
            assert_eq!(finished(http, &id)["state"], "succeeded", "{printer}");
            id
        });
        let log = http.get(&format!("/v1/jobs/{id}/logs"));
        assert!(log.body.len() < (1 << 20) + (64 << 10) + 100, "{printer}: {} bytes", log.body.len());
        assert!(log.text().lines().any(|line| line.starts_with("[kvern")), "{printer}: it says what was dropped");
    }
    let unread = vec![b'x'; 10 << 20];
    let accepted = http.ask("POST", "/v1/functions/ignorer/jobs", &[], &unread).json();
    let job = finished(http, accepted["id"].as_str().expect("an id"));
    assert_eq!((&job["state"], &job["attempt"]), (&"succeeded".into(), &1.into()), "{job}");
    let job = finished(http, &http.submit("garbage", "{}"));
    assert_eq!(
        (&job["state"], &job["strikes"], &job["failures"]),
        (&"succeeded".into(), &1.into(), &0.into()),
        "{job}"
    );
    assert!(job["attempts"][0].to_string().contains("protocol"), "{job}");
}

/// How long an attempt took, by the server's book: `2025-01-01T10:20:30.123Z`.
fn took_ms(attempt: &Value) -> u64 {
    let of_day = |time: &Value| {
        let digits: Vec<u64> =
            time.as_str().expect("a time")[11..23].split([':', '.']).filter_map(|d| d.parse().ok()).collect();
        let [hours, minutes, seconds, millis] = digits[..] else { panic!("{time}") };
        ((hours * 60 + minutes) * 60 + seconds) * 1000 + millis
    };
    const DAY_MS: u64 = 24 * 3600 * 1000;
    (of_day(&attempt["finished_at"]) + DAY_MS - of_day(&attempt["started_at"])) % DAY_MS
}
