//! Functions that start children in every way that a process can detach itself: whatever ends the attempt or the
//! server, none of them stays; and whoever hears of the end hears of it after they have gone. Only a server that was
//! killed can wait for nobody.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use kvern_e2e::{Server, needs, until, until_within};
use rustix::process::Signal;

/// The jails of a server that was killed have this long; a busy machine is allowed for.
const GONE: Duration = Duration::from_secs(15);

/// A child, one in a session of its own, and a grandchild whose parent has gone; then what the input says.
const FORKS_PY: &str = "\
import os, subprocess, time

def forks(then):
    subprocess.Popen(['sleep', '1000'])
    subprocess.Popen(['sleep', '1000'], start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execvp('sleep', ['sleep', '1000'])
        os._exit(0)
    os.wait()
    open('forked-python', 'w').close()
    while then == 'stay':
        time.sleep(0.05)
    if then == 'exit':
        os._exit(3)
";
const FORKS_SH: &str = "\
#!/bin/sh
sleep 1000 &
setsid sleep 1000 &
setsid sh -c 'sleep 1000 & exit' &
touch forked-shell
read -r then
test \"$then\" != stay || exec sleep 1000
";

/// Every process of these functions inherits the marker.
fn manifest(marker: &str) -> String {
    format!(
        "[functions.python]\nhandler = \"forks.py:forks\"\nenv = {{ MARKER = \"{marker}\" }}\ntimeout = \"2s\"\n\
         retry = {{ attempts = 1 }}\n\n\
         [functions.shell]\nexec = [\"./forks.sh\"]\nenv = {{ MARKER = \"{marker}\" }}\ntimeout = \"2s\"\n\
         retry = {{ attempts = 1 }}\n"
    )
}

struct Stage {
    server: Server,
    marker: String,
}

impl Stage {
    fn new(name: &str, timeout: &str) -> Option<Self> {
        if !needs::programs(&["python3", "setsid"]) {
            return None;
        }
        let marker = format!("kvern-e2e-{name}-{}", std::process::id());
        let manifest = manifest(&marker).replace("\"2s\"", &format!("\"{timeout}\""));
        let files = [("kvern.toml", manifest.as_str()), ("forks.py", FORKS_PY), ("forks.sh", FORKS_SH)];
        Some(Self { server: Server::start_with(&files, &["--drain", "2s"]), marker })
    }

    /// Submits to both functions and waits until their children run.
    fn submit(&self, then: &str) -> [String; 2] {
        let python = self.server.http.submit("python", &format!("{{\"then\": \"{then}\"}}"));
        let shell = self.server.http.ask("POST", "/v1/functions/shell/jobs", &[], format!("{then}\n").as_bytes());
        for file in ["forked-python", "forked-shell"] {
            until("the children", || self.server.home.join(file).exists().then_some(()));
        }
        [python, shell.json()["id"].as_str().expect("an id").to_owned()]
    }

    /// Which processes carry the marker, by their environment (proc(5)); one that has ended has none.
    fn left(&self) -> Vec<String> {
        let wanted = format!("MARKER={}", self.marker).into_bytes();
        let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
        let ours = processes.filter(|process| {
            let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == wanted)
        });
        let named = ours.map(|process| {
            let command = std::fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
            format!("{:?} {}", process.file_name(), command.replace('\0', " "))
        });
        named.collect()
    }

    fn is_clean(&self, after: &str) {
        assert_eq!(self.left(), [""; 0], "something was left when {after} was heard of");
    }
}

#[test]
fn nothing_of_a_function_is_left_behind() {
    let Some(mut stage) = Stage::new("killed", "10m") else { return };
    stage.submit("stay");
    assert!(stage.left().len() >= 8, "four of each function: {:?}", stage.left());
    stage.server.kill();
    until_within(GONE, "every process to go", || stage.left().is_empty().then_some(()));
}

#[test]
fn nothing_is_left_behind_by_a_stop() {
    let Some(mut stage) = Stage::new("stopped", "10m") else { return };
    stage.submit("stay");
    stage.server.signal(Signal::TERM);
    assert!(stage.server.wait().success());
    stage.is_clean("a stop");
}

#[test]
fn nothing_is_left_behind_by_a_timeout() {
    let Some(stage) = Stage::new("late", "2s") else { return };
    for id in stage.submit("stay") {
        let job = stage.server.http.finished(&id);
        assert_eq!((&job["state"], &job["error"]["code"]), (&"failed".into(), &"timeout".into()), "{job}");
    }
    stage.is_clean("a timeout");
}

#[test]
fn nothing_is_left_behind_by_an_attempt_that_ends_by_itself() {
    let Some(stage) = Stage::new("ended", "10m") else { return };
    let [python, shell] = stage.submit("exit");
    assert_eq!(stage.server.http.finished(&shell)["state"], "succeeded");
    assert_eq!(stage.server.http.finished(&python)["strikes"], 3);
    stage.is_clean("the end of the attempt");
}

#[test]
fn nothing_is_left_behind_by_a_cancel() {
    let Some(stage) = Stage::new("cancelled", "10m") else { return };
    for id in stage.submit("stay") {
        assert_eq!(stage.server.http.post(&format!("/v1/jobs/{id}/cancel"), "").status, 200);
        assert_eq!(stage.server.http.finished(&id)["state"], "cancelled");
    }
    stage.is_clean("a cancel");
}

#[test]
fn the_input_of_a_call_is_gone_after_a_kill_and_a_start() {
    let mut server = Server::start(&[("kvern.toml", "[functions.same]\nexec = [\"cat\"]\n")]);
    let mut caller = TcpStream::connect(server.http.address).expect("the server listens");
    let head = "POST /v1/functions/same HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n";
    caller.write_all(head.as_bytes()).expect("sent");
    caller.write_all(&[b'x'; 500_000]).expect("sent");
    let folder = server.data.join("run");
    let kept = || -> Vec<_> { files_below(&folder).into_iter().filter(|path| path.contains("call-")).collect() };
    until("the input to be in a file", || (kept().len() == 1).then_some(()));
    server.kill();
    assert_eq!(kept().len(), 1, "nobody was left to remove it");
    server.restart();
    assert_eq!(kept(), [""; 0]);
}

fn files_below(folder: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let of_entry = |entry: std::fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => files_below(&entry.path()),
        _ => vec![entry.path().to_string_lossy().into_owned()],
    };
    entries.flat_map(of_entry).collect()
}
