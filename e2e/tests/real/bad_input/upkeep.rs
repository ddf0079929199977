//! Data directories and backups that are damaged, of another version, or not what they are taken for.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use kvern_e2e::files::{copy, of_repository, write};
use kvern_e2e::{Server, Start};
use tempfile::TempDir;

use super::stage::{GOOD, Run, ending, problem, run_in, run_of};
use super::table::told;

/// Where SQLite keeps the version of the schema: four bytes, the highest first.
const SCHEMA_AT: u64 = 60;
/// The second page: the first of our own tables.
const SECOND_PAGE: u64 = 4096;
const SERVE: [&str; 5] = ["serve", "--data", "data", "--listen", "127.0.0.1:0"];

/// A folder with a manifest, and a data directory `data` with some jobs of each kind.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "kvern.toml", GOOD);
    let data = folder.path().join("data");
    std::fs::create_dir(&data).expect("a folder");
    copy(&of_repository("crates/queue-sqlite/tests/golden/schema-1"), &data);
    folder
}

/// The same with a backup of it in `saved`.
fn folder_with_backup() -> TempDir {
    let folder = folder();
    let (code, _, said) = run_in(folder.path(), &["backup", "create", "saved", "--data", "data"]);
    assert_eq!(code, 0, "{said}");
    folder
}

fn overwrite(file: &Path, at: u64, bytes: &[u8]) {
    let file = std::fs::File::options().write(true).open(file).expect("a file");
    file.write_all_at(bytes, at).expect("written");
}

/// Runs it; nothing in these directories changes.
fn untouched(folder: &TempDir, names: &[&str], arguments: &[&str]) -> Run {
    let look = || names.iter().map(|name| contents(&folder.path().join(name))).collect::<Vec<_>>();
    let before = look();
    let run = run_in(folder.path(), arguments);
    assert!(look() == before, "something was written");
    run
}

/// Every file below, with its bytes; what SQLite and the lock keep beside is not content.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else if !path.to_string_lossy().ends_with("queue.lock") && !path.to_string_lossy().contains("queue.db-") {
            files.push((path.clone(), std::fs::read(path).expect("readable")));
        }
    }
    files.sort();
    files
}

#[test]
fn data_of_a_newer_version() {
    let folder = folder();
    overwrite(&folder.path().join("data/queue.db"), SCHEMA_AT, &1000_u32.to_be_bytes());
    told("a data directory of a newer version").is(&run_of(&untouched(&folder, &["data"], &SERVE)));
}

#[test]
fn damaged_database() {
    let folder = folder();
    overwrite(&folder.path().join("data/queue.db"), SECOND_PAGE, &[0; 4096]);
    let sizes = || contents(&folder.path().join("data")).into_iter().map(|(path, bytes)| (path, bytes.len()));
    let before: Vec<_> = sizes().collect();
    told("a damaged database").is(&run_of(&run_in(folder.path(), &SERVE)));
    assert!(sizes().eq(before), "something was deleted");
}

#[test]
fn server_on_a_backup() {
    let folder = folder_with_backup();
    let serve = SERVE.map(|word| if word == "data" { "saved" } else { word });
    told("a server on a backup").is(&run_of(&untouched(&folder, &["saved"], &serve)));
}

#[test]
fn doctor_where_nothing_is() {
    let folder = tempfile::tempdir().expect("a folder");
    told("`kvern doctor` where nothing is").is(&run_of(&run_in(folder.path(), &["doctor", "--data", "data"])));
    assert!(!folder.path().join("data").exists(), "nothing was made");
}

#[test]
fn backup_over_another() {
    let folder = folder_with_backup();
    let run = untouched(&folder, &["data", "saved"], &["backup", "create", "saved", "--data", "data"]);
    told("a backup over another one").is(&run_of(&run));
}

#[test]
fn backup_into_the_data_directory() {
    let folder = folder();
    let run = untouched(&folder, &["data"], &["backup", "create", "data/backup", "--data", "data"]);
    told("a backup into the data directory").is(&run_of(&run));
}

#[test]
fn restore_over_jobs() {
    let folder = folder_with_backup();
    let run = untouched(&folder, &["data", "saved"], &["restore", "saved", "--data", "data"]);
    told("`kvern restore` over jobs").is(&run_of(&run));
}

#[test]
fn backup_that_was_cut_off() {
    let folder = folder_with_backup();
    let saved = folder.path().join("saved");
    std::fs::remove_file(saved.join("backup.json")).expect("there");
    std::fs::rename(saved.join("queue.db"), saved.join("queue.partial")).expect("there");
    let run = untouched(&folder, &["saved"], &["restore", "saved", "--data", "new"]);
    told("a backup that was cut off").is(&run_of(&run));
    assert!(!folder.path().join("new").exists(), "nothing was made");
}

#[test]
fn damaged_backup() {
    let folder = folder_with_backup();
    overwrite(&folder.path().join("saved/queue.db"), SECOND_PAGE, b"flipped");
    let run = untouched(&folder, &["saved"], &["restore", "saved", "--data", "new"]);
    told("a damaged backup").is(&run_of(&run));
    assert!(!folder.path().join("new").exists(), "nothing was made");
}

/// A server whose payloads are in files, which can be damaged from outside.
fn with_files() -> Server {
    let large = "[functions.large]\nexec = [\"cat\"]\n";
    Server::start_as(Start { files: &[("kvern.toml", &format!("{GOOD}{large}"))], ..Start::default() })
}

fn submit_large(server: &Server) -> String {
    let answer = server.http.ask("POST", "/v1/functions/large/jobs", &[], &[b'x'; 100_000]);
    answer.json()["id"].as_str().expect("an id").to_owned()
}

fn remove_files(server: &Server) {
    for entry in std::fs::read_dir(server.data.join("blobs")).expect("a folder").flatten() {
        std::fs::remove_file(entry.path()).expect("there");
    }
}

#[test]
fn damaged_result() {
    let server = with_files();
    let id = submit_large(&server);
    assert_eq!(server.http.finished(&id)["state"], "succeeded");
    let answer = super::stage::nothing_is_lost(&server.http, || {
        remove_files(&server);
        server.http.get(&format!("/v1/jobs/{id}/result"))
    });
    told("a result that the disk has damaged").is(&problem(&answer));
}

#[test]
fn damaged_input() {
    let server = with_files();
    let job = super::stage::nothing_is_lost(&server.http, || {
        assert_eq!(server.http.post("/v1/functions/large/pause", "").status, 200);
        let id = submit_large(&server);
        remove_files(&server);
        assert_eq!(server.http.post("/v1/functions/large/resume", "").status, 200);
        server.http.finished(&id)
    });
    told("an input that the disk has damaged").is(&ending(&job));
}
