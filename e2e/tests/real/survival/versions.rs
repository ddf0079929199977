//! Copies of a function's code: a reload leaves one behind, and old ones do not pile up.

use std::path::PathBuf;

use kvern_e2e::files::write;
use kvern_e2e::{Server, until};

const MANIFEST: &str = "\
[functions.hello]
exec = [\"sh\", \"hello.sh\"]
concurrency = 2
";
/// What is kept of each function, in use or not.
const KEPT: usize = 5;

fn script(number: usize) -> String {
    format!("read -r name; touch began; until test -e \"$name\"; do sleep 0.02; done; echo {number}\n")
}

fn copies(server: &Server) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(server.data.join("versions/hello")).expect("copies");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

fn save_and_reload(server: &Server, number: usize) {
    write(&server.home, "hello.sh", &script(number));
    let (code, _, said) = server.cli(&["reload", "--data", server.data.to_str().expect("a path in UTF-8")]);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn old_copies_go_but_for_those_in_use() {
    let mut server = Server::start(&[("kvern.toml", MANIFEST), ("hello.sh", &script(0))]);
    let job = server.http.ask("POST", "/v1/functions/hello/jobs", &[], b"go\n").json()["id"].clone();
    until("the job to begin", || server.home.join("began").exists().then_some(()));
    let first = copies(&server).pop().expect("it runs from one");
    for number in 1..=8 {
        save_and_reload(&server, number);
    }
    assert_eq!(copies(&server).len(), KEPT + 1);
    assert!(first.exists(), "an attempt still runs from it");

    write(&server.home, "go", "");
    assert_eq!(server.http.finished(job.as_str().expect("an id"))["state"], "succeeded");
    assert_eq!(server.http.ask("POST", "/v1/functions/hello", &[], b"go\n").text(), "8\n");
    // Copies that an older server left go at the start too.
    server.kill();
    for number in 0..3 {
        std::fs::create_dir(server.data.join(format!("versions/hello/{number:012}"))).expect("a folder");
    }
    server.restart();
    until("old copies to go", || (copies(&server).len() == KEPT).then_some(()));
    assert_eq!(server.http.ask("POST", "/v1/functions/hello", &[], b"go\n").text(), "8\n");
}
