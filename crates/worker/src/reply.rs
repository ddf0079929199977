//! The reply of a call on its way from the function to the caller.
//!
//! Most functions write once and end: their reply goes out whole. One that writes more, or stays busy after its first
//! bytes, is streamed. A stream whose attempt fails ends with an error, never as if it were complete.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use kvern_core::Failure;
use kvern_runtime::{Body, CallError, Output, OutputRefused, Reply};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::sleep;
use tokio_util::sync::DropGuard;

use crate::output::CONTENT_TYPE_DEFAULT;

/// The first bytes wait this long for the end of the attempt, to go out with their length.
const WHOLE_WITHIN: Duration = Duration::from_millis(2);
/// Pieces between function and caller.
const PIECES_MAX: usize = 4;

type Pieces = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Where the reply goes.
pub(crate) struct ReplyLine {
    state: Mutex<Line>,
    /// The first bytes came.
    begun: Notify,
}

enum Line {
    /// Nothing has gone out.
    Waiting { answer: oneshot::Sender<Result<Reply, CallError>>, head: Head, first: Bytes },
    /// The caller reads.
    Streaming { pieces: mpsc::Sender<Bytes>, end: Arc<OnceLock<Result<(), String>>> },
    /// All is said.
    Done,
}

#[derive(Default)]
struct Head {
    content_type: Option<String>,
    status: Option<u16>,
}

/// Takes the output of a call.
pub(crate) struct CallOutput {
    line: Arc<ReplyLine>,
    max_bytes: u64,
    bytes: u64,
}

/// The pieces as the caller reads them.
struct Incoming {
    pieces: mpsc::Receiver<Bytes>,
    end: Arc<OnceLock<Result<(), String>>>,
    over: bool,
}

struct Guarded {
    pieces: Pieces,
    _guard: DropGuard,
}

/// The same pieces; `guard` is dropped with them.
pub(crate) fn guarded(pieces: Pieces, guard: DropGuard) -> Pieces {
    Box::pin(Guarded { pieces, _guard: guard })
}

// === impl ReplyLine ===

impl ReplyLine {
    pub(crate) fn new() -> (Self, oneshot::Receiver<Result<Reply, CallError>>) {
        let (answer, receiver) = oneshot::channel();
        let line = Line::Waiting { answer, head: Head::default(), first: Bytes::new() };
        (Self { state: Mutex::new(line), begun: Notify::new() }, receiver)
    }

    /// The attempt ended: the reply goes out whole, or its stream ends.
    pub(crate) fn finish(&self, failure: Option<&Failure>) {
        match std::mem::replace(&mut *self.lock(), Line::Done) {
            Line::Waiting { answer, head, first } => {
                let reply = match failure {
                    None => Ok(head.reply(Body::Bytes(first))),
                    Some(failure) => Err(CallError::Failed(failure.clone())),
                };
                // A caller that has gone needs no answer.
                let _ = answer.send(reply);
            }
            Line::Streaming { end, .. } => {
                let _ = end.set(failure.map_or(Ok(()), |failure| Err(failure.to_string())));
            }
            Line::Done => {}
        }
    }

    /// There is no reply, and that is not the function's doing. A stream ends with these words.
    pub(crate) fn refuse(&self, error: CallError, words: &dyn std::fmt::Display) {
        match std::mem::replace(&mut *self.lock(), Line::Done) {
            Line::Waiting { answer, .. } => {
                let _ = answer.send(Err(error));
            }
            Line::Streaming { end, .. } => {
                let _ = end.set(Err(words.to_string()));
            }
            Line::Done => {}
        }
    }

    /// Begins the stream once the first bytes have waited long enough. Never returns; may be dropped.
    pub(crate) async fn begin_when_ripe(&self) -> Infallible {
        loop {
            self.begun.notified().await;
            sleep(WHOLE_WITHIN).await;
            self.lock().begin_stream();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        // Nothing here panics midway, so a poisoned lock still guards whole data.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Line ===

impl Line {
    /// The stream, begun now if it was not.
    fn begin_stream(&mut self) -> Option<mpsc::Sender<Bytes>> {
        let line = std::mem::replace(self, Self::Done);
        *self = match line {
            Self::Waiting { answer, head, first } => {
                let (pieces, receiver) = mpsc::channel(PIECES_MAX);
                let end = Arc::new(OnceLock::new());
                let incoming = Incoming { pieces: receiver, end: Arc::clone(&end), over: false };
                // There is room: the channel is new. A caller that has gone is noticed by its guard.
                let _ = pieces.try_send(first);
                let _ = answer.send(Ok(head.reply(Body::Stream(Box::pin(incoming)))));
                Self::Streaming { pieces, end }
            }
            line => line,
        };
        match self {
            Self::Streaming { pieces, .. } => Some(pieces.clone()),
            Self::Waiting { .. } | Self::Done => None,
        }
    }
}

// === impl Head ===

impl Head {
    fn reply(self, body: Body) -> Reply {
        let content_type = self.content_type.unwrap_or_else(|| CONTENT_TYPE_DEFAULT.to_owned());
        Reply { status: self.status, content_type, body }
    }
}

// === impl CallOutput ===

impl CallOutput {
    pub(crate) fn new(line: Arc<ReplyLine>, max_bytes: u64) -> Self {
        Self { line, max_bytes, bytes: 0 }
    }
}

#[async_trait]
impl Output for CallOutput {
    fn head(&mut self, content_type: &str, status: Option<u16>) {
        if let Line::Waiting { head, .. } = &mut *self.line.lock() {
            *head = Head { content_type: Some(content_type.to_owned()), status };
        }
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), OutputRefused> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.max_bytes {
            return Err(OutputRefused::TooLarge(self.max_bytes));
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let pieces = {
            let mut line = self.line.lock();
            match &mut *line {
                Line::Waiting { first, .. } if first.is_empty() => {
                    *first = bytes;
                    self.line.begun.notify_one();
                    return Ok(());
                }
                line => line.begin_stream(),
            }
        };
        let Some(pieces) = pieces else { return Err(OutputRefused::Closed) };
        pieces.send(bytes).await.map_err(|_| OutputRefused::Closed)
    }
}

// === impl Incoming ===

impl Stream for Incoming {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let Some(piece) = std::task::ready!(self.pieces.poll_recv(cx)) else {
            self.over = true;
            let failure = match self.end.get() {
                Some(Ok(())) => return Poll::Ready(None),
                Some(Err(words)) => words.clone(),
                None => "the attempt was stopped".to_owned(),
            };
            return Poll::Ready(Some(Err(io::Error::other(failure))));
        };
        Poll::Ready(Some(Ok(piece)))
    }
}

// === impl Guarded ===

impl Stream for Guarded {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.pieces.as_mut().poll_next(cx)
    }
}
