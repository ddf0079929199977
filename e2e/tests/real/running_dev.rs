//! `kvern dev` in a folder of its own, with what a person at its terminal sees.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use kvern_e2e::files::write;
use kvern_e2e::server::free_port;
use kvern_e2e::{Http, kvern, until};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A running `kvern dev` and what it wrote to the terminal; killed when dropped.
pub(crate) struct Dev {
    pub(crate) http: Http,
    pub(crate) process: Child,
    pub(crate) folder: TempDir,
}

impl Dev {
    /// Starts it in a folder with these files, on a free port.
    pub(crate) fn start(files: &[(&str, &str)], arguments: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("kvern-e2e-dev-").tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("app")).expect("a folder");
        for (name, text) in files {
            write(&folder.path().join("app"), name, text);
        }
        Self::start_in(folder, arguments)
    }

    pub(crate) fn start_in(folder: TempDir, arguments: &[&str]) -> Self {
        Self::start_with(folder, arguments, &[])
    }

    /// With these environment variables.
    pub(crate) fn start_with(folder: TempDir, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let http = Http { address: SocketAddr::from(([127, 0, 0, 1], free_port())) };
        let address = http.address.to_string();
        let listen = ["--listen", &address];
        let process = spawn(&folder, &[&listen, arguments].concat(), environment);
        let dev = Self { http, process, folder };
        until("kvern dev to be ready", || dev.seen().contains("ready after").then_some(()));
        dev
    }

    pub(crate) fn app(&self) -> PathBuf {
        self.folder.path().join("app")
    }

    /// Everything that the person has seen.
    pub(crate) fn seen(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("terminal")).unwrap_or_default()
    }

    /// The command that stands after this word.
    pub(crate) fn command(&self, word: &str) -> String {
        let seen = self.seen();
        let line = seen.lines().find_map(|line| line.trim_start().strip_prefix(word));
        line.unwrap_or_else(|| panic!("no `{word}` in:\n{seen}")).trim().to_owned()
    }

    pub(crate) fn save(&self, name: &str, text: &str) {
        write(&self.app(), name, text);
    }

    pub(crate) fn sees(&self, what: &str) {
        until(&format!("the terminal to show {what:?}"), || self.seen().contains(what).then_some(()));
    }

    /// Ctrl-C.
    pub(crate) fn interrupt(mut self) -> (ExitStatus, Duration) {
        let began = Instant::now();
        let pid = Pid::from_child(&self.process);
        kill_process(pid, Signal::INT).expect("it runs");
        let status = until("kvern dev to end", || self.process.try_wait().expect("a child"));
        (status, began.elapsed())
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            let _ = std::io::Write::write_all(&mut std::io::stderr(), self.seen().as_bytes());
        }
    }
}

pub(crate) fn spawn(folder: &TempDir, arguments: &[&str], environment: &[(&str, &str)]) -> Child {
    let terminal = File::create(folder.path().join("terminal")).expect("a file");
    let mut command = Command::new(kvern());
    command.arg("dev").args(arguments).current_dir(folder.path().join("app"));
    command.envs(environment.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(terminal).spawn().expect("kvern starts")
}
