//! The leash: the socket between server and jail. The function cannot reach it.
//!
//! Server to jail: one byte with one descriptor attached (the frame socket of a handler, or the stdin of an exec), then
//! orders of one byte: `T` sends TERM to the function's process group, `K` kills everything. End of file means that
//! the server has gone, or wants no more of this instance: everything is killed.
//!
//! Jail to server, lines of text:
//!
//! ```text
//! started PID none|cgroup|rlimit
//! cannot MESSAGE                      instead of `started`
//! no-room MESSAGE                     the same, where the machine is short of something
//! ended exit|signal NUMBER -|oom      the last line: nothing of the function is left
//! ```
//!
//! Invalid: another first word, numbers that are none, a line longer than [`LINE_BYTES_MAX`]. End of file without
//! `ended` means that the jail itself was killed.

use std::io::{self, IoSlice, IoSliceMut, Stdin};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use rustix::process::{Pid, WaitStatus};

/// Longest line from the jail.
pub(crate) const LINE_BYTES_MAX: usize = 4096;

/// What the server wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// TERM to the process group.
    Terminate,
    /// KILL to everything.
    Kill,
    /// The same, and nobody listens any more.
    ServerGone,
}

/// What the jail tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    /// The function's process runs.
    Started {
        /// Its id.
        pid: u32,
        /// How its memory is limited.
        limit: LimitKind,
    },
    /// It could not be started.
    Cannot(String),
    /// It could not be started because the machine is short of something.
    NoRoom(String),
    /// It has ended and nothing of it is left.
    Ended(Ending),
}

/// How memory is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LimitKind {
    /// Not at all.
    None,
    /// By a cgroup: the kernel kills at the limit.
    Cgroup,
    /// By `RLIMIT_DATA`: allocations fail at the limit.
    Rlimit,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ending {
    /// How.
    pub(crate) how: How,
    /// Whether the kernel killed something of it at the memory limit.
    pub(crate) oom: bool,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// It exited with this code.
    Exited(i32),
    /// This signal ended it.
    Signalled(i32),
}

/// The jail's end: its stdin.
#[derive(Debug)]
pub(super) struct JailEnd(Stdin);

// === impl Order ===

impl Order {
    /// The byte for it; none for what only the end of file says.
    pub(crate) fn byte(self) -> Option<u8> {
        match self {
            Self::Terminate => Some(b'T'),
            Self::Kill => Some(b'K'),
            Self::ServerGone => None,
        }
    }
}

// === impl Report ===

impl Report {
    /// The report that this line, without its end, says.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ')?;
        let mut fields = rest.split(' ');
        match word {
            "started" => {
                let pid = fields.next()?.parse().ok()?;
                let limit = match fields.next()? {
                    "none" => LimitKind::None,
                    "cgroup" => LimitKind::Cgroup,
                    "rlimit" => LimitKind::Rlimit,
                    _ => return None,
                };
                Some(Self::Started { pid, limit })
            }
            "cannot" => Some(Self::Cannot(rest.to_owned())),
            "no-room" => Some(Self::NoRoom(rest.to_owned())),
            "ended" => {
                let (how, number) = (fields.next()?, fields.next()?.parse().ok()?);
                let how = match how {
                    "exit" => How::Exited(number),
                    "signal" => How::Signalled(number),
                    _ => return None,
                };
                Some(Self::Ended(Ending { how, oom: fields.next()? == "oom" }))
            }
            _ => None,
        }
    }

    /// The line for it, with its end.
    fn line(&self) -> String {
        match self {
            Self::Started { pid, limit: LimitKind::None } => format!("started {pid} none\n"),
            Self::Started { pid, limit: LimitKind::Cgroup } => format!("started {pid} cgroup\n"),
            Self::Started { pid, limit: LimitKind::Rlimit } => format!("started {pid} rlimit\n"),
            Self::Cannot(message) => format!("cannot {}\n", in_a_line(message)),
            Self::NoRoom(message) => format!("no-room {}\n", in_a_line(message)),
            Self::Ended(Ending { how, oom }) => {
                let oom = if *oom { "oom" } else { "-" };
                match how {
                    How::Exited(code) => format!("ended exit {code} {oom}\n"),
                    How::Signalled(signal) => format!("ended signal {signal} {oom}\n"),
                }
            }
        }
    }
}

// === impl Ending ===

impl Ending {
    /// The ending that this status says.
    pub(super) fn new(status: WaitStatus, oom: bool) -> Self {
        let how = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => How::Exited(code),
            (None, signal) => How::Signalled(signal.unwrap_or(0)),
        };
        Self { how, oom }
    }
}

// === impl JailEnd ===

impl JailEnd {
    pub(super) fn new() -> Self {
        Self(io::stdin())
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The descriptor that the server sends first; none if the server has gone.
    pub(super) fn receive_descriptor(&self) -> io::Result<Option<OwnedFd>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(self.fd(), &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::empty())
        })?;
        if received.bytes == 0 {
            return Ok(None);
        }
        let descriptors = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        let missing = || io::Error::new(io::ErrorKind::InvalidData, "the server sent no descriptor");
        descriptors.last().ok_or_else(missing).map(Some)
    }

    /// The next order; call it when there is one.
    pub(super) fn order(&self) -> io::Result<Order> {
        let mut byte = [0];
        match rustix::io::retry_on_intr(|| rustix::io::read(self.fd(), &mut byte)) {
            Ok(0) | Err(rustix::io::Errno::CONNRESET) => Ok(Order::ServerGone),
            Ok(_) if byte[0] == b'T' => Ok(Order::Terminate),
            Ok(_) => Ok(Order::Kill),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn started(&self, pid: Pid, limit: LimitKind) {
        self.tell(&Report::Started { pid: pid.as_raw_nonzero().get().unsigned_abs(), limit });
    }

    pub(super) fn cannot(&self, error: &io::Error) {
        // Not memory: here it may be the function's own limit.
        let is_short = is_shortage(error) && error.kind() != io::ErrorKind::OutOfMemory;
        let report = if is_short { Report::NoRoom } else { Report::Cannot };
        self.tell(&report(error.to_string()));
    }

    pub(super) fn ended(&self, ending: Ending) {
        self.tell(&Report::Ended(ending));
    }

    fn tell(&self, report: &Report) {
        // One short line in an empty socket buffer is written whole. A server that has gone needs no report.
        _ = rustix::io::write(self.fd(), report.line().as_bytes());
    }
}

// === helpers ===

/// Whether it failed because the process or the machine is short of something: descriptors, processes, memory.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::AGAIN, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| shortages.contains(&errno))
}

fn in_a_line(message: &str) -> String {
    let message = message.replace('\n', " ");
    message[..message.floor_char_boundary(LINE_BYTES_MAX / 2)].to_owned()
}

/// The server's first message.
pub(crate) fn send_descriptor(leash: BorrowedFd<'_>, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    rustix::net::sendmsg(leash, &[IoSlice::new(b"G")], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_read_back() {
        let reports = [
            Report::Started { pid: 12, limit: LimitKind::Cgroup },
            Report::Started { pid: 1, limit: LimitKind::None },
            Report::Started { pid: 1, limit: LimitKind::Rlimit },
            Report::Cannot("no such file".into()),
            Report::NoRoom("no process".into()),
            Report::Ended(Ending { how: How::Exited(3), oom: false }),
            Report::Ended(Ending { how: How::Signalled(9), oom: true }),
        ];
        for report in reports {
            assert_eq!(Report::parse(report.line().trim_end_matches('\n')), Some(report));
        }
    }

    #[test]
    fn what_is_no_report_is_refused() {
        for line in
            ["", "started", "started x none", "started 1 maybe", "ended", "ended exit", "ended quit 1 -", "hi 1"]
        {
            assert_eq!(Report::parse(line), None, "{line}");
        }
    }

    #[test]
    fn a_long_message_still_fits_a_line() {
        let line = Report::Cannot("é\n".repeat(LINE_BYTES_MAX)).line();
        assert!(line.len() < LINE_BYTES_MAX && line.matches('\n').count() == 1);
    }
}
