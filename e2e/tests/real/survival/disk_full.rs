//! A full disk: nothing new is accepted, nothing accepted is lost, and it goes on by itself once there is room.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kvern_e2e::files::write;
use kvern_e2e::{Answer, Http, Server, Start, needs, until};
use tempfile::TempDir;

const MANIFEST: &str = "\
[functions.wait]
exec = [\"sh\", \"-c\", \"until test -e go; do sleep 0.02; done; echo done\"]
";
/// Leases that nobody renews have run out by then, and their jobs run again.
const LEASES_END_WITHIN: Duration = Duration::from_secs(11);
/// Its results take room that a full disk does not have.
const MANIFEST_LARGE: &str = "\
[functions.large]
exec = [\"sh\", \"-c\", \"sleep 0.02; head -c 30000 /dev/zero\"]
concurrency = 2
";
/// Its results are stored as files of their own. Each run leaves a line.
const MANIFEST_FILES: &str = "\
[functions.large]
exec = [\"sh\", \"-c\", \"echo ran >>runs; head -c 200000 /dev/zero\"]
concurrency = 2
retry = { attempts = 5, backoff = \"10ms\" }
";
/// Writes a wheel that is small until it is installed: 20 MiB.
const LARGE_WHEEL: &str = "
import zipfile
with zipfile.ZipFile('large-1.0-py3-none-any.whl', 'w', zipfile.ZIP_DEFLATED) as wheel:
    wheel.writestr('large.bin', bytes(20 << 20))
    info = 'large-1.0.dist-info/'
    wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\\nName: large\\nVersion: 1.0\\n')
    wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    wheel.writestr(info + 'RECORD', '')
";
/// Its TMPDIR is on the disk of the server. It takes all of it, and waits.
const MANIFEST_FILLER: &str = "\
[functions.filler]
exec = [\"sh\", \"-c\", \"cat /dev/zero >$TMPDIR/all; until test -e go; do sleep 0.02; done; exit 3\"]
retry = { attempts = 1 }

[functions.cat]
exec = [\"cat\"]
";
/// Longer than all pauses between attempts of one job.
const ATTEMPTS_END_WITHIN: Duration = Duration::from_secs(5);
/// Above the free space that a submit needs (64 MiB) and two reserves.
const SIZE: &str = "size=128m";

/// A small file system in memory; unmounted when dropped.
pub(super) struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    pub(super) fn mount() -> Option<Self> {
        if !needs::root() {
            return None;
        }
        let folder = tempfile::Builder::new().prefix("kvern-e2e-disk-").tempdir().expect("a folder");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "kvern-e2e"]).arg(folder.path()).status();
        let is_mounted = mounted.is_ok_and(|status| status.success());
        needs::is_given("the right to mount a tmpfs", is_mounted).then_some(Self { folder })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes all of the room, to the last byte. May be called again, for what became free.
    pub(super) fn fill(&self) -> PathBuf {
        kvern_e2e::disk::fill(self.path())
    }

    /// Takes whatever becomes free, for so long.
    fn keep_full(&self, time: Duration) -> PathBuf {
        let began = Instant::now();
        until("the time to pass", || {
            let filler = self.fill();
            (began.elapsed() > time).then_some(filler)
        })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

fn submit(http: &Http) -> Answer {
    http.ask("POST", "/v1/functions/wait/jobs", &[], b"x")
}

#[test]
fn a_full_disk_refuses_new_jobs_and_keeps_the_others() {
    let Some(disk) = SmallDisk::mount() else { return };
    let data = disk.path().join("data");
    let start = Start { files: &[("kvern.toml", MANIFEST)], data: Some(&data), ..Start::default() };
    let server = Server::start_as(start);
    let http = &server.http;
    let running = submit(http).json()["id"].as_str().expect("an id").to_owned();
    until("the job to run", || (http.get(&format!("/v1/jobs/{running}")).json()["state"] == "running").then_some(()));

    let filler = disk.fill();
    // Jobs may be accepted until the free space is looked at again; each of them must then survive.
    let mut accepted = vec![running];
    let refused = until("submits to be refused", || {
        let answer = submit(http);
        if answer.status == 202 {
            accepted.push(answer.json()["id"].as_str().expect("an id").to_owned());
            return None;
        }
        Some(answer)
    });
    assert_eq!((refused.status, &refused.json()["code"]), (503, &"no_space".into()), "{}", refused.text());
    assert!(refused.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()));
    assert_eq!(refused.json()["retryable"], true);

    std::fs::write(server.home.join("go"), "").expect("the home is on another disk");
    for id in &accepted {
        assert_eq!(http.finished(id)["state"], "succeeded");
        assert_eq!(http.get(&format!("/v1/jobs/{id}/result")).text(), "done\n", "stored although the disk is full");
    }
    assert_eq!(submit(http).status, 503);
    let call = http.ask("POST", "/v1/functions/wait", &[], &vec![b'x'; 100_000]);
    assert_eq!((call.status, &call.json()["code"]), (503, &"no_space".into()), "{}", call.text());
    assert_eq!((call.header("kvern-error"), call.header("retry-after")), (Some("platform"), Some("10")));
    assert_eq!(http.ask("POST", "/v1/functions/wait", &[], b"x").status, 200, "what fits into memory needs no disk");
    assert_eq!((http.get("/healthz").status, http.get("/readyz").status), (200, 503));

    std::fs::remove_file(filler).expect("room again");
    let answer = until("submits to be accepted again", || Some(submit(http)).filter(|answer| answer.status == 202));
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(http.finished(&id)["state"], "succeeded");
}

#[test]
fn what_was_acknowledged_on_a_full_disk_is_there_after_a_kill() {
    let Some(disk) = SmallDisk::mount() else { return };
    let data = disk.path().join("data");
    let start = Start { files: &[("kvern.toml", MANIFEST)], data: Some(&data), ..Start::default() };
    let mut server = Server::start_as(start);
    let before: Vec<String> =
        (0..20).map(|_| submit(&server.http).json()["id"].as_str().expect("an id").to_owned()).collect();
    let filler = disk.fill();
    until("submits to be refused", || (submit(&server.http).status == 503).then_some(()));
    server.kill();
    server.restart();
    assert_eq!(submit(&server.http).status, 503, "a server that starts on a full disk accepts nothing");
    std::fs::write(server.home.join("go"), "").expect("a file");
    for id in &before {
        assert_eq!(server.http.finished(id)["state"], "succeeded");
    }
    std::fs::remove_file(filler).expect("room again");
    until("submits to be accepted again", || (submit(&server.http).status == 202).then_some(()));
}

#[test]
fn a_start_without_room_for_the_code_fails_no_job() {
    const CODE: &str =
        "import os, time\n\ndef wait():\n    while not os.path.exists('go'):\n        time.sleep(0.02)\n";
    let Some(disk) = SmallDisk::mount() else { return };
    let data = disk.path().join("data");
    let files = [("kvern.toml", "[functions.wait]\nhandler = \"wait.py:wait\"\nconcurrency = 1\n"), ("wait.py", CODE)];
    let mut server = Server::start_as(Start { files: &files, data: Some(&data), ..Start::default() });
    // The first runs when the server is killed; the others have not begun.
    let ids: Vec<String> = (0..5).map(|_| server.http.submit("wait", "")).collect();
    server.kill();
    // So that it is copied once more.
    std::fs::write(server.home.join("wait.py"), format!("{CODE}# new\n")).expect("the home is on another disk");
    std::fs::write(server.home.join("go"), "").expect("a file");
    let filler = disk.fill();
    server.restart();
    disk.fill();
    until("the function to lack room", || {
        server.http.get("/v1/functions/wait").text().contains("No space left on device").then_some(())
    });
    for id in &ids[1..] {
        let job = server.http.get(&format!("/v1/jobs/{id}")).json();
        assert_eq!((&job["state"], &job["attempt"]), (&"queued".into(), &0.into()), "{job}");
    }

    std::fs::remove_file(filler).expect("room again");
    assert_eq!(server.http.finished(&ids[0])["state"], "succeeded");
    for id in &ids[1..] {
        let job = server.http.finished(id);
        assert_eq!((&job["state"], &job["attempt"]), (&"succeeded".into(), &1.into()), "{job}");
    }
    let data = data.display().to_string();
    until("a reload to be taken", || (server.cli(&["reload", "--data", &data]).0 == 0).then_some(()));
}

#[test]
fn an_installer_without_room_fails_no_job() {
    const CODE: &str =
        "import os, time\n\ndef wait():\n    while not os.path.exists('go'):\n        time.sleep(0.02)\n";
    let pip = Command::new("python3").args(["-m", "pip", "--version"]).output();
    if !needs::is_given("pip", pip.is_ok_and(|output| output.status.success())) {
        return;
    }
    let Some(disk) = SmallDisk::mount() else { return };
    let data = disk.path().join("data");
    let files = [("kvern.toml", "[functions.wait]\nhandler = \"wait.py:wait\"\nconcurrency = 1\n"), ("wait.py", CODE)];
    let mut server = Server::start_as(Start { files: &files, data: Some(&data), ..Start::default() });
    // The first runs when the server is killed; the others have not begun.
    let ids: Vec<String> = (0..3).map(|_| server.http.submit("wait", "")).collect();
    server.kill();
    let made = Command::new("python3").args(["-c", LARGE_WHEEL]).current_dir(&server.home).status();
    assert!(made.is_ok_and(|status| status.success()), "no wheel");
    write(&server.home, "requirements.txt", "--no-index\n--find-links .\nlarge==1.0\n");
    write(&server.home, "go", "");
    // Room for the installer to begin, and not for what it brings.
    let filler = disk.fill();
    let filled = std::fs::metadata(&filler).expect("a file").len();
    File::options().write(true).open(&filler).and_then(|file| file.set_len(filled - (4 << 20))).expect("a little room");
    server.restart();
    until("the installer to lack room", || {
        server.http.get("/v1/functions/wait").text().contains("the disk is full").then_some(())
    });
    for id in &ids[1..] {
        let job = server.http.get(&format!("/v1/jobs/{id}")).json();
        assert_eq!((&job["state"], &job["attempt"]), (&"queued".into(), &0.into()), "{job}");
    }

    std::fs::remove_file(filler).expect("room again");
    for id in &ids {
        assert_eq!(server.http.finished(id)["state"], "succeeded");
    }
    assert_eq!(server.http.get(&format!("/v1/jobs/{}", ids[1])).json()["attempt"], 1);
}

#[test]
fn no_job_runs_twice_because_its_end_found_no_room() {
    let Some(disk) = SmallDisk::mount() else { return };
    let data = disk.path().join("data");
    let server =
        Server::start_as(Start { files: &[("kvern.toml", MANIFEST_LARGE)], data: Some(&data), ..Start::default() });
    let http = &server.http;
    let post = |path: &str| http.ask("POST", &format!("/v1/functions/large/{path}"), &[], b"");
    assert_eq!(post("pause").status, 200);
    let ids: Vec<String> = (0..200).map(|_| post("jobs").json()["id"].as_str().expect("an id").to_owned()).collect();

    disk.fill();
    assert_eq!(post("resume").status, 200);
    let filler = disk.keep_full(LEASES_END_WITHIN);
    let running = http.get("/v1/jobs?state=running&limit=200").json()["jobs"].as_array().expect("a list").len();
    assert!((1..=6).contains(&running), "{running} jobs began though no end could be stored");

    std::fs::remove_file(filler).expect("room again");
    for id in &ids {
        let job = http.finished(id);
        let ran = (&job["state"], job["attempts"].as_array().map(Vec::len), &job["interruptions"]);
        assert_eq!(ran, (&"succeeded".into(), Some(1), &0.into()), "{job}");
    }
}

#[test]
fn a_result_without_room_is_a_counted_attempt() {
    let Some(disk) = SmallDisk::mount() else { return };
    let data = disk.path().join("data");
    let server =
        Server::start_as(Start { files: &[("kvern.toml", MANIFEST_FILES)], data: Some(&data), ..Start::default() });
    let http = &server.http;
    let post = |path: &str| http.ask("POST", &format!("/v1/functions/large/{path}"), &[], b"");
    let runs = || std::fs::read_to_string(server.home.join("runs")).unwrap_or_default().lines().count();
    assert_eq!(post("pause").status, 200);
    let ids: Vec<String> = (0..10).map(|_| post("jobs").json()["id"].as_str().expect("an id").to_owned()).collect();

    disk.fill();
    assert_eq!(post("resume").status, 200);
    let filler = disk.keep_full(ATTEMPTS_END_WITHIN);
    assert!((1..=4).contains(&runs()), "{} runs though no result could be stored", runs());

    std::fs::remove_file(filler).expect("room again");
    let jobs: Vec<_> = ids.iter().map(|id| http.finished(id)).collect();
    let attempts = jobs.iter().flat_map(|job| job["attempts"].as_array().expect("a list"));
    let errors: Vec<_> = attempts.map(|attempt| attempt["error"].as_str().unwrap_or_default()).collect();
    assert!(jobs.iter().all(|job| job["state"] == "succeeded"), "{jobs:?}");
    assert!(errors.iter().any(|error| error.contains("the function ran, but there is no room")), "{errors:?}");
    assert_eq!(runs(), errors.len(), "each run is an attempt that is told: {errors:?}");
}

#[test]
fn a_function_that_fills_the_disk_gives_it_back() {
    let Some(disk) = SmallDisk::mount() else { return };
    let data = disk.path().join("data");
    let files = [("kvern.toml", MANIFEST_FILLER)];
    let server = Server::start_as(Start { files: &files, data: Some(&data), ..Start::default() });
    let filler = server.http.submit("filler", "{}");
    let submit = || server.http.post("/v1/functions/cat/jobs", "{}");
    let refused = until("the disk to be full", || Some(submit()).filter(|answer| answer.status != 202));
    assert_eq!((refused.status, refused.header("retry-after").is_some()), (503, true), "{}", refused.text());
    std::fs::write(server.home.join("go"), "").expect("a file");
    let job = server.http.finished(&filler);
    assert_eq!((&job["state"], &job["error"]["code"]), (&"failed".into(), &"exit".into()), "{job}");
    // Its folder went with it, and the server goes on by itself.
    let accepted = until("room", || Some(submit()).filter(|answer| answer.status == 202)).json();
    assert_eq!(server.http.finished(accepted["id"].as_str().expect("an id"))["state"], "succeeded");
}
