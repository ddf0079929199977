//! What one side has to say, on its way into the socket: in order, many frames with one write, and never too much at once.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::codec::Encoder;
use tokio_util::sync::CancellationToken;

use crate::frame::{FRAME_BYTES_MAX, codec};

/// Bytes that may wait, in units of this many.
const UNIT_BYTES: usize = 4 << 10;
const UNITS: usize = 2 * FRAME_BYTES_MAX / UNIT_BYTES;
/// What goes with one write.
const WRITE_BYTES: usize = 64 << 10;
const FRAMES_AT_ONCE: usize = 256;
/// A reader that takes nothing for so long has stopped, and so has what it holds.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);

/// Takes frames; clones go to the same socket.
#[derive(Debug, Clone)]
pub(crate) struct Outbox {
    frames: UnboundedSender<Outgoing>,
    room: Arc<Semaphore>,
    finish: CancellationToken,
}

/// Writes what the outbox takes.
#[derive(Debug)]
pub(crate) struct Writer {
    frames: UnboundedReceiver<Outgoing>,
    room: Arc<Semaphore>,
    finish: CancellationToken,
}

#[derive(Debug)]
struct Outgoing {
    frame: Bytes,
    /// Given back once it is written.
    _room: Option<OwnedSemaphorePermit>,
}

/// The connection has ended, and the frame was not sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gone;

/// An outbox, and what empties it.
pub(crate) fn outbox() -> (Outbox, Writer) {
    let (sender, frames) = unbounded_channel();
    let (room, finish) = (Arc::new(Semaphore::new(UNITS)), CancellationToken::new());
    (Outbox { frames: sender, room: Arc::clone(&room), finish: finish.clone() }, Writer { frames, room, finish })
}

// === impl Outbox ===

impl Outbox {
    /// Sends a frame once there is room for it.
    ///
    /// # Errors
    /// [`Gone`].
    pub(crate) async fn send(&self, frame: Bytes) -> Result<(), Gone> {
        let units = u32::try_from(1 + frame.len() / UNIT_BYTES).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(units).await.map_err(|_| Gone)?;
        self.frames.send(Outgoing { frame, _room: Some(room) }).map_err(|_| Gone)
    }

    /// Sends a small frame without waiting: one that comes no more often than others did before it.
    pub(crate) fn push(&self, frame: Bytes) {
        // To a connection that has ended there is nothing to say.
        let _ = self.frames.send(Outgoing { frame, _room: None });
    }

    /// Lets the writer end after what was sent before.
    pub(crate) fn finish(&self) {
        self.finish.cancel();
    }

    /// Whether the writer has ended.
    pub(crate) fn is_gone(&self) -> bool {
        self.frames.is_closed()
    }
}

// === impl Writer ===

impl Writer {
    /// Writes until [`Outbox::finish`], and then all that was sent before.
    ///
    /// # Errors
    /// The socket's, and [`io::ErrorKind::TimedOut`] for a reader that takes nothing.
    pub(crate) async fn run(mut self, mut socket: OwnedWriteHalf) -> io::Result<()> {
        let (mut codec, mut buffer, mut batch) = (codec(), BytesMut::new(), Vec::new());
        loop {
            tokio::select! {
                biased;
                // Both only wait: what was taken is in `batch`.
                taken = self.frames.recv_many(&mut batch, FRAMES_AT_ONCE) => if taken == 0 { break },
                () = self.finish.cancelled() => break,
            }
            for outgoing in &batch {
                codec.encode(outgoing.frame.clone(), &mut buffer)?;
                if buffer.len() >= WRITE_BYTES {
                    write(&mut socket, &mut buffer).await?;
                }
            }
            write(&mut socket, &mut buffer).await?;
            batch.clear();
        }
        socket.shutdown().await
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Those who wait for room must not wait for ever.
        self.room.close();
    }
}

async fn write(socket: &mut OwnedWriteHalf, buffer: &mut BytesMut) -> io::Result<()> {
    while buffer.has_remaining() {
        let written = timeout(TAKEN_WITHIN, socket.write_buf(buffer)).await;
        if written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))? == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}
