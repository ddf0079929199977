//! A real worker process beside a gateway, in the same home and with a data directory of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::server::{Server, kvern};
use crate::wait::until;

/// A running `kvern serve --role worker`. Dropped, it is killed.
#[derive(Debug)]
pub struct Worker {
    /// Its data directory.
    pub data: PathBuf,
    home: PathBuf,
    arguments: Vec<String>,
    process: Child,
}

/// The socket of a gateway.
#[must_use]
pub fn socket_of(gateway: &Server) -> PathBuf {
    gateway.data.join("queue.sock")
}

// === impl Worker ===

impl Worker {
    /// Starts a worker of this gateway.
    #[must_use]
    pub fn beside(gateway: &Server) -> Self {
        Self::named(gateway, "worker")
    }

    /// [`Worker::beside`], where there are several.
    #[must_use]
    pub fn named(gateway: &Server, name: &str) -> Self {
        Self::start(gateway, name, &[])
    }

    /// [`Worker::named`] with more arguments.
    #[must_use]
    pub fn start(gateway: &Server, name: &str, arguments: &[&str]) -> Self {
        let (home, data) = (gateway.home.clone(), gateway.home.with_file_name(name));
        let queue = format!("unix:{}", socket_of(gateway).display());
        let arguments: Vec<String> =
            ["--queue", &queue].iter().chain(arguments).map(|argument| (*argument).to_owned()).collect();
        let process = launch(&home, &data, &arguments);
        Self { data, home, arguments, process }
    }

    /// What it wrote to its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(log_file(&self.data)).unwrap_or_default()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If it is gone.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.process.id()).expect("a pid")).expect("a pid");
        kill_process(pid, signal).expect("the worker can be signalled");
    }

    /// `kill -9`, and waits for the end.
    ///
    /// # Panics
    /// If it cannot be waited for.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.process.wait().expect("the end");
    }

    /// Starts it again.
    pub fn restart(&mut self) {
        self.process = launch(&self.home, &self.data, &self.arguments);
    }

    /// Waits for the end and gives how it ended.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn wait(&mut self) -> ExitStatus {
        until("the worker to end", || self.process.try_wait().expect("a child"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            // A failed test is read with the worker's own words beside it.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), self.log().as_bytes());
        }
    }
}

fn launch(home: &Path, data: &Path, arguments: &[String]) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(log_file(data)).expect("a log file");
    Command::new(kvern())
        .args(["serve", "--role", "worker", "--data"])
        .arg(data)
        .args(arguments)
        .current_dir(home)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("kvern starts")
}

fn log_file(data: &Path) -> PathBuf {
    data.with_extension("log")
}
