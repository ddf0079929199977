//! Request bodies on their way in: counted against every bound while they are read, never whole in memory when large.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{FutureExt, Stream};
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::{Body, Frame, Incoming};
use hyper::header;
use kvern_core::limits::{INLINE_BYTES_MAX, SUBMIT_WITHIN};
use kvern_core::{Function, FunctionName};
use kvern_queue::{Error as QueueError, Payload, Queue, Stage};
use kvern_runtime::body::Body as RuntimeBody;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tokio::time::error::Elapsed;

use crate::admit::Room;
use crate::dispatch::Gateway;
use crate::error::{Code, Problem};
use crate::refuse;
use crate::settings::Limits;

/// A body up to this size is copied: as a slice it would hold on to the connection's read buffer while the job waits for
/// the disk, and hyper would have to make a new one for each request.
const COPY_BYTES_MAX: usize = 8 << 10;

/// The body of one request, not read yet.
pub(crate) struct Intake {
    body: Incoming,
    function: FunctionName,
    max: u64,
    read: u64,
    limits: Limits,
    until: Instant,
    /// Held until the bytes are the queue's or the runtime's.
    room: Room,
}

/// A body that was read or is about to be, with the room it takes.
pub(crate) struct Taken<T> {
    pub(crate) body: T,
    pub(crate) room: Room,
}

/// Why a streamed body ended early; the stream itself can only say that it did.
pub(crate) type Early = Arc<Mutex<Option<Problem>>>;

// === impl Intake ===

impl Intake {
    /// Checks the announced size and takes room, before anything is read.
    pub(crate) fn open(
        body: Incoming,
        function: &Function,
        gateway: &Gateway,
        began: Instant,
    ) -> Result<Self, Problem> {
        let (max, limits, admission) = (function.max_input, gateway.limits(), gateway.admission());
        let announced = body.size_hint().exact();
        if announced.is_some_and(|bytes| bytes > max) {
            return Err(refuse::too_large(&function.name, max, announced));
        }
        // What is larger goes through a window of this size.
        let in_memory = announced.unwrap_or(u64::MAX).min(INLINE_BYTES_MAX as u64);
        let room = admission.take(in_memory).ok_or_else(|| refuse::too_many_bytes(admission.limit()))?;
        let until = began + limits.body;
        Ok(Self { body, function: function.name.clone(), max, read: 0, limits: limits.clone(), until, room })
    }

    /// The next piece; none at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            let frame = match self.frame().await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Err(broken(&error)),
                Ok(None) => return Ok(None),
                Err(_) => return Err(self.too_slow()),
            };
            // Trailers are not part of the input.
            let Ok(bytes) = frame.into_data() else { continue };
            self.read += bytes.len() as u64;
            if self.read > self.max {
                return Err(refuse::too_large(&self.function, self.max, None));
            }
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }

    /// The next frame, within the time that it may take. What is there already asks no clock.
    async fn frame(&mut self) -> Result<Option<Result<Frame<Bytes>, hyper::Error>>, Elapsed> {
        if let Some(ready) = self.body.frame().now_or_never() {
            return Ok(ready);
        }
        let patience = (Instant::now() + self.limits.body_idle).min(self.until);
        tokio::time::timeout_at(patience, self.body.frame()).await
    }

    fn too_slow(&self) -> Problem {
        let idle = self.limits.body_idle.as_secs_f32();
        let whole = self.limits.body.as_secs_f32();
        let detail = format!(
            "the body stopped after {} bytes: none came for {idle} s, or it was not whole within {whole} s; nothing was stored",
            self.read
        );
        Problem::new(Code::BodyTimeout, detail)
    }

    /// Reads while it fits into memory: the whole body, or what came so far and the piece that was too much.
    async fn read_inline(&mut self) -> Result<(Bytes, Option<Bytes>), Problem> {
        let Some(mut piece) = self.next().await? else { return Ok((Bytes::new(), None)) };
        if self.body.is_end_stream() && piece.len() <= INLINE_BYTES_MAX {
            let body = if piece.len() <= COPY_BYTES_MAX { Bytes::copy_from_slice(&piece) } else { piece };
            return Ok((body, None));
        }
        let announced = self.body.size_hint().exact().map_or(INLINE_BYTES_MAX, |rest| rest as usize + piece.len());
        // Made once: what is not filled is not resident, while growing would leave a trail of halves behind it.
        let mut whole = Vec::with_capacity(announced.min(INLINE_BYTES_MAX));
        loop {
            if whole.len() + piece.len() > INLINE_BYTES_MAX {
                return Ok((whole.into(), Some(piece)));
            }
            whole.extend_from_slice(&piece);
            // Given back before the wait: it holds the connection's read buffer.
            drop(piece);
            match self.next().await? {
                Some(next) => piece = next,
                None => return Ok((whole.into(), None)),
            }
        }
    }

    /// Reads all of it into the queue's keeping, and into `hash` if there is one.
    pub(crate) async fn store(
        mut self,
        queue: &dyn Queue,
        mut hash: Option<&mut Sha256>,
    ) -> Result<Taken<Payload>, Problem> {
        let (begin, mut more) = self.read_inline().await?;
        if let Some(hash) = &mut hash {
            hash.update(&begin);
        }
        if more.is_none() {
            return Ok(Taken { body: Payload::Inline(begin), room: self.room });
        }
        let mut stage = queue.stage().await?;
        stage = self.in_time(write(stage, begin)).await?;
        while let Some(bytes) = more {
            // The last room on the disk is for what was accepted: it is not filled with what will be refused.
            queue.room()?;
            if let Some(hash) = &mut hash {
                hash.update(&bytes);
            }
            stage = self.in_time(write(stage, bytes)).await?;
            more = self.next().await?;
        }
        let body = self.in_time(stage.finish()).await?;
        Ok(Taken { body, room: self.room })
    }

    /// Waits for the disk as long as a client should. What hangs there hangs on without the client, and keeps its room
    /// in memory until it ends: so a disk that hangs holds no more than may be in flight.
    async fn in_time<T: Send + 'static>(
        &mut self,
        work: impl Future<Output = Result<T, QueueError>> + Send + 'static,
    ) -> Result<T, Problem> {
        let mut work = Box::pin(work);
        if let Ok(done) = tokio::time::timeout(SUBMIT_WITHIN, &mut work).await {
            return Ok(done?);
        }
        let room = std::mem::replace(&mut self.room, Room::none());
        tokio::spawn(async move {
            let _ = work.await;
            drop(room);
        });
        Err(refuse::disk("it has not taken a piece of a large input"))
    }

    /// The body for a call: whole if it is small, else as it comes. [`Early`] tells why such a stream broke.
    pub(crate) async fn pass(mut self) -> Result<(Taken<RuntimeBody>, Early), Problem> {
        let early = Early::default();
        let is_small = self.body.size_hint().upper().is_some_and(|bytes| bytes <= INLINE_BYTES_MAX as u64);
        if is_small {
            let (bytes, _) = self.read_inline().await?;
            return Ok((Taken { body: RuntimeBody::Bytes(bytes), room: self.room }, early));
        }
        // The room stays with the call, the stream only reads through it.
        let room = std::mem::replace(&mut self.room, Room::none());
        let body = RuntimeBody::Stream(stream(self, Arc::clone(&early)));
        Ok((Taken { body, room }, early))
    }
}

async fn write(mut stage: Box<dyn Stage>, bytes: Bytes) -> Result<Box<dyn Stage>, QueueError> {
    stage.write(bytes).await?;
    Ok(stage)
}

fn stream(intake: Intake, early: Early) -> Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>> {
    Box::pin(futures_util::stream::unfold(Some(intake), move |intake| {
        let early = Arc::clone(&early);
        async move {
            let mut intake = intake?;
            match intake.next().await {
                Ok(Some(bytes)) => Some((Ok(bytes), Some(intake))),
                Ok(None) => None,
                Err(problem) => {
                    let error = io::Error::other(problem.facts().detail.clone().into_owned());
                    *early.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
                    Some((Err(error), None))
                }
            }
        }
    }))
}

fn broken(error: &hyper::Error) -> Problem {
    Problem::new(Code::BadRequest, format!("the body broke off: {error}; nothing was stored"))
}

/// The content type of a request, as text, if it has one.
pub(crate) fn content_type(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        // Which of them counts decides what the function gets.
        return Err(Problem::new(Code::BadRequest, "the request has two Content-Type headers"));
    }
    let text = value.to_str().ok().filter(|text| text.len() <= 255);
    let refused = || Problem::new(Code::BadRequest, "the Content-Type is not ASCII text of at most 255 bytes");
    text.map(Some).ok_or_else(refused)
}
