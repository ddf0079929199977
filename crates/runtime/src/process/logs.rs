//! The pipe that a function's stdout and stderr come through, and its last bytes.
//!
//! What a function has written before its result frame is in the pipe when the frame arrives: draining the pipe then is
//! all the marker that a log needs (`docs/decisions/`).

use std::future;
use std::io;
use std::os::fd::OwnedFd;

use tokio::net::unix::pipe;

use crate::contract::Log;

/// A pipe holds at most this on Linux (`/proc/sys/fs/pipe-max-size`), so draining this much takes all that was there.
const PIPE_BYTES_MAX: usize = 1 << 20;
const READ_BYTES: usize = 16 << 10;
/// How much of the end of a log is kept for error messages.
const TAIL_BYTES: usize = 4 << 10;

/// The reading end.
#[derive(Debug)]
pub(super) struct Pipe(pipe::Receiver);

/// The last bytes of what went through.
#[derive(Debug, Default)]
pub(super) struct Tail(Vec<u8>);

// === impl Pipe ===

impl Pipe {
    /// A pipe, and the function's end of it.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        Ok((Self(pipe::Receiver::from_owned_fd(reader)?), writer))
    }

    /// Hands over everything as it comes; never returns. Dropped between two reads, it loses nothing.
    pub(super) async fn pump(&self, mut take: impl FnMut(&[u8])) {
        let mut buffer = vec![0; READ_BYTES];
        while self.0.readable().await.is_ok() {
            match self.0.try_read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => take(&buffer[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
        future::pending::<()>().await;
    }

    /// Hands over what is in the pipe now.
    pub(super) fn drain(&self, mut take: impl FnMut(&[u8])) {
        let mut buffer = [0; READ_BYTES];
        let mut left = PIPE_BYTES_MAX;
        while left > 0 {
            // Past tokio's readiness, which may lag behind what is in the pipe.
            match rustix::io::read(&self.0, &mut buffer) {
                Ok(0) => break,
                Ok(len) => {
                    take(&buffer[..len]);
                    left = left.saturating_sub(len);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => break,
            }
        }
    }

    /// The next bytes; none at the end. May be dropped and called again.
    pub(super) async fn read(&self, buffer: &mut [u8]) -> Option<usize> {
        while self.0.readable().await.is_ok() {
            match self.0.try_read(buffer) {
                Ok(0) => break,
                Ok(len) => return Some(len),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
        None
    }

    /// The next bytes that are in the pipe now.
    pub(super) fn read_now(&self, buffer: &mut [u8]) -> Option<usize> {
        rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut *buffer)).ok().filter(|len| *len > 0)
    }
}

// === impl Tail ===

impl Tail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
        let surplus = (self.0.len() + bytes.len()).saturating_sub(TAIL_BYTES);
        self.0.drain(..surplus.min(self.0.len()));
        self.0.extend_from_slice(bytes);
    }

    /// Hands it to the log too.
    pub(super) fn take(&mut self, bytes: &[u8], log: &dyn Log) {
        self.push(bytes);
        log.write(bytes);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// All that is kept, for a person.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).trim().to_owned()
    }

    /// The last line that says something.
    pub(super) fn last_line(&self) -> Option<String> {
        self.text().lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_keeps_the_end() {
        let mut tail = Tail::default();
        tail.push(b"first\n");
        tail.push(&vec![b'x'; TAIL_BYTES - 4]);
        tail.push(b"\nlast\n\n");
        assert_eq!(tail.0.len(), TAIL_BYTES);
        assert_eq!(tail.last_line().as_deref(), Some("last"));
        tail.clear();
        assert_eq!(tail.last_line(), None);
    }
}
