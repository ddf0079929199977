//! Calls in a gateway whose workers are other processes: a call becomes a job that is awaited and then erased.
//!
//! It runs at most once. The job's tag tells the worker that nothing follows its attempt, whatever its end; it expires when
//! the caller would not wait for a slot any longer; and what a gateway that was killed left behind is ended before a worker
//! sees it: a call under way has a mark in the data directory.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use kvern_core::limits::PRIORITY_MAX;
use kvern_core::{CALL_TAG, Failure, FailureCode, Function, FunctionName, Job, JobId, State};
use kvern_queue::{BlobReader, Clock, Error, NewJob, Payload, Queue, Stage, Watch};
use kvern_runtime::body::Body;
use kvern_runtime::{Call, CallError, Invoke, Reply};
use kvern_worker::not_kept;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The functions, by name.
pub(crate) type Declared = Arc<HashMap<FunctionName, Function>>;

/// Events are hints: the record is read again this often.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The longest that the end of a call which nobody waits for is waited for. Its attempt is stopped within a second, and a
/// lost worker's within ten.
const ENDED_WITHIN: Duration = Duration::from_secs(60);
/// The pieces in which large inputs and results are read.
const PIECE_BYTES: usize = 64 << 10;
const RETRY_AFTER_S: u32 = 1;

type Pieces = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Runs calls as jobs.
pub(crate) struct QueuedCalls {
    house: Arc<House>,
    functions: watch::Receiver<Declared>,
    clock: Clock,
    /// Calls that have not ended by now are told so.
    pub(crate) cut: CancellationToken,
}

/// What outlives a caller: whoever ends and erases what it left.
struct House {
    queue: Arc<dyn Queue>,
    marks: PathBuf,
    ending: TaskTracker,
}

/// A call under way. Dropped, its job is ended and erased.
struct UnderWay {
    id: JobId,
    house: Arc<House>,
}

// === impl QueuedCalls ===

impl QueuedCalls {
    /// Ends what calls a server left that was killed. To be called before any worker is served.
    pub(crate) async fn open(
        queue: Arc<dyn Queue>,
        data: &Path,
        functions: watch::Receiver<Declared>,
        clock: Clock,
    ) -> io::Result<Self> {
        let house = House { queue, marks: data.join("calls"), ending: TaskTracker::new() };
        house.end_leftovers().await?;
        Ok(Self { house: Arc::new(house), functions, clock, cut: CancellationToken::new() })
    }

    /// Waits a moment until what callers left is erased; the rest is left to the next start.
    pub(crate) async fn end(&self) {
        const WITHIN: Duration = Duration::from_secs(1);
        self.cut.cancel();
        self.house.ending.close();
        let _ = timeout(WITHIN, self.house.ending.wait()).await;
    }

    /// Stores the input, as far as the function takes one of its size.
    async fn take_in(&self, body: Body, max_bytes: u64) -> Result<Payload, CallError> {
        let mut stage = self.house.queue.stage().await.map_err(not_kept)?;
        let mut pieces = pieces(body).await.map_err(|error| CallError::unreadable(&error))?;
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| CallError::unreadable(&error))?;
            if stage.bytes() + piece.len() as u64 > max_bytes {
                return Err(CallError::too_large(max_bytes));
            }
            write(&mut *stage, &*self.house.queue, piece).await.map_err(not_kept)?;
        }
        stage.finish().await.map_err(not_kept)
    }

    async fn submit(&self, call: Call, function: &Function) -> Result<UnderWay, CallError> {
        let Call { function: name, content_type, body, patience } = call;
        let input = self.take_in(body, function.max_input).await?;
        let job = NewJob {
            function: name.clone(),
            input,
            content_type,
            idempotency: None,
            not_before: None,
            expires_at: Some(self.clock.now().after(patience)),
            priority: PRIORITY_MAX,
            tags: vec![(CALL_TAG.to_owned(), String::new())],
            max_queued: function.max_queued,
        };
        match self.house.queue.submit(job).await {
            Ok(submitted) => Ok(self.house.begin(submitted.id).await),
            Err(Error::Full { .. }) => Err(busy(name)),
            Err(error) => Err(not_kept(error)),
        }
    }

    /// The record of the job once it is over. An attempt that was cut off with its worker is over too.
    async fn finished(&self, id: JobId) -> Result<Job, CallError> {
        let mut moves = self.house.queue.watch(Watch::Job(id));
        loop {
            // Asked before the look: what has ended by then is told as it ended.
            let is_cut = self.cut.is_cancelled();
            let job = self.house.queue.get(id).await.map_err(not_kept)?;
            if job.state.is_final() {
                return Ok(job);
            }
            if is_cut {
                return Err(if job.attempt() > 0 { CallError::CutOff } else { CallError::Stopping });
            }
            if job.state != State::Running && job.tally.attempts > 0 {
                return Err(CallError::Failed(Failure::cut_off_call()));
            }
            tokio::select! {
                // All only wait.
                _ = moves.next() => {}
                () = sleep(LOOK_EVERY) => {}
                () = self.cut.cancelled() => {}
            }
        }
    }
}

#[async_trait]
impl Invoke for QueuedCalls {
    async fn call(&self, call: Call) -> Result<Reply, CallError> {
        let name = call.function.clone();
        let function = self.functions.borrow().get(&name).cloned();
        let function = function.ok_or_else(|| CallError::UnknownFunction(name.clone()))?;
        let under_way = self.submit(call, &function).await?;
        let job = self.finished(under_way.id).await?;
        match (job.state, job.error) {
            (State::Succeeded, _) => reply(under_way).await,
            (State::Cancelled, _) => Err(CallError::Failed(Failure::new(FailureCode::Interrupted, "it was cancelled"))),
            (_, Some(failure)) if failure.code == FailureCode::Expired => Err(busy(name)),
            (_, Some(failure)) => Err(CallError::Failed(failure)),
            (_, None) => Err(CallError::Broken(format!("job {} ended without a word", job.id))),
        }
    }
}

// === impl House ===

impl House {
    async fn begin(self: &Arc<Self>, id: JobId) -> UnderWay {
        let under_way = UnderWay { id, house: Arc::clone(self) };
        if let Err(error) = tokio::fs::write(self.mark(id), "").await {
            tracing::debug!(%error, "a call under way cannot be marked; a killed server would leave its job");
        }
        under_way
    }

    fn mark(&self, id: JobId) -> PathBuf {
        self.marks.join(id.to_string())
    }

    /// Brings a job to its end, if it is not there yet, and erases it.
    async fn erase(&self, id: JobId) {
        let erased = timeout(ENDED_WITHIN, self.end_and_forget(id)).await;
        match erased {
            Ok(Ok(()) | Err(Error::UnknownJob(_))) => {
                let _ = tokio::fs::remove_file(self.mark(id)).await;
            }
            // The mark stays, and the next start tries again.
            Ok(Err(error)) => tracing::warn!(job_id = %id, %error, "the job of a call cannot be erased yet"),
            Err(_) => tracing::warn!(job_id = %id, "the job of a call does not end; it is erased at the next start"),
        }
    }

    async fn end_and_forget(&self, id: JobId) -> Result<(), Error> {
        let mut moves = self.queue.watch(Watch::Job(id));
        loop {
            match self.queue.forget(id).await {
                Err(Error::WrongState { .. }) => {}
                forgotten => return forgotten,
            }
            match self.queue.cancel(id).await {
                Ok(job) if !job.state.is_final() => {
                    // A running attempt hears of it with its next renewal. Both only wait.
                    tokio::select! {
                        _ = moves.next() => {}
                        () = sleep(LOOK_EVERY) => {}
                    }
                }
                Ok(_) | Err(Error::WrongState { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn end_leftovers(&self) -> io::Result<()> {
        fs::create_dir_all(&self.marks)?;
        let names = fs::read_dir(&self.marks)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let left: Vec<JobId> = names.filter_map(|name| name.parse().ok()).collect();
        for id in &left {
            // Nothing runs yet, so this does not wait.
            self.erase(*id).await;
        }
        if !left.is_empty() {
            tracing::info!(calls = left.len(), "calls that a killed server left are ended");
        }
        Ok(())
    }
}

// === impl UnderWay ===

impl Drop for UnderWay {
    fn drop(&mut self) {
        let (house, id) = (Arc::clone(&self.house), self.id);
        let erasing = async move { house.erase(id).await };
        self.house.ending.spawn(erasing);
    }
}

/// The stored result as a reply. Its job stays for as long as somebody reads.
async fn reply(under_way: UnderWay) -> Result<Reply, CallError> {
    let stored = under_way.house.queue.result(under_way.id).await.map_err(not_kept)?;
    let stored = stored.ok_or_else(|| CallError::Broken("a success without a result".to_owned()))?;
    let body = match stored.payload {
        Payload::Inline(bytes) => Body::Bytes(bytes),
        Payload::Blob(blob) => {
            let reader = blob.open().await.map_err(|error| CallError::Broken(error.to_string()))?;
            Body::Stream(Box::pin(stream::unfold(Some((reader, under_way)), read)))
        }
    };
    // What a job's record does not keep is the status that the function chose.
    Ok(Reply { status: None, content_type: stored.content_type.unwrap_or_default(), body })
}

type Reading = Option<(BlobReader, UnderWay)>;

async fn read(reading: Reading) -> Option<(io::Result<Bytes>, Reading)> {
    let (mut reader, under_way) = reading?;
    match reader.next(PIECE_BYTES).await {
        Ok(piece) if piece.is_empty() => None,
        Ok(piece) => Some((Ok(piece), Some((reader, under_way)))),
        Err(error) => Some((Err(io::Error::other(error)), None)),
    }
}

async fn pieces(body: Body) -> io::Result<Pieces> {
    Ok(match body {
        Body::Bytes(bytes) => Box::pin(stream::iter([Ok(bytes)])),
        Body::Stream(pieces) => pieces,
        Body::File(path, _) => {
            let file = tokio::fs::File::open(path).await?;
            Box::pin(tokio_util::io::ReaderStream::with_capacity(file, PIECE_BYTES))
        }
    })
}

/// As for a job: what goes to a file must not take the room that running jobs need.
async fn write(stage: &mut dyn Stage, queue: &dyn Queue, piece: Bytes) -> Result<(), Error> {
    queue.room()?;
    stage.write(piece).await
}

fn busy(function: FunctionName) -> CallError {
    CallError::Busy { function, retry_after_s: RETRY_AFTER_S }
}
