//! Backup and restore with the real program: taken while the server works, and everything that was acknowledged comes back.

use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use kvern_e2e::nobody::USER;
use kvern_e2e::{Server, Start, kvern, needs, until};
use serde_json::Value;

use super::disk_full::SmallDisk;

/// What waits for a person; and what is forgotten as soon as it has succeeded.
const MANIFEST: &str = "\
[functions.held]
exec = [\"cat\"]

[functions.gone]
exec = [\"cat\"]
keep = { succeeded = \"1ms\" }
";
/// Above what a row takes.
const LARGE: usize = 100_000;
const CLIENTS: u8 = 3;

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Runs a verb and gives its document.
#[track_caller]
fn document(server: &Server, arguments: &[&str], expected: i32) -> Value {
    let (code, stdout, said) = server.cli(&[arguments, &["-o", "json"]].concat());
    assert_eq!(code, expected, "{arguments:?}: {said}");
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {stdout}"))
}

/// Submits until it is over; ids that were acknowledged go to the list.
fn submit(server: &Server, byte: u8, acknowledged: &Mutex<Vec<String>>, is_over: &AtomicBool) {
    for turn in 0.. {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let size = if turn % 2 == 0 { LARGE } else { 10 };
        let answer = server.http.ask("POST", "/v1/functions/held/jobs", &[], &vec![byte; size]);
        assert_eq!(answer.status, 202, "{}", answer.text());
        acknowledged.lock().expect("no panic").push(answer.json()["id"].as_str().expect("an id").to_owned());
        let answer = server.http.ask("POST", "/v1/functions/gone/jobs", &[], &vec![byte; LARGE]);
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
}

#[test]
fn what_was_acknowledged_before_a_backup_under_load_comes_back() {
    let server = Server::start(&[("kvern.toml", MANIFEST)]);
    assert_eq!(server.http.post("/v1/functions/held/pause", "").status, 200);
    let (acknowledged, is_over) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    let count = || acknowledged.lock().expect("no panic").len();
    let places = tempfile::tempdir().expect("a folder");
    let mut before = Vec::new();
    std::thread::scope(|scope| {
        for byte in 0..CLIENTS {
            let (server, acknowledged, is_over) = (&server, &acknowledged, &is_over);
            scope.spawn(move || submit(server, byte, acknowledged, is_over));
        }
        for round in 0..4 {
            let so_far = count();
            until("work to be done", || (count() >= so_far + 6).then_some(()));
            before = acknowledged.lock().expect("no panic").clone();
            let saved = places.path().join(format!("saved-{round}"));
            let made = document(&server, &["backup", "create", text(&saved), "--data", text(&server.data)], 0);
            assert!(made["jobs"]["queued"].as_u64().expect("a count") >= before.len() as u64, "{made}");
            let verified = document(&server, &["backup", "verify", text(&saved)], 0);
            assert_eq!(verified, made);
            // Nobody was stopped by it.
            let so_far = count();
            until("more work to be done", || (count() > so_far).then_some(()));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let data = places.path().join("data");
    let _ = document(&server, &["restore", text(&places.path().join("saved-3")), "--data", text(&data)], 0);
    let restored =
        Server::start_as(Start { files: &[("kvern.toml", MANIFEST)], data: Some(&data), ..Start::default() });
    for id in &before {
        assert_eq!(restored.http.get(&format!("/v1/jobs/{id}")).json()["state"], "queued");
    }
    assert_eq!(restored.http.post("/v1/functions/held/resume", "").status, 200);
    for id in &before {
        assert_eq!(restored.http.finished(id)["state"], "succeeded", "its input came back whole");
    }
    let new = restored.http.submit("held", "x");
    assert!(before.iter().all(|id| *id < new), "ids go on after those of the backup");
}

#[test]
fn a_doctor_names_the_jobs_that_are_damaged_beside_the_server() {
    let server = Server::start(&[("kvern.toml", MANIFEST)]);
    assert_eq!(server.http.post("/v1/functions/held/pause", "").status, 200);
    let data = text(&server.data);
    let small = server.http.submit("held", "x");
    let large = server.http.ask("POST", "/v1/functions/held/jobs", &[], &[b'x'; LARGE]).json()["id"].clone();
    let whole = document(&server, &["doctor", "--data", data], 0);
    assert_eq!((&whole["jobs"], &whole["is_damaged"], &whole["findings"][0]), (&2.into(), &false.into(), &Value::Null));
    assert_eq!(whole["server_pid"], server.pid());

    let file = std::fs::read_dir(server.data.join("blobs")).expect("a folder").next().expect("one").expect("a file");
    std::fs::remove_file(file.path()).expect("there");
    let seen = document(&server, &["doctor", "--data", data], 1);
    let finding = &seen["findings"][0];
    assert_eq!((&finding["job"], &finding["function"], &finding["state"]), (&large, &"held".into(), &"queued".into()));
    let (code, stdout, said) = server.cli(&["doctor", "--data", data]);
    assert_eq!(code, 1, "{said}");
    let job =
        format!("damaged  job {} (held, queued): the input is damaged: its file is gone", large.as_str().expect("id"));
    assert!(said.contains(&job) && stdout.contains("damaged   yes") && !said.contains(&small), "{stdout}{said}");
}

#[test]
fn a_backup_without_room_leaves_nothing_behind() {
    let Some(disk) = SmallDisk::mount() else { return };
    let server = Server::start(&[("kvern.toml", MANIFEST)]);
    let id = server.http.ask("POST", "/v1/functions/held/jobs", &[], &[b'x'; LARGE]).json()["id"].clone();
    let saved = disk.path().join("saved");
    let filler = disk.fill();
    let create = ["backup", "create", text(&saved), "--data", text(&server.data)];
    let (code, _, said) = server.cli(&create);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("error: the disk is full: ") && said.contains("make room there"), "{said}");
    assert!(!saved.exists(), "what was begun is removed");
    std::fs::remove_file(filler).expect("there");
    let _ = document(&server, &create, 0);
    // The same of a restore.
    let (data, filler) = (disk.path().join("data"), disk.fill());
    let restore = ["restore", text(&saved), "--data", text(&data)];
    let (code, _, said) = server.cli(&restore);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("error: the disk is full: ") && !data.exists(), "{said}");
    std::fs::remove_file(filler).expect("there");
    let _ = document(&server, &restore, 0);
    assert_eq!(server.http.finished(id.as_str().expect("an id"))["state"], "succeeded");
}

#[test]
fn somebody_without_permission_is_told_so() {
    if !needs::root() || !needs::programs(&["setpriv"]) {
        return;
    }
    let server = Server::start(&[("kvern.toml", MANIFEST)]);
    let _ = server.http.submit("held", "x");
    let places = tempfile::tempdir().expect("a folder");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(places.path(), open).expect("others may come in");
    // Where the binary lies, others may not come in.
    let copy = places.path().join("kvern");
    std::fs::copy(kvern(), &copy).expect("a copy");
    let user = USER.to_string();
    for verb in [&["doctor"][..], &["backup", "create", "saved"]] {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]).arg(&copy);
        command.args(verb).arg("--data").arg(&server.data).current_dir(places.path());
        let output = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "{verb:?}: {said}");
        assert!(said.contains("error: no permission for ") && said.contains("as the user of the server"), "{said}");
    }
    assert!(!places.path().join("saved").exists());
}
