//! A wall clock that jumps under a running server, as a wrong time server or a resumed machine makes it. Leases and
//! timeouts do not mind, ids go on growing, and what was due once runs once.

use std::path::{Path, PathBuf};

use kvern_e2e::{Http, Server, Start, needs, until};
use serde_json::Value;
use tempfile::TempDir;

/// Each run leaves a line. Results outlive every jump.
const MANIFEST: &str = "\
[functions.hold]
exec = [\"sh\", \"-c\", \"until test -e go; do sleep 0.05; done\"]

[functions.renewed]
exec = [\"sleep\", \"1.2\"]
keep = { succeeded = \"30d\" }

[functions.overrun]
exec = [\"sleep\", \"600\"]
timeout = \"8s\"
retry = { attempts = 1 }

[functions.once]
exec = [\"sh\", \"-c\", \"echo $KVERN_JOB_ID >>ran\"]
concurrency = 2
keep = { succeeded = \"30d\" }

[functions.flaky]
exec = [\"sh\", \"-c\", \"echo $KVERN_JOB_ID >>tried; test $(grep -c $KVERN_JOB_ID tried) -ge 3\"]
keep = { succeeded = \"30d\" }
retry = { attempts = 3, backoff = \"100ms\" }
";
const JUMPS: [i64; 6] = [3600, -3600, 2 * 86_400, -2 * 86_400, 3600, 0];
const DUE: usize = 40;

/// The time that a process believes in, as an offset to the true one.
struct Hands {
    folder: TempDir,
    library: PathBuf,
}

impl Hands {
    fn new() -> Option<Self> {
        if !needs::programs(&["faketime"]) {
            return None;
        }
        let libraries = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
        let library =
            libraries.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
        if !needs::is_given("libfaketimeMT.so.1 below /usr/lib", library.is_some()) {
            return None;
        }
        let folder = tempfile::Builder::new().prefix("kvern-e2e-clock-").tempdir().expect("a folder");
        let hands = Self { folder, library: library? };
        hands.jump(0);
        Some(hands)
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("offset")
    }

    /// Sets the clock to so many seconds after the true time, or before it.
    fn jump(&self, seconds: i64) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, format!("{seconds:+}\n")).expect("a file");
        // At once: no reader sees half of it.
        std::fs::rename(new, self.file()).expect("a name");
    }

    /// What a program is started under to believe in it.
    fn under(&self) -> Vec<String> {
        let set = |name: &str, path: &Path| format!("{name}={}", path.display());
        let preload = set("LD_PRELOAD", &self.library);
        let file = set("FAKETIME_TIMESTAMP_FILE", &self.file());
        let words = ["env", &preload, &file, "FAKETIME_NO_CACHE=1", "DONT_FAKE_MONOTONIC=1", "NO_FAKE_STAT=1"];
        words.map(str::to_owned).to_vec()
    }
}

#[test]
fn a_clock_that_jumps_ends_no_lease_and_repeats_nothing() {
    let Some(hands) = Hands::new() else { return };
    let under = hands.under();
    let under: Vec<&str> = under.iter().map(String::as_str).collect();
    let server = Server::start_as(Start { files: &[("kvern.toml", MANIFEST)], under: &under, ..Start::default() });
    let http = &server.http;
    let held = http.submit("hold", "1");
    until("the job to run", || (http.get(&format!("/v1/jobs/{held}")).json()["state"] == "running").then_some(()));
    let overrun = http.submit("overrun", "1");
    let flaky: Vec<String> = (0..3).map(|_| http.submit("flaky", "1")).collect();
    // Due half an hour from now: a jump of an hour makes them so.
    let due: Vec<String> = (0..DUE).map(|_| delayed(http, "30m")).collect();
    let far = delayed(http, "90d");
    assert!(lines(&server, "ran").is_empty(), "none is due yet");

    let mut ids = vec![far.clone()];
    for jump in JUMPS {
        hands.jump(jump);
        // What comes after a jump works, and soon.
        ids.push(http.submit("once", "1"));
        assert_eq!(http.finished(&ids[ids.len() - 1])["state"], "succeeded");
        // It runs for two renewals, so the leases of all that run are looked at before the next jump.
        ran_once(&http.finished(&http.submit("renewed", "1")));
    }
    assert!(ids.is_sorted(), "ids grow: {ids:?}");
    for id in due.iter().chain(&flaky) {
        assert_eq!(http.finished(id)["state"], "succeeded");
    }
    let timed_out = http.finished(&overrun);
    assert_eq!(
        (&timed_out["state"], &timed_out["error"]["code"]),
        (&"failed".into(), &"timeout".into()),
        "{timed_out}"
    );
    let job = http.get(&format!("/v1/jobs/{held}")).json();
    assert_eq!((&job["state"], &job["attempt"]), (&"running".into(), &1.into()), "{job}");
    std::fs::write(server.home.join("go"), "").expect("a file");
    ran_once(&http.finished(&held));
    assert_eq!(http.get(&format!("/v1/jobs/{far}")).json()["state"], "scheduled");

    let mut expected: Vec<String> = due.into_iter().chain(ids.into_iter().skip(1)).collect();
    let mut ran = lines(&server, "ran");
    expected.sort();
    ran.sort();
    assert_eq!(ran, expected, "each ran once");
    assert!(!server.log().contains("leases ran out"), "{}", server.log());
}

fn delayed(http: &Http, delay: &str) -> String {
    let answer = http.post(&format!("/v1/functions/once/jobs?delay={delay}"), "1");
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.json()["id"].as_str().expect("an id").to_owned()
}

fn lines(server: &Server, file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(server.home.join(file)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn ran_once(job: &Value) {
    let ran = (&job["state"], job["attempts"].as_array().map(Vec::len), &job["interruptions"]);
    assert_eq!(ran, (&"succeeded".into(), Some(1), &0.into()), "{job}");
}
