//! A backup or a restore that is killed at any write, sync or rename: it is whole, or nobody takes it for one.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use kvern_e2e::{Server, kvern_under, needs};
use serde_json::Value;

const MANIFEST: &str = "[functions.held]\nexec = [\"cat\"]\n";
/// The calls at which it is killed, each time a little later.
const CALLS: [&str; 5] = ["pwrite64", "write", "fsync", "rename", "openat"];
/// More of each kind say nothing new.
const KILLS_MAX: usize = 60;

fn run(under: &[&str], arguments: &[&str], dir: &Path) -> Output {
    let mut command = kvern_under(under);
    command.args(arguments).current_dir(dir).env_remove("KVERN_DATA").stdin(Stdio::null());
    command.output().expect("it runs")
}

/// A backup of some jobs, small and large, whose server has stopped.
fn saved(places: &Path) -> PathBuf {
    let server = Server::start(&[("kvern.toml", MANIFEST)]);
    assert_eq!(server.http.post("/v1/functions/held/pause", "").status, 200);
    for size in [10, 100_000, 10, 100_000] {
        assert_eq!(server.http.ask("POST", "/v1/functions/held/jobs", &[], &vec![b'x'; size]).status, 202);
    }
    let saved = places.join("saved");
    let create = ["backup", "create", "saved", "--data", server.data.to_str().expect("UTF-8")];
    assert!(run(&[], &create, places).status.success());
    saved
}

/// Carries a verb out again and again, killed at each call; `look` sees what is left each time. How often it was killed.
fn killed_everywhere(places: &Path, verb: &[&str], look: impl Fn(&Path, bool)) -> usize {
    let mut kills = 0;
    for call in CALLS {
        for when in 1..=KILLS_MAX {
            let inject = format!("inject={call}:signal=KILL:when={when}");
            let under = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &inject];
            let target = places.join("target");
            let _ = std::fs::remove_dir_all(&target);
            let output = run(&under, verb, places);
            let is_done = output.status.success();
            look(&target, is_done);
            if is_done {
                break;
            }
            assert_eq!(output.status.code(), None, "{call} {when}: {}", String::from_utf8_lossy(&output.stderr));
            kills += 1;
        }
    }
    kills
}

fn jobs(dir: &Path, places: &Path) -> Option<u64> {
    let output = run(&[], &["doctor", "-o", "json", "--data", dir.to_str().expect("UTF-8")], places);
    let seen: Value = serde_json::from_slice(&output.stdout).ok()?;
    assert_eq!((output.status.code(), &seen["is_damaged"]), (Some(0), &false.into()), "{seen}");
    seen["jobs"].as_u64()
}

#[test]
fn a_backup_that_was_killed_is_whole_or_none() {
    if !needs::programs(&["strace"]) {
        return;
    }
    let places = tempfile::tempdir().expect("a folder");
    // A backup has the layout of a data directory.
    let data = saved(places.path());
    std::fs::remove_file(data.join("backup.json")).expect("there");
    let verb = ["backup", "create", "target", "--data", "saved"];
    let kills = killed_everywhere(places.path(), &verb, |target, is_done| {
        let verified = run(&[], &["backup", "verify", "target"], places.path());
        let said = String::from_utf8_lossy(&verified.stderr);
        match verified.status.code() {
            // The last call may have been behind the label.
            Some(0) => assert!(target.join("backup.json").exists()),
            Some(1) => assert!(!is_done && said.contains("was not finished"), "{said}"),
            Some(3) => assert!(!is_done && !target.join("backup.json").exists(), "{said}"),
            other => panic!("{other:?}: {said}"),
        }
        if verified.status.code() != Some(0) && target.join("queue.partial").exists() {
            let again = run(&[], &verb, places.path());
            let said = String::from_utf8_lossy(&again.stderr);
            assert!(again.status.code() == Some(4) && said.contains("was begun and not finished: remove it"), "{said}");
        }
    });
    assert!(kills >= 20, "it was killed {kills} times");
}

#[test]
fn a_restore_that_was_killed_is_whole_or_starts_no_server() {
    if !needs::programs(&["strace"]) {
        return;
    }
    let places = tempfile::tempdir().expect("a folder");
    let _saved = saved(places.path());
    std::fs::write(places.path().join("kvern.toml"), MANIFEST).expect("written");
    let kills = killed_everywhere(places.path(), &["restore", "saved", "--data", "target"], |target, is_done| {
        if target.join("queue.db").exists() {
            assert_eq!(jobs(target, places.path()), Some(4));
            return;
        }
        assert!(!is_done);
        if target.join("queue.partial").exists() {
            let serve = ["serve", "--data", "target", "--listen", "127.0.0.1:0"];
            // A server that did start would not end by itself.
            let refused = run(&["timeout", "20"], &serve, places.path());
            let said = String::from_utf8_lossy(&refused.stderr);
            assert!(refused.status.code() == Some(4) && said.contains("was begun and not finished"), "{said}");
        }
    });
    assert!(kills >= 20, "it was killed {kills} times");
}
