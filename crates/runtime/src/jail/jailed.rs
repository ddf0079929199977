//! A process in its jail, as the server sees it.
//!
//! Dropping a [`Jailed`] closes the leash, and the jail kills everything. The end of the process is the jail's report
//! after `waitpid`, never the end of a pipe.

use std::ffi::OsString;
use std::fmt::{self, Display};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use kvern_core::FailureCode;
use rustix::process::{Pid, Signal};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::leash::{self, Ending, LINE_BYTES_MAX, LimitKind, Order, Report};
use super::record;
use super::task::Task;

/// How long a jail may take to kill everything, to report and to clean up.
const KILL_PATIENCE: Duration = Duration::from_millis(900);
/// And the rest of the second, where we had to do that ourselves.
const KILL_PATIENCE_LEFT: Duration = Duration::from_millis(100);

/// A process in its jail.
#[derive(Debug)]
pub(crate) struct Jailed {
    leash: UnixStream,
    inbox: Vec<u8>,
    jail: Child,
    pid: u32,
    limit: LimitKind,
    /// What it leaves on the disk if it cannot clean up.
    record: PathBuf,
    scratch: PathBuf,
    /// TERM is sent once: a second one would break into the function's own cleaning up.
    is_asked_to_end: bool,
    end: Option<End>,
}

/// What starts.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) program: &'a Path,
    pub(crate) task: Task,
    pub(crate) home: &'a Path,
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// The frame socket, or the stdin.
    pub(crate) private: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// As the jail reported.
    Reported(Ending),
    /// The jail itself was killed.
    JailLost,
}

/// Why it did not start.
#[derive(Debug)]
pub(crate) struct NotStarted {
    /// [`FailureCode::NoRoom`] where that is no fault of the function.
    pub(crate) code: FailureCode,
    /// For a person.
    pub(crate) message: String,
}

// === impl Jailed ===

impl Jailed {
    /// Starts its jail.
    pub(crate) fn spawn(launch: Launch<'_>) -> Result<Self, NotStarted> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(no_room)?;
        ours.set_nonblocking(true).map_err(no_room)?;
        let leash = UnixStream::from_std(ours).map_err(no_room)?;
        let jail = Command::new(launch.program)
            .arg("__jail")
            .args(launch.task.arguments())
            .env_clear()
            .envs(launch.environment)
            .current_dir(launch.home)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(launch.stdout)
            .stderr(launch.stderr)
            .spawn()
            .map_err(|error| match launch.home.is_dir() {
                true => NotStarted::new(format!("cannot run {} __jail", launch.program.display()), &error),
                false => NotStarted::from(format!("the working directory {} is not there", launch.home.display())),
            })?;
        // If this fails the jail has ended already, and its report says why.
        _ = leash::send_descriptor(leash.as_fd(), launch.private.as_fd());
        let record = launch.task.records.join(jail.id().unwrap_or_default().to_string());
        let (scratch, limit) = (launch.task.scratch, LimitKind::None);
        Ok(Self { leash, inbox: Vec::new(), jail, pid: 0, limit, record, scratch, is_asked_to_end: false, end: None })
    }

    /// Waits until the process runs, or has run: it can kill its jail before that could say so, and [`Jailed::ended`] tells.
    pub(crate) async fn started(&mut self) -> Result<(), NotStarted> {
        match self.report().await {
            Some(Report::Started { pid, limit }) => {
                (self.pid, self.limit) = (pid, limit);
                Ok(())
            }
            Some(Report::Cannot(message)) => Err(message.into()),
            Some(Report::NoRoom(message)) => Err(NotStarted { code: FailureCode::NoRoom, message }),
            Some(Report::Ended(_)) => Err("the jail told of an end before a beginning".to_owned().into()),
            None => Ok(()),
        }
    }

    /// The process's id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// How its memory is limited.
    pub(crate) fn limit(&self) -> LimitKind {
        self.limit
    }

    /// The leash, to see whether the jail has said something.
    pub(crate) fn leash(&self) -> BorrowedFd<'_> {
        self.leash.as_fd()
    }

    /// Waits for the end: nothing of the process is left then. May be dropped and called again.
    pub(crate) async fn ended(&mut self) -> End {
        if let Some(end) = self.end {
            return end;
        }
        let end = loop {
            match self.report().await {
                Some(Report::Ended(ending)) => break End::Reported(ending),
                // Nobody waited for the start.
                Some(Report::Started { pid, .. }) => self.pid = pid,
                Some(Report::Cannot(_) | Report::NoRoom(_)) | None => {
                    self.kill_for_the_jail().await;
                    break End::JailLost;
                }
            }
        };
        self.end = Some(end);
        end
    }

    /// TERM, `grace`, KILL. Nothing is left then: neither of the process nor of its jail. Returns within `grace` and a
    /// second. May be dropped and called again; the grace is given anew then, the TERM is not.
    async fn stop(&mut self, grace: Duration) {
        if !grace.is_zero() {
            if !std::mem::replace(&mut self.is_asked_to_end, true) {
                self.order(Order::Terminate);
            }
            _ = timeout(grace, self.ended()).await;
        }
        self.kill().await;
    }

    /// [`Jailed::stop`], while `reading`, which never ends, takes what the process still prints: no full pipe stands in the
    /// way of its end.
    pub(crate) async fn stop_reading(&mut self, grace: Duration, reading: impl Future<Output = ()>) {
        tokio::select! {
            () = self.stop(grace) => {}
            () = reading => {}
        }
    }

    /// KILL to everything, as [`Jailed::stop`] does after its grace. Where the process has ended already, waits for the
    /// jail alone.
    pub(crate) async fn kill(&mut self) {
        self.order(Order::Kill);
        let killed = timeout(KILL_PATIENCE, self.buried()).await;
        let is_silent = killed.is_err() && self.end.is_none();
        if is_silent {
            tracing::warn!(pid = self.pid, "a jail does not answer: its function has stopped it, or outlives KILL");
            self.kill_for_the_jail().await;
            _ = timeout(KILL_PATIENCE_LEFT, self.buried()).await;
        }
        if is_silent || self.end == Some(End::JailLost) {
            // There may be none: then nothing is left to be done.
            _ = tokio::fs::remove_dir_all(&self.scratch).await;
        }
    }

    async fn buried(&mut self) {
        self.ended().await;
        // An error means that somebody else waited for it: it has gone all the same.
        _ = self.jail.wait().await;
    }

    fn order(&self, order: Order) {
        if let Some(byte) = order.byte() {
            _ = self.leash.try_write(&[byte]);
        }
    }

    async fn report(&mut self) -> Option<Report> {
        loop {
            if let Some(len) = self.inbox.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8_lossy(&self.inbox[..len]).into_owned();
                self.inbox.drain(..=len);
                return Report::parse(&line);
            }
            if self.inbox.len() > LINE_BYTES_MAX {
                return None;
            }
            match self.leash.read_buf(&mut self.inbox).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// What the jail would do, were it not killed or stopped: a function can do both, it has the same user. Without a
    /// cgroup, what had left the tree of its processes before is out of reach.
    async fn kill_for_the_jail(&self) {
        let (record, pid) = (self.record.clone(), self.pid);
        // It looks at all processes, and waits for those that it kills: nothing for a thread that others share. Once begun
        // it comes to its end, whether or not somebody waits for it.
        let killing = tokio::task::spawn_blocking(move || {
            record::kill(&record);
            kill_group(pid);
            record::remove(&record);
        });
        _ = killing.await;
    }
}

// === impl NotStarted ===

impl NotStarted {
    /// What was being done, and how the system refused it.
    pub(crate) fn new(doing: impl Display, error: &io::Error) -> Self {
        let code = if leash::is_shortage(error) { FailureCode::NoRoom } else { FailureCode::CannotStart };
        Self { code, message: format!("{doing}: {error}") }
    }
}

impl From<String> for NotStarted {
    fn from(message: String) -> Self {
        Self { code: FailureCode::CannotStart, message }
    }
}

impl Display for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

// === helpers ===

fn kill_group(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        _ = rustix::process::kill_process_group(pid, Signal::KILL);
    }
}

/// There is no descriptor for it.
#[expect(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
pub(crate) fn no_room(error: io::Error) -> NotStarted {
    NotStarted::new("the system has no room for a process", &error)
}
