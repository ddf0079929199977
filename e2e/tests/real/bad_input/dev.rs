//! `kvern dev` while somebody types: what was saved broken does not stop what ran before.

use std::fs::File;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use kvern_e2e::files::write;
use kvern_e2e::server::free_port;
use kvern_e2e::{Http, kvern, until};
use tempfile::TempDir;

use super::stage::{GOOD, has, nothing_is_lost};
use super::table::told;

const WHOLE: &str = "def greet(name: str):\n    return name\n";
const BROKEN: &str = "def greet(name: str):\n    return (name\n";
const BETTER: &str = "def greet(name: str):\n    return name.upper()\n";

/// A running `kvern dev`; killed when dropped.
struct Dev {
    http: Http,
    process: Child,
    folder: TempDir,
}

impl Dev {
    fn start(files: &[(&str, &str)], arguments: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("kvern-e2e-").tempdir().expect("a folder");
        for (name, text) in files {
            write(&folder.path().join("app"), name, text);
        }
        let http = Http { address: SocketAddr::from(([127, 0, 0, 1], free_port())) };
        let terminal = File::create(folder.path().join("terminal")).expect("a file");
        let process = Command::new(kvern())
            .args(["dev", "--listen", &http.address.to_string()])
            .args(arguments)
            .current_dir(folder.path().join("app"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(terminal)
            .spawn()
            .expect("kvern starts");
        let dev = Self { http, process, folder };
        until("kvern dev to be ready", || dev.terminal().contains("ready after").then_some(()));
        dev
    }

    /// What the person at the terminal has seen.
    fn terminal(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("terminal")).unwrap_or_default()
    }

    fn save(&self, name: &str, text: &str) {
        write(&self.folder.path().join("app"), name, text);
    }

    fn greet(&self) -> String {
        self.http.post("/v1/functions/greet", r#"{"name": "Ada"}"#).text()
    }

    /// Waits for the last line of a message, so that all of it is there.
    fn wait_for(&self, words: &str) {
        until(words, || self.terminal().lines().any(|line| line.contains(words)).then_some(()));
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            let _ = std::io::Write::write_all(&mut std::io::stderr(), self.terminal().as_bytes());
        }
    }
}

fn manifest() -> String {
    format!("{GOOD}[functions.greet]\nhandler = \"greet.py:greet\"\n")
}

#[test]
fn syntax_error_while_it_serves() {
    if !has("python3") {
        return;
    }
    let dev = Dev::start(&[("kvern.toml", &manifest()), ("greet.py", WHOLE)], &[]);
    assert_eq!(dev.greet(), "Ada");
    nothing_is_lost(&dev.http, || {
        dev.save("greet.py", BROKEN);
        dev.wait_for("the version before goes on");
        assert_eq!(dev.greet(), "Ada", "the version before goes on");
    });
    told("a syntax error in `kvern dev`").is_among(&dev.terminal());
    dev.save("greet.py", BETTER);
    until("the repaired version", || (dev.greet() == "ADA").then_some(()));
}

#[test]
fn syntax_error_before_the_first_call() {
    if !has("python3") {
        return;
    }
    let dev = Dev::start(&[("kvern.toml", &manifest()), ("greet.py", WHOLE)], &[]);
    nothing_is_lost(&dev.http, || {
        dev.save("greet.py", BROKEN);
        dev.wait_for("the version before goes on");
        assert_eq!(dev.greet(), "Ada", "the version before goes on, though no instance of it had been started");
    });
    told("a syntax error in `kvern dev`, before the first call").is_among(&dev.terminal());
}

#[test]
fn syntax_error_in_a_lone_file() {
    if !has("python3") {
        return;
    }
    let good = "def good(event):\n    return event\n\n";
    let with_good = |greet: &str| format!("{good}{greet}");
    let dev = Dev::start(&[("greet.py", &with_good(WHOLE))], &["greet.py"]);
    assert_eq!(dev.greet(), "Ada");
    dev.save("greet.py", &with_good(BROKEN));
    dev.wait_for("not reloaded");
    assert_eq!(dev.greet(), "Ada", "the version before goes on");
    told("a syntax error in the file of `kvern dev FILE`").is_among(&dev.terminal());
    dev.save("greet.py", &with_good(BETTER));
    until("the repaired version", || (dev.greet() == "ADA").then_some(()));
}

#[test]
fn mistake_in_the_manifest() {
    let dev = Dev::start(&[("kvern.toml", GOOD)], &[]);
    nothing_is_lost(&dev.http, || {
        dev.save("kvern.toml", &format!("{GOOD}timout = \"5s\"\n"));
        dev.wait_for("not reloaded");
    });
    told("a mistake in the manifest of `kvern dev`").is_among(&dev.terminal());
}
