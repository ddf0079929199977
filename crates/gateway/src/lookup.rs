//! What is known of a job: its record, its result, its input.

use std::io;

use bytes::Bytes;
use futures_util::Stream;
use hyper::StatusCode;
use hyper::header::{self, HeaderValue};
use kvern_core::{Failure, FailureCode, Job, JobId, State};
use kvern_queue::{BlobReader, Payload, Stored, Unreadable};

use crate::dispatch::Gateway;
use crate::error::{Code, Problem};
use crate::job_json::JobJson;
use crate::options;
use crate::query::Query;
use crate::refuse;
use crate::reply::{self, Response};
use crate::settings::PIECE_BYTES;

impl Gateway {
    /// `GET /v1/jobs/{id}`, with or without `wait`.
    pub(crate) async fn job(&self, id: JobId, query: &Query) -> Result<Response, Problem> {
        let job = match options::wait(query)? {
            Some(wait) => self.until_final(id, wait).await?,
            None => self.queue().get(id).await?,
        };
        self.show(&job)
    }

    /// A job's record as an answer.
    pub(crate) fn show(&self, job: &Job) -> Result<Response, Problem> {
        reply::json(StatusCode::OK, &JobJson::new(job, &self.functions()))
    }

    /// `GET /v1/jobs/{id}/result`.
    pub(crate) async fn result(&self, id: JobId) -> Result<Response, Problem> {
        if let Some(stored) = self.queue().result(id).await? {
            return self.stored(id, stored).await;
        }
        let job = self.queue().get(id).await?;
        match job.state {
            State::Failed => {
                let failure = failure_of(&job);
                let detail = format!("job {id} failed: {failure}");
                Err(Problem::new(Code::JobFailed, detail)
                    .hint(format!("look at its log; POST /v1/jobs/{id}/retry gives it another life"))
                    .about(id)
                    .with_failure(failure))
            }
            State::Cancelled => Err(cancelled(id)),
            // Between the two reads it may have succeeded: then the next request finds the result.
            state => Err(Problem::new(Code::NotFinished, format!("job {id} is {state}"))
                .hint(format!("wait for it with GET /v1/jobs/{id}?wait=30s"))
                .about(id)
                .retry_after(1)),
        }
    }

    /// `GET /v1/jobs/{id}/input`.
    pub(crate) async fn input(&self, id: JobId) -> Result<Response, Problem> {
        let stored = self.queue().input(id).await?;
        self.stored(id, stored).await
    }

    /// Stored bytes with the content type that came with them; a file is streamed, never read whole.
    async fn stored(&self, id: JobId, stored: Stored) -> Result<Response, Problem> {
        let content_type = reply::content_type_of(stored.content_type.as_deref());
        let mut response = match stored.payload {
            Payload::Inline(bytes) => reply::whole(StatusCode::OK, content_type, bytes),
            Payload::Blob(blob) => match blob.open().await {
                Ok(reader) => reply::pieces(content_type, verified(reader, id), Some(blob.bytes)),
                Err(error) => {
                    // The job may have been forgotten in between, with its files: then that is the answer.
                    self.queue().get(id).await?;
                    return Err(unreadable(id, &error));
                }
            },
        };
        reply::inert(&mut response);
        Ok(response)
    }

    /// What a client that waited for a finished job gets: the same as from a call.
    pub(crate) async fn finished(&self, job: &Job) -> Result<Response, Problem> {
        match job.state {
            State::Succeeded => {
                let mut response = self.result(job.id).await?;
                let location = reply::value(&format!("/v1/jobs/{}", job.id));
                response.headers_mut().insert(header::LOCATION, location);
                Ok(response)
            }
            State::Cancelled => Err(cancelled(job.id)),
            _ => Err(refuse::failed(&job.function, failure_of(job)).about(job.id)),
        }
    }
}

/// The bytes of a file. Those that do not match their checksum break the answer off: its status is sent already, and an
/// answer that ends too early is the one sign that a client cannot take for the result.
fn verified(reader: BlobReader, id: JobId) -> impl Stream<Item = io::Result<Bytes>> + Send {
    futures_util::stream::try_unfold(reader, move |mut reader| async move {
        let piece = reader.next(PIECE_BYTES).await.map_err(|error| {
            unreadable(id, &error);
            io::Error::other(error)
        })?;
        Ok((!piece.is_empty()).then_some((piece, reader)))
    })
}

fn unreadable(id: JobId, error: &Unreadable) -> Problem {
    match error {
        Unreadable::Damaged { .. } => {
            tracing::error!(job_id = %id, %error, "a stored file is damaged");
            refuse::damaged(id)
        }
        Unreadable::Io(inner) => refuse::unreadable(inner),
    }
}

/// Marks an answer as the one that `Prefer` asked for.
pub(crate) fn applied(mut response: Response, applied: &str) -> Response {
    let value: HeaderValue = reply::value(applied);
    response.headers_mut().insert(reply::PREFERENCE_APPLIED, value);
    response
}

fn cancelled(id: JobId) -> Problem {
    Problem::new(Code::JobCancelled, format!("job {id} was cancelled"))
        .hint(format!("POST /v1/jobs/{id}/retry gives it another life"))
        .about(id)
}

fn failure_of(job: &Job) -> Failure {
    job.error.clone().unwrap_or_else(|| Failure::new(FailureCode::Exception, "the function failed and said nothing"))
}
