//! The main path: a request becomes a durable job, and is answered `202` only once the queue said so.

use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts as Head;
use hyper::{HeaderMap, StatusCode};
use kvern_core::FunctionName;
use kvern_queue::{Durability, Idempotency, NewJob, Submitted};
use sha2::{Digest, Sha256};

use crate::dispatch::Gateway;
use crate::error::Problem;
use crate::functions::Entry;
use crate::intake::{Intake, content_type};
use crate::options::{JobOptions, idempotency_key};
use crate::reply::{self, KVERN_DURABILITY, Response};
use crate::times::Rfc3339;

impl Gateway {
    /// `POST /v1/functions/{name}/jobs`.
    pub(crate) async fn submit(&self, entry: &Entry, head: &Head, body: Incoming) -> Result<Response, Problem> {
        let options = JobOptions::parse(head.uri.query())?;
        let submitted = self.accept(entry, &head.headers, options, body).await?;
        Ok(self.accepted(&entry.function.name, submitted))
    }

    /// Reads the body and hands the job to the queue.
    pub(crate) async fn accept(
        &self,
        entry: &Entry,
        headers: &HeaderMap,
        options: JobOptions,
        body: Incoming,
    ) -> Result<Submitted, Problem> {
        let began = tokio::time::Instant::now();
        let content_type = content_type(headers)?;
        let key = idempotency_key(headers)?;
        let function = &entry.function;
        let intake = Intake::open(body, function, self, began)?;
        let mut hash = key.map(|_| body_hash(content_type));
        let taken = intake.store(&**self.queue(), hash.as_mut()).await?;
        let idempotency = key.zip(hash).map(|(key, hash)| Idempotency {
            key: self.scoped(&function.name, key),
            body: half(&hash.finalize().into()),
        });
        let now = self.clock().now();
        let job = NewJob {
            function: function.name.clone(),
            input: taken.body,
            content_type: content_type.map(str::to_owned),
            idempotency,
            not_before: options.not_before(now),
            expires_at: options.expires_at(now),
            priority: options.priority,
            tags: options.tags,
            max_queued: function.max_queued,
        };
        let submitted = self.queue().submit(job).await.map_err(|error| Problem::from(error).after_body())?;
        drop(taken.room);
        if !submitted.duplicate {
            entry.metrics.accepted.inc();
        }
        self.metrics().accept_seconds.observe(began.elapsed().as_secs_f64());
        Ok(submitted)
    }

    /// The `202`, written by hand: this is the answer that is given tens of thousands of times a second.
    pub(crate) fn accepted(&self, function: &FunctionName, submitted: Submitted) -> Response {
        let Submitted { id, state, duplicate } = submitted;
        let created_at = Rfc3339(id.accepted_at()).to_string();
        let location = format!("/v1/jobs/{id}");
        let id = &location["/v1/jobs/".len()..];
        let duplicate = if duplicate { r#""duplicate":true,"# } else { "" };
        #[rustfmt::skip]
        let body = [
            r#"{"id":""#, id, r#"","state":""#, state.as_str(), r#"","function":""#, function.as_str(),
            r#"","created_at":""#, &created_at, r#"","#, duplicate, r#""links":{"self":""#, &location,
            r#"","result":""#, &location, r#"/result","logs":""#, &location, r#"/logs"}}"#,
        ].concat();
        let mut response = reply::whole(StatusCode::ACCEPTED, reply::JSON, body);
        let headers = response.headers_mut();
        headers.insert(header::LOCATION, reply::value(&location));
        headers.insert(KVERN_DURABILITY, durability(self.queue().durability()));
        response
    }

    /// The key with its scope, as a hash, so that the queue never sees a token and two clients never meet.
    fn scoped(&self, function: &FunctionName, key: &[u8]) -> [u8; 16] {
        let mut hash = Sha256::new();
        hash.update([function.as_str().len() as u8]);
        hash.update(function.as_str());
        hash.update(self.access().token_hash());
        hash.update(key);
        half(&hash.finalize().into())
    }
}

/// A hash that has taken the content type and awaits the body.
fn body_hash(content_type: Option<&str>) -> Sha256 {
    let content_type = content_type.unwrap_or_default();
    let mut hash = Sha256::new();
    hash.update([content_type.len() as u8]);
    hash.update(content_type);
    hash
}

fn half(hash: &[u8; 32]) -> [u8; 16] {
    std::array::from_fn(|at| hash[at])
}

fn durability(durability: Durability) -> HeaderValue {
    HeaderValue::from_static(match durability {
        Durability::Fsync => "fsync",
        Durability::Seconds => "seconds",
        Durability::Memory => "memory",
    })
}
