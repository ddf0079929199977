//! Manifests with mistakes, and addresses that must not be served.

use std::path::Path;

use kvern_e2e::Server;
use kvern_e2e::files::write;
use tempfile::TempDir;

use super::stage::{GOOD, nothing_is_lost, run_in, run_of};
use super::table::told;

/// A slip in a name, a value out of bounds, a wrong type, a missing unit.
const MISTAKEN: &str = r#"[functions.hello]
handler = "hello.py:hello"
timout = "30s"
retry = { attempts = 0, backoff = "1s" }

[functions.thumbs]
exec = "./thumbs --all"
timeout = 30
"#;

fn folder(manifest: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "kvern.toml", manifest);
    folder
}

/// `kvern serve` in this folder, with data there too.
fn serve(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    run_in(folder, &[&["serve", "--data", "data"], arguments].concat())
}

#[test]
fn several_mistakes() {
    let folder = folder(MISTAKEN);
    told("a manifest with several mistakes").is(&run_of(&run_in(folder.path(), &["check"])));
}

#[test]
fn several_mistakes_when_serving() {
    let folder = folder(MISTAKEN);
    told("a manifest with several mistakes, served").is(&run_of(&serve(folder.path(), &["--listen", "127.0.0.1:0"])));
    assert!(!folder.path().join("data").exists(), "nothing was touched");
}

#[test]
fn several_mistakes_at_a_reload() {
    let server = Server::start(&[("kvern.toml", GOOD)]);
    nothing_is_lost(&server.http, || {
        write(&server.home, "kvern.toml", MISTAKEN);
        let run = server.cli(&["reload", "--data", server.data.to_str().expect("a path in UTF-8")]);
        told("a manifest with several mistakes, reloaded").is(&run_of(&run));
        let log = server.log();
        let message = log.lines().find(|line| line.contains("not reloaded")).expect("the log says so too");
        assert!(message.contains("kvern.toml:3:1") && message.contains("4 mistakes"), "it has them all: {message}");
    });
}

#[test]
fn files_that_are_not_there() {
    let folder = folder(
        "[functions.a]\nhandler = \"a.py:a\"\n[functions.b]\nexec = [\"./b\"]\n[functions.c]\nexec = [\"cat\"]\n",
    );
    told("files that are not there").is(&run_of(&run_in(folder.path(), &["check"])));
}

#[test]
fn not_toml() {
    let folder = folder("[functions.hello]\nhandler = hello.py\n");
    told("a manifest that is not TOML").is(&run_of(&run_in(folder.path(), &["check"])));
}

#[test]
fn what_cannot_be_served() {
    let folder = folder("[server]\nlisten = \"myhost:8080\"\nqueue = \"banana\"\n");
    told("a place that cannot be served, in the manifest").is(&run_of(&run_in(folder.path(), &["check"])));
}

#[test]
fn no_manifest() {
    let folder = tempfile::tempdir().expect("a folder");
    told("no manifest").is(&run_of(&serve(folder.path(), &[])));
}

#[test]
fn open_address_without_a_token() {
    let folder = folder(GOOD);
    let run = serve(folder.path(), &["--listen", "0.0.0.0:8080"]);
    told("an address that others can reach, without a token").is(&run_of(&run));
    assert!(!folder.path().join("data").exists(), "nothing was touched");
}

#[test]
fn bad_address() {
    let folder = folder(GOOD);
    told("an address that is none").is(&run_of(&serve(folder.path(), &["--listen", "8080"])));
}

#[test]
fn data_directory_around_the_functions() {
    let folder = folder(GOOD);
    let inner = folder.path().join("app");
    write(&inner, "kvern.toml", GOOD);
    let run = run_in(&inner, &["serve", "--data", ".", "--listen", "127.0.0.1:0"]);
    told("a data directory that holds the functions").is(&run_of(&run));
    let run = run_in(&inner, &["serve", "--data", "..", "--listen", "127.0.0.1:0"]);
    told("a data directory that holds the functions").is(&run_of(&run));
    assert_eq!(std::fs::read_dir(&inner).expect("a folder").count(), 1, "nothing was touched");
}
