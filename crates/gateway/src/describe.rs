//! The functions, as the manifest declares them and as they fare.

use std::time::Duration;

use hyper::StatusCode;
use kvern_queue::{FunctionStats, Stats};
use serde::Serialize;

use crate::dispatch::Gateway;
use crate::error::Problem;
use crate::functions::{Condition, Entry};
use crate::reply::{self, Response};

/// The fields with their JSON types, for `/openapi.json`. A test compares them with what is written.
pub(crate) const FIELDS: [(&str, &[&str]); 19] = [
    ("name", &["string"]),
    ("runs", &["string"]),
    ("state", &["string"]),
    ("version", &["string", "null"]),
    ("error", &["string", "null"]),
    ("paused", &["boolean"]),
    ("jobs", &["object"]),
    ("route", &["string", "null"]),
    ("mode", &["string"]),
    ("timeout_ms", &["integer"]),
    ("retry", &["object"]),
    ("concurrency", &["integer"]),
    ("scale", &["object"]),
    ("memory_bytes", &["integer", "null"]),
    ("env", &["array"]),
    ("max_input", &["integer"]),
    ("max_output", &["integer"]),
    ("max_queued", &["integer"]),
    ("keep", &["object"]),
];

/// A function as clients see it. Of its environment only the names: the values may be secrets.
#[derive(Serialize)]
pub(crate) struct FunctionJson<'a> {
    name: &'a str,
    runs: String,
    state: &'static str,
    version: Option<String>,
    error: Option<String>,
    paused: bool,
    jobs: Counts,
    route: Option<String>,
    mode: &'static str,
    timeout_ms: u64,
    retry: RetryJson,
    concurrency: u32,
    scale: ScaleJson,
    memory_bytes: Option<u64>,
    env: Vec<&'a str>,
    max_input: u64,
    max_output: u64,
    max_queued: u64,
    keep: KeepJson,
}

#[derive(Serialize)]
struct Counts {
    scheduled: u64,
    queued: u64,
    running: u64,
    succeeded: u64,
    failed: u64,
    cancelled: u64,
}

#[derive(Serialize)]
struct RetryJson {
    attempts: u32,
    backoff_ms: u64,
    max_backoff_ms: u64,
    jitter: bool,
}

#[derive(Serialize)]
struct ScaleJson {
    min: u32,
    max: u32,
    idle_ms: u64,
}

#[derive(Serialize)]
struct KeepJson {
    succeeded_ms: u64,
    failed_ms: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct List<'a> {
    functions: Vec<FunctionJson<'a>>,
    removed: Vec<RemovedJson<'a>>,
}

/// A function that has jobs and is in the manifest no more: those that wait go on waiting.
#[derive(Serialize)]
struct RemovedJson<'a> {
    name: &'a str,
    state: &'static str,
    paused: bool,
    jobs: Counts,
}

impl Gateway {
    /// `GET /v1/functions`.
    pub(crate) fn list_functions(&self) -> Result<Response, Problem> {
        let stats = self.queue().stats();
        let functions = self.functions();
        let list = functions.sorted().into_iter().map(|entry| self.function_json(entry, &stats)).collect();
        let removed = stats.functions.iter().filter(|(name, counts)| {
            let is_empty = *counts == FunctionStats { paused: counts.paused, ..FunctionStats::default() };
            functions.get(name.as_str()).is_none() && !is_empty
        });
        let removed = removed.map(|(name, counts)| RemovedJson {
            name: name.as_str(),
            state: "removed",
            paused: counts.paused,
            jobs: Counts::from(*counts),
        });
        reply::json(StatusCode::OK, &List { functions: list, removed: removed.collect() })
    }

    /// `GET /v1/functions/{name}`.
    pub(crate) fn describe_function(&self, entry: &Entry) -> Result<Response, Problem> {
        reply::json(StatusCode::OK, &self.function_json(entry, &self.queue().stats()))
    }

    fn function_json<'a>(&self, entry: &'a Entry, stats: &Stats) -> FunctionJson<'a> {
        let function = &entry.function;
        let counts = stats.functions.iter().find(|(name, _)| *name == function.name);
        let counts = counts.map(|(_, counts)| *counts).unwrap_or_default();
        let condition = (self.conditions())(&function.name);
        let state = condition.word();
        let Condition { version, error, .. } = condition;
        FunctionJson {
            name: function.name.as_str(),
            runs: function.door.describe(),
            state,
            version,
            error,
            paused: counts.paused,
            jobs: Counts::from(counts),
            route: function.route.as_ref().map(|route| format!("{} {}", route.method, route.path)),
            mode: function.mode.as_str(),
            timeout_ms: ms(function.timeout),
            retry: RetryJson {
                attempts: function.retry.attempts,
                backoff_ms: ms(function.retry.backoff),
                max_backoff_ms: ms(function.retry.max_backoff),
                jitter: function.retry.jitter,
            },
            concurrency: function.concurrency,
            scale: ScaleJson { min: function.scale.min, max: function.scale.max, idle_ms: ms(function.scale.idle) },
            memory_bytes: function.memory.map(|memory| memory.0.get()),
            env: function.env.iter().map(|(name, _)| name.as_str()).collect(),
            max_input: function.max_input,
            max_output: function.max_output,
            max_queued: function.max_queued,
            keep: KeepJson {
                succeeded_ms: ms(function.keep.succeeded),
                failed_ms: ms(function.keep.failed),
                bytes: function.keep.bytes,
            },
        }
    }
}

impl From<FunctionStats> for Counts {
    fn from(counts: FunctionStats) -> Self {
        let FunctionStats { scheduled, queued, running, succeeded, failed, cancelled, finished_bytes: _, paused: _ } =
            counts;
        Self { scheduled, queued, running, succeeded, failed, cancelled }
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
