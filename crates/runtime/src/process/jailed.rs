//! A function process in its jail, as the server sees it.
//!
//! Dropping a [`Jailed`] closes the leash, and the jail kills everything. The end of the process is the jail's report
//! after `waitpid`, never the end of a pipe.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::jail::leash::{self, Ending, LINE_BYTES_MAX, LimitKind, Order, Report};
use crate::jail::task::Task;

/// How long a jail may take to kill everything and report, and to end after its report.
const KILL_PATIENCE: Duration = Duration::from_millis(900);

/// A process in its jail.
#[derive(Debug)]
pub(super) struct Jailed {
    leash: UnixStream,
    inbox: Vec<u8>,
    jail: Child,
    pid: u32,
    limit: LimitKind,
    end: Option<End>,
}

/// What starts.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    pub(super) program: &'a Path,
    pub(super) task: Task,
    pub(super) home: &'a Path,
    pub(super) environment: Vec<(OsString, OsString)>,
    /// The frame socket, or the stdin.
    pub(super) private: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// As the jail reported.
    Reported(Ending),
    /// The jail itself was killed.
    JailLost,
}

// === impl Jailed ===

impl Jailed {
    /// Starts it. The error is a message for a person. Dropping the future leaves nothing behind.
    pub(super) async fn start(launch: Launch<'_>) -> Result<Self, String> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(|e| no_room(&e))?;
        ours.set_nonblocking(true).map_err(|e| no_room(&e))?;
        let leash = UnixStream::from_std(ours).map_err(|e| no_room(&e))?;
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
                true => format!("cannot run {} __jail: {error}", launch.program.display()),
                false => format!("the working directory {} is not there", launch.home.display()),
            })?;
        // If this fails the jail has ended already, and its report says why.
        _ = leash::send_descriptor(leash.as_fd(), launch.private.as_fd());
        drop(launch.private);
        let mut jailed = Self { leash, inbox: Vec::new(), jail, pid: 0, limit: LimitKind::None, end: None };
        match jailed.report().await {
            Some(Report::Started { pid, limit }) => {
                (jailed.pid, jailed.limit) = (pid, limit);
                Ok(jailed)
            }
            Some(Report::Cannot(message)) => Err(message),
            Some(Report::Ended(_)) | None => Err("the jail ended before the process began".to_owned()),
        }
    }

    /// The process's id.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// How its memory is limited.
    pub(super) fn limit(&self) -> LimitKind {
        self.limit
    }

    /// The leash, to see whether the jail has said something.
    pub(super) fn leash(&self) -> BorrowedFd<'_> {
        self.leash.as_fd()
    }

    /// Waits for the end: nothing of the process is left then. May be dropped and called again.
    pub(super) async fn ended(&mut self) -> End {
        if let Some(end) = self.end {
            return end;
        }
        let end = match self.report().await {
            Some(Report::Ended(ending)) => End::Reported(ending),
            _ => {
                // Nobody else is left to kill what the jail held; what had detached itself is out of reach now.
                self.kill_group();
                End::JailLost
            }
        };
        self.end = Some(end);
        end
    }

    /// Asks the jail for something.
    pub(super) fn order(&self, order: Order) {
        if let Some(byte) = order.byte() {
            _ = self.leash.try_write(&[byte]);
        }
    }

    /// TERM, `grace`, KILL. Returns within `grace` and a second.
    pub(super) async fn stop(&mut self, grace: Duration) -> Option<End> {
        if self.end.is_none() && !grace.is_zero() {
            self.order(Order::Terminate);
            if let Ok(end) = timeout(grace, self.ended()).await {
                return Some(end);
            }
        }
        self.kill().await
    }

    /// KILL to everything. Returns within a second; none if something outlives even that.
    pub(super) async fn kill(&mut self) -> Option<End> {
        self.order(Order::Kill);
        match timeout(KILL_PATIENCE, self.ended()).await {
            Ok(end) => Some(end),
            Err(_) => {
                tracing::error!(pid = self.pid, "a function process outlives KILL");
                self.kill_group();
                None
            }
        }
    }

    /// Waits, briefly, until the jail has cleaned up too.
    pub(super) async fn buried(&mut self) {
        _ = timeout(KILL_PATIENCE, self.jail.wait()).await;
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

    fn kill_group(&self) {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
    }
}

fn no_room(error: &io::Error) -> String {
    format!("the system has no room for another process: {error}")
}
