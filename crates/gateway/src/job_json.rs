//! The record of a job as JSON: the only place that writes it. `docs/http-api.md` has a row for each field.

use kvern_core::{Attempt, Job, JobId, State};
use serde::{Serialize, Serializer};

use crate::error::FailureJson;
use crate::functions::Functions;
use crate::times::Rfc3339;

/// The fields with their JSON types, for `/openapi.json`. A test compares them with what is written.
pub(crate) const FIELDS: [(&str, &[&str]); 22] = [
    ("id", &["string"]),
    ("function", &["string"]),
    ("state", &["string"]),
    ("created_at", &["string"]),
    ("due_at", &["string", "null"]),
    ("expires_at", &["string", "null"]),
    ("started_at", &["string", "null"]),
    ("finished_at", &["string", "null"]),
    ("priority", &["integer"]),
    ("tags", &["object"]),
    ("content_type", &["string", "null"]),
    ("input_bytes", &["integer"]),
    ("attempt", &["integer"]),
    ("attempts_max", &["integer", "null"]),
    ("failures", &["integer"]),
    ("strikes", &["integer"]),
    ("interruptions", &["integer"]),
    ("error", &["object", "null"]),
    ("attempts", &["array"]),
    ("result", &["object", "null"]),
    ("cancel_requested", &["boolean"]),
    ("links", &["object"]),
];

/// A job as clients see it.
#[derive(Serialize)]
pub(crate) struct JobJson<'a> {
    id: JobId,
    function: &'a str,
    state: State,
    created_at: Rfc3339,
    due_at: Option<Rfc3339>,
    expires_at: Option<Rfc3339>,
    started_at: Option<Rfc3339>,
    finished_at: Option<Rfc3339>,
    priority: u8,
    tags: Tags<'a>,
    content_type: Option<&'a str>,
    input_bytes: u64,
    attempt: u32,
    attempts_max: Option<u32>,
    failures: u32,
    strikes: u32,
    interruptions: u32,
    error: Option<FailureJson<'a>>,
    attempts: Vec<AttemptJson<'a>>,
    result: Option<ResultJson<'a>>,
    cancel_requested: bool,
    links: Links,
}

#[derive(Serialize)]
struct AttemptJson<'a> {
    number: u32,
    outcome: &'a str,
    started_at: Rfc3339,
    finished_at: Rfc3339,
    version: Option<&'a str>,
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct ResultJson<'a> {
    content_type: &'a str,
    bytes: u64,
    url: Link,
}

/// Where more about a job is.
#[derive(Serialize)]
struct Links {
    #[serde(rename = "self")]
    itself: Link,
    result: Link,
    logs: Link,
}

/// Labels, as an object.
struct Tags<'a>(&'a [(String, String)]);

/// A path below a job's own.
struct Link(JobId, &'static str);

/// The record of a job as the API gives it, for the binary to hand to the console: both show the same fields.
#[must_use]
pub fn job_json(job: &Job, functions: &Functions) -> serde_json::Value {
    serde_json::to_value(JobJson::new(job, functions)).unwrap_or_default()
}

// === impl JobJson ===

impl<'a> JobJson<'a> {
    pub(crate) fn new(job: &'a Job, functions: &Functions) -> Self {
        let function = functions.get(job.function.as_str());
        Self {
            id: job.id,
            function: job.function.as_str(),
            state: job.state,
            created_at: Rfc3339(job.created_at),
            due_at: job.due_at.map(Rfc3339),
            expires_at: job.expires_at.map(Rfc3339),
            started_at: job.started_at.map(Rfc3339),
            finished_at: job.finished_at.map(Rfc3339),
            priority: job.priority,
            tags: Tags(&job.tags),
            content_type: job.content_type.as_deref(),
            input_bytes: job.input_bytes,
            attempt: job.attempt(),
            attempts_max: function.map(|entry| job.attempts_max(&entry.function.retry)),
            failures: job.tally.failures,
            strikes: job.tally.strikes,
            interruptions: job.tally.interruptions,
            error: job.error.as_ref().map(FailureJson::new),
            attempts: job.attempts.iter().map(AttemptJson::new).collect(),
            result: job.result.as_ref().map(|result| ResultJson {
                content_type: &result.content_type,
                bytes: result.bytes,
                url: Link(job.id, "/result"),
            }),
            cancel_requested: job.cancel_requested,
            links: Links { itself: Link(job.id, ""), result: Link(job.id, "/result"), logs: Link(job.id, "/logs") },
        }
    }
}

// === impl AttemptJson ===

impl<'a> AttemptJson<'a> {
    fn new(attempt: &'a Attempt) -> Self {
        Self {
            number: attempt.number,
            outcome: &attempt.outcome,
            started_at: Rfc3339(attempt.started_at),
            finished_at: Rfc3339(attempt.finished_at),
            version: attempt.version.as_deref(),
            error: attempt.error.as_deref(),
        }
    }
}

// === impl Tags ===

impl Serialize for Tags<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

// === impl Link ===

impl Serialize for Link {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("/v1/jobs/{}{}", self.0, self.1))
    }
}
