//! A full disk: nothing new is accepted, nothing accepted is lost, and it goes on by itself once there is room.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use kvern_e2e::{Answer, Http, Server, Start, needs, until};
use tempfile::TempDir;

const MANIFEST: &str = "\
[functions.wait]
exec = [\"sh\", \"-c\", \"until test -e go; do sleep 0.02; done; echo done\"]
";
/// Above the free space that a submit needs (64 MiB) and two reserves.
const SIZE: &str = "size=128m";

/// A small file system in memory; unmounted when dropped.
struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    fn mount() -> Option<Self> {
        if !needs::root() {
            return None;
        }
        let folder = tempfile::Builder::new().prefix("kvern-e2e-disk-").tempdir().expect("a folder");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "kvern-e2e"]).arg(folder.path()).status();
        let is_mounted = mounted.is_ok_and(|status| status.success());
        needs::is_given("the right to mount a tmpfs", is_mounted).then_some(Self { folder })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes all of the room, to the last byte.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = File::create(&path).expect("a file");
        let piece = vec![0; 1 << 20];
        while file.write_all(&piece).is_ok() {}
        while file.write_all(&piece[..1]).is_ok() {}
        path
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
    assert_eq!(http.get("/healthz").status, 200);

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
