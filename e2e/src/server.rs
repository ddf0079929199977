//! A real server process in a private directory on a free port.

use std::ffi::OsStr;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::files::{copy, write};
use crate::http::Http;
use crate::wait::{until, until_within};

/// A first start may install packages from the network.
const START_DEADLINE: Duration = Duration::from_secs(150);

/// A running `kvern serve`. Dropped, it is killed and its directory is removed.
#[derive(Debug)]
pub struct Server {
    /// The folder with the manifest and the functions.
    pub home: PathBuf,
    /// The data directory.
    pub data: PathBuf,
    /// The way to it.
    pub http: Http,
    process: Child,
    way: Way,
    folder: TempDir,
}

/// How it is started each time.
#[derive(Debug)]
struct Way {
    arguments: Vec<String>,
    under: Vec<String>,
    binary: PathBuf,
    socket: Option<TcpListener>,
}

/// How a server is started.
#[derive(Debug, Default, Clone, Copy)]
pub struct Start<'a> {
    /// Files of its home, `kvern.toml` among them.
    pub files: &'a [(&'a str, &'a str)],
    /// A folder whose content is copied into its home first.
    pub copy_of: Option<&'a Path>,
    /// Arguments of `kvern serve`.
    pub arguments: &'a [&'a str],
    /// A program and its arguments that start the server in their own place, as `strace -D` does.
    pub under: &'a [&'a str],
    /// The binary, if it is not the one under test.
    pub binary: Option<&'a Path>,
    /// The data directory, if it is to be elsewhere.
    pub data: Option<&'a Path>,
    /// Whether we listen, and pass it the socket, as systemd does.
    pub passes_socket: bool,
}

/// A shell that starts its arguments with its own stdin as the socket that is passed to them (sd_listen_fds(3)).
pub const PASS_SOCKET: [&str; 4] = ["sh", "-c", "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$@\" 3<&0 </dev/null", "sh"];

/// The binary under test: beside the test's own, built first by `make test`, or by `cargo build` here.
///
/// # Panics
/// If it cannot be built.
#[must_use]
pub fn kvern() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("KVERN_BIN") {
        Some(given) => PathBuf::from(given),
        None => built("kvern", &[]),
    })
}

/// The same with the mistakes of `docs/decisions/0012-known-bad-variants.md` in it, built by `cargo build` here.
///
/// # Panics
/// See [`kvern`].
#[must_use]
pub fn kvern_known_bad() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built("kvern-known-bad", &["--features", "known-bad"]))
}

fn built(binary: &str, features: &[&str]) -> PathBuf {
    let own = std::env::current_exe().expect("a test has a path");
    let folder = own.ancestors().nth(2).expect("tests lie in target/PROFILE/deps");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", "kvern", "--bin", binary]).args(features);
    if folder.ends_with("release") {
        build.arg("--release");
    }
    assert!(build.status().expect("cargo runs").success(), "{binary} cannot be built");
    folder.join(binary)
}

/// A port that is free and that no client's own end takes: it lies below the kernel's range for those, and is given once.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn free_port() -> u16 {
    const FIRST: u16 = 12_000;
    const PORTS: u16 = 20_000;
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let own = u16::try_from(std::process::id() * 101 % u32::from(PORTS)).expect("a remainder");
    let ports = std::iter::repeat_with(|| {
        let next = u32::from(own) + u32::from(GIVEN.fetch_add(1, Ordering::Relaxed));
        FIRST + u16::try_from(next % u32::from(PORTS)).expect("a remainder")
    });
    let mut free = ports.take(usize::from(PORTS)).filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.next().expect("a free port")
}

impl Server {
    /// Starts a server with these files (`kvern.toml` among them) and waits until it is ready.
    #[must_use]
    pub fn start(files: &[(&str, &str)]) -> Self {
        Self::start_with(files, &[])
    }

    /// [`Server::start`] with more arguments.
    #[must_use]
    pub fn start_with(files: &[(&str, &str)], arguments: &[&str]) -> Self {
        Self::start_as(Start { files, arguments, ..Start::default() })
    }

    /// [`Server::start`] with everything that can be said about it.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn start_as(start: Start<'_>) -> Self {
        let folder = tempfile::Builder::new().prefix("kvern-e2e-").tempdir().expect("a private directory");
        let home = folder.path().join("home");
        let data = start.data.map_or_else(|| folder.path().join("data"), Path::to_owned);
        std::fs::create_dir(&home).expect("a home");
        if let Some(other) = start.copy_of {
            copy(other, &home);
        }
        for (name, text) in start.files {
            write(&home, name, text);
        }
        let http = Http { address: SocketAddr::from(([127, 0, 0, 1], free_port())) };
        let way = Way {
            arguments: owned(start.arguments),
            under: owned(if start.passes_socket { &PASS_SOCKET } else { start.under }),
            binary: start.binary.map_or_else(|| kvern().to_owned(), Path::to_owned),
            socket: start.passes_socket.then(|| TcpListener::bind(http.address).expect("a free port")),
        };
        let process = way.launch(&way.under, &home, &data, &http);
        let mut server = Self { home, data, http, process, way, folder };
        server.wait_until_ready();
        server
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What the server wrote to its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(log_file(&self.home)).unwrap_or_default()
    }

    /// Runs `kvern` with these arguments as a client of this server: exit code, stdout, stderr.
    ///
    /// # Panics
    /// If it cannot be run.
    #[must_use]
    pub fn cli(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = Command::new(kvern())
            .args(arguments)
            .env("KVERN_SERVER", format!("http://{}", self.http.address))
            .current_dir(&self.home)
            .stdin(Stdio::null())
            .output()
            .expect("kvern runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If the server is gone.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("a pid")).expect("a pid");
        kill_process(pid, signal).expect("the server can be signalled");
    }

    /// `kill -9`, and waits for the end.
    ///
    /// # Panics
    /// If it cannot be waited for.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.process.wait().expect("the end");
    }

    /// Waits for the end and gives how it ended.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn wait(&mut self) -> ExitStatus {
        until("the server to end", || self.process.try_wait().expect("a child"))
    }

    /// Starts it again on the same data and port.
    pub fn restart(&mut self) {
        self.try_restart().unwrap_or_else(|status| panic!("the server ended with {status}: {}", self.log()));
    }

    /// [`Server::restart`], for data that it may refuse.
    ///
    /// # Errors
    /// How it ended, if it did not get ready.
    pub fn try_restart(&mut self) -> Result<(), ExitStatus> {
        if self.way.socket.is_none() {
            // What a killed server was starting has its socket until it becomes a program of its own.
            until("the port to be free", || TcpListener::bind(self.http.address).ok());
        }
        self.launch(&[]);
        self.until_ready()
    }

    /// Starts it again as it would be in life: the binary under test, without the program that it was started under.
    pub fn restart_alone(&mut self) {
        self.way.under.clear();
        self.way.binary = kvern().to_owned();
        self.restart();
    }

    /// [`Server::restart`] without waiting, under the program that it was started under before or, if one is named, under
    /// that.
    pub fn launch(&mut self, under: &[&str]) {
        let under = if under.is_empty() { self.way.under.clone() } else { owned(under) };
        self.process = self.way.launch(&under, &self.home, &self.data, &self.http);
    }

    /// From the next start on it is another binary at another place: a copy of the one under test.
    ///
    /// # Panics
    /// If it cannot be copied.
    pub fn upgrade(&mut self) {
        let binary = self.folder.path().join("kvern-upgraded");
        std::fs::copy(&self.way.binary, &binary).expect("a copy");
        self.way.binary = binary;
    }

    /// How it ended, if it has.
    ///
    /// # Panics
    /// If it is no child of ours.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().expect("a child")
    }

    /// Whether it answers.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.http.try_ask("GET", "/healthz", &[], b"").is_ok_and(|answer| answer.status == 200)
    }

    /// Waits until it answers.
    ///
    /// # Panics
    /// If it ends, or does not answer in time.
    pub fn wait_until_ready(&mut self) {
        self.until_ready().unwrap_or_else(|status| panic!("the server ended with {status}: {}", self.log()));
    }

    fn until_ready(&mut self) -> Result<(), ExitStatus> {
        until_within(START_DEADLINE, "the server to be ready", || match self.ended() {
            Some(status) => Some(Err(status)),
            None => self.is_ready().then_some(Ok(())),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            // A failed test is read with the server's own words beside it.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), self.log().as_bytes());
        }
    }
}

// === impl Way ===

impl Way {
    fn launch(&self, under: &[String], home: &Path, data: &Path, http: &Http) -> Child {
        let log = std::fs::File::options().create(true).append(true).open(log_file(home)).expect("a log file");
        let socket = self.socket.as_ref().map(|socket| OwnedFd::from(socket.try_clone().expect("a descriptor")));
        started_by(under, &self.binary)
            .args(["serve", "--listen", &http.address.to_string(), "--data"])
            .arg(data)
            .args(&self.arguments)
            .current_dir(home)
            .stdin(socket.map_or_else(Stdio::null, Stdio::from))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("kvern starts")
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

/// `kvern`, started by another program, which is named with its own arguments; alone where none is.
pub fn kvern_under(under: &[impl AsRef<OsStr>]) -> Command {
    started_by(under, kvern())
}

fn started_by(under: &[impl AsRef<OsStr>], binary: &Path) -> Command {
    let Some((program, its_own)) = under.split_first() else { return Command::new(binary) };
    let mut command = Command::new(program);
    command.args(its_own).arg(binary);
    command
}

fn log_file(home: &Path) -> PathBuf {
    home.with_file_name("server.log")
}
