//! A connection's bytes on their way to and from hyper: watched for framing, and never waited for without end.
//!
//! hyper's own `header_read_timeout` cannot tell a client that has said nothing yet, or half a head, from one that keeps an
//! idle connection for later, so it bounds only the idle time; the rest is bounded here:
//!
//! - the first byte, and a head that was begun, must be whole within [`crate::Limits::head`];
//! - a client that takes none of our bytes for [`crate::Limits::write`] is cut off;
//! - after an answer that came before the end of its request (413, 401, ...), closing at once would reset the connection
//!   and the client would never see the answer. So the rest is read and thrown away, for at most [`LINGER`].

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};
use tokio::time::{Instant, Sleep};

use super::framing::{Framing, State};

/// How long a connection with an unread request stays open after the answer.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BUFFER_BYTES: usize = 8 << 10;
/// Most bytes of one read. hyper doubles its buffer, up to the bound on a head, whenever a read fills it, and each buffer
/// that it outgrows stays with the allocator: this is just too little to fill its first one.
const READ_BYTES_MAX: u64 = (8 << 10) - 1;

/// A stream under watch.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    /// Bounds each read.
    inner: Take<S>,
    framing: Framing,
    head: Patience,
    write: Patience,
    is_shut: bool,
}

/// A bound on one kind of waiting; costs nothing while there is nothing to wait for.
#[derive(Debug)]
struct Patience {
    limit: Duration,
    until: Option<Pin<Box<Sleep>>>,
}

// === impl Guarded ===

impl<S: AsyncRead> Guarded<S> {
    /// `head` and `write` are the bounds on the waits for a head and for a client that takes nothing.
    pub(super) fn new(inner: S, head: Duration, write: Duration) -> Self {
        Self {
            inner: inner.take(READ_BYTES_MAX),
            framing: Framing::new(),
            head: Patience::started(head),
            write: Patience::new(write),
            is_shut: false,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        this.inner.set_limit(READ_BYTES_MAX);
        match Pin::new(&mut this.inner).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                this.framing.watch(&mut buf.filled_mut()[before..]);
                if this.framing.state() == State::Head {
                    this.head.start();
                } else {
                    this.head.end();
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => this.head.poll(cx).map(Err),
        }
    }
}

/// Not vectored: an answer is short, and one piece costs the kernel less than two.
impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let written = Pin::new(this.inner.get_mut()).poll_write(cx, bytes);
        this.write.bound(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.inner.get_mut()).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.is_shut {
            ready!(Pin::new(this.inner.get_mut()).poll_shutdown(cx))?;
            this.is_shut = true;
            this.head = Patience::started(LINGER);
        }
        if this.framing.state() == State::Between {
            return Poll::Ready(Ok(()));
        }
        let mut scratch = [0; LINGER_BUFFER_BYTES];
        loop {
            // Checked in each round: a client that never pauses must not keep the connection either.
            if this.head.poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut buf = ReadBuf::new(&mut scratch);
            ready!(Pin::new(this.inner.get_mut()).poll_read(cx, &mut buf))?;
            if buf.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

// === impl Patience ===

impl Patience {
    fn new(limit: Duration) -> Self {
        Self { limit, until: None }
    }

    fn started(limit: Duration) -> Self {
        let mut patience = Self::new(limit);
        patience.start();
        patience
    }

    /// Begins to count, unless it does already.
    fn start(&mut self) {
        if self.until.is_none() {
            self.until = Some(Box::pin(tokio::time::sleep_until(Instant::now() + self.limit)));
        }
    }

    fn end(&mut self) {
        self.until = None;
    }

    /// Ready once the patience is at an end; pending for ever while it does not count.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        match &mut self.until {
            Some(until) => until.as_mut().poll(cx).map(|()| io::ErrorKind::TimedOut.into()),
            None => Poll::Pending,
        }
    }

    /// The same step, or an error once it has been pending for too long.
    fn bound<T>(&mut self, cx: &mut Context<'_>, step: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if step.is_pending() {
            self.start();
            self.poll(cx).map(Err)
        } else {
            self.end();
            step
        }
    }
}
