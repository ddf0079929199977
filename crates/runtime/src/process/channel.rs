//! The server's end of the socket that frames go through.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use kvern_core::limits::INLINE_BYTES_MAX;
use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::frame::{self, Frame, Garbage};

/// One write up to here; a larger body is written by itself rather than copied.
const COPY_BYTES_MAX: usize = INLINE_BYTES_MAX;

/// The server's end.
#[derive(Debug)]
pub(super) struct Channel {
    socket: UnixStream,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
}

/// Why no frame comes.
#[derive(Debug)]
pub(super) enum Broken {
    /// What came is no frame.
    Garbage(Garbage),
    /// The other end is closed: the process has died, or closed the descriptor.
    Closed,
}

// === impl Channel ===

impl Channel {
    /// A channel, and the shim's end of it.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let socket = UnixStream::from_std(ours)?;
        Ok((Self { socket, inbox: Vec::new(), outbox: Vec::new() }, theirs.into()))
    }

    /// Where a frame is written before [`Channel::send`].
    pub(super) fn outbox(&mut self) -> &mut Vec<u8> {
        self.outbox.clear();
        &mut self.outbox
    }

    /// Sends the frame in the outbox and the body that follows it. Not to be dropped midway: the instance is lost then.
    pub(super) async fn send(&mut self, body: &[u8]) -> Result<(), Broken> {
        let sent = if body.len() <= COPY_BYTES_MAX {
            self.outbox.extend_from_slice(body);
            self.socket.write_all(&self.outbox).await
        } else {
            match self.socket.write_all(&self.outbox).await {
                Ok(()) => self.socket.write_all(body).await,
                error => error,
            }
        };
        self.outbox.shrink_to(COPY_BYTES_MAX);
        sent.map_err(|_| Broken::Closed)
    }

    /// The next frame. May be dropped and called again.
    pub(super) async fn receive(&mut self) -> Result<Frame, Broken> {
        loop {
            if let Some(frame) = frame::take(&mut self.inbox).map_err(Broken::Garbage)? {
                return Ok(frame);
            }
            self.inbox.reserve(READ_BYTES);
            match self.socket.read_buf(&mut self.inbox).await {
                Ok(0) | Err(_) => return Err(Broken::Closed),
                Ok(_) => {}
            }
        }
    }

    /// A frame that has come already, without waiting; for a process that has died.
    pub(super) fn received(&mut self) -> Option<Frame> {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            if let Some(frame) = frame::take(&mut self.inbox).ok()? {
                return Some(frame);
            }
            // Past tokio's readiness, which may lag behind what is in the socket.
            match rustix::io::read(&self.socket, &mut buffer) {
                Ok(len) if len > 0 => self.inbox.extend_from_slice(&buffer[..len]),
                Err(rustix::io::Errno::INTR) => {}
                _ => return None,
            }
        }
    }

    /// Whether nothing has come that was not asked for, neither here nor on the leash.
    pub(super) fn is_silent_beside(&self, leash: &impl AsFd) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(leash, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        self.inbox.is_empty() && matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(0))
    }
}

const READ_BYTES: usize = 16 << 10;
