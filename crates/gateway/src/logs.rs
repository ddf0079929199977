//! The log of a job, as far as it goes or for as long as it grows.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use hyper::header::HeaderValue;
use kvern_core::JobId;
use kvern_queue::{Error, Queue, Watch, Watcher};
use tokio_util::sync::CancellationToken;

use crate::dispatch::Gateway;
use crate::error::Problem;
use crate::query::Query;
use crate::refuse::bad_query;
use crate::reply::{self, Response};
use crate::settings::PIECE_BYTES;

/// New lines are no move of the job, so nothing tells of them: a followed log is read this often.
const READ_EVERY: Duration = Duration::from_millis(250);

/// A log that is being sent.
struct Reading {
    queue: Arc<dyn Queue>,
    id: JobId,
    offset: u64,
    /// Tells when the job ends; none if the log is not followed, or only its rest is to come.
    watcher: Option<Watcher>,
    stop: CancellationToken,
}

impl Gateway {
    /// `GET /v1/jobs/{id}/logs`.
    pub(crate) async fn logs(&self, id: JobId, query: &Query) -> Result<Response, Problem> {
        let follow = query.flag("follow")?;
        let offset = match query.get("offset") {
            None => 0,
            Some(text) => Query::number(text).ok_or_else(|| bad_query("offset", text, "a number of bytes"))?,
        };
        // Read once, so that an unknown job is a 404 and not an empty log.
        self.queue().get(id).await?;
        let reading = Reading {
            queue: Arc::clone(self.queue()),
            id,
            offset,
            watcher: follow.then(|| self.queue().watch(Watch::Job(id))),
            stop: self.stop().clone(),
        };
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        let mut response = reply::pieces(text, reading.into_stream(), None);
        reply::inert(&mut response);
        Ok(response)
    }
}

impl Reading {
    fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send {
        futures_util::stream::try_unfold(self, |mut reading| async move {
            let piece = reading.next().await.map_err(io::Error::other)?;
            Ok((!piece.is_empty()).then_some((piece, reading)))
        })
    }

    /// The next bytes; none at the end.
    async fn next(&mut self) -> Result<Bytes, Error> {
        loop {
            let piece = self.queue.read_log(self.id, self.offset, PIECE_BYTES).await?;
            self.offset += piece.len() as u64;
            let Some(watcher) = self.watcher.as_mut().filter(|_| piece.is_empty()) else { return Ok(piece) };
            let is_final = self.queue.get(self.id).await?.state.is_final();
            if is_final || self.stop.is_cancelled() {
                // Between the two reads the last lines may have come: one more round, without waiting.
                self.watcher = None;
                continue;
            }
            // Nothing is lost by dropping an arm: the log is read again whatever ended the wait.
            tokio::select! {
                Some(_) = watcher.next() => {}
                () = tokio::time::sleep(READ_EVERY) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }
}
