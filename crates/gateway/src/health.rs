//! Whether the process lives, whether it takes jobs, and what it has counted.

use hyper::StatusCode;
use hyper::header::HeaderValue;
use hyper::http::request::Parts as Head;
use serde::Serialize;

use crate::dispatch::Gateway;
use crate::error::Problem;
use crate::metrics::Metrics;
use crate::query::Query;
use crate::refuse;
use crate::reply::{self, Response};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// `/readyz?verbose`.
#[derive(Serialize)]
struct Readiness {
    ready: bool,
    stopping: bool,
    queue: QueueReadiness,
    /// Where workers are other processes: those that are connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    workers: Option<Vec<String>>,
    functions: Vec<FunctionReadiness>,
}

#[derive(Serialize)]
struct QueueReadiness {
    ok: bool,
    durability: String,
    error: Option<String>,
}

#[derive(Serialize)]
struct FunctionReadiness {
    name: String,
    ok: bool,
    version: Option<String>,
    error: Option<String>,
}

/// `GET /healthz`: answered for as long as anything is.
pub(crate) fn healthz() -> Response {
    reply::whole(StatusCode::OK, TEXT, "ok\n")
}

/// `GET /metrics`.
pub(crate) fn metrics(metrics: &Metrics) -> Response {
    reply::whole(StatusCode::OK, OPEN_METRICS, metrics.to_text())
}

/// A gateway without a worker is ready: what it accepts is kept.
fn ready(workers: Option<&[String]>) -> &'static str {
    match workers {
        Some([]) => "ready; no worker is connected: jobs are accepted and wait\n",
        _ => "ready\n",
    }
}

impl Gateway {
    /// `GET /readyz`: whether a submit would be accepted. A function that cannot start does not make the server unready,
    /// because its jobs are kept and the others run; `verbose` names it.
    pub(crate) fn readyz(&self, head: &Head, query: &Query) -> Result<Response, Problem> {
        let room = self.queue().room();
        if !query.flag("verbose")? {
            if self.is_stopping() {
                return Err(refuse::stopping());
            }
            room?;
            return Ok(reply::whole(StatusCode::OK, TEXT, ready(self.workers().as_deref())));
        }
        // Names and errors of functions are not for everyone, unlike the bare probe.
        self.access().check(head, true)?;
        let ready = room.is_ok() && !self.is_stopping();
        let readiness = Readiness {
            ready,
            stopping: self.is_stopping(),
            queue: QueueReadiness {
                ok: room.is_ok(),
                durability: self.queue().durability().to_string(),
                error: room.err().map(|error| error.to_string()),
            },
            workers: self.workers(),
            functions: self.function_readiness(),
        };
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        reply::json(status, &readiness)
    }

    fn function_readiness(&self) -> Vec<FunctionReadiness> {
        let functions = self.functions();
        let entries = functions.sorted().into_iter();
        entries
            .map(|entry| {
                let condition = (self.conditions())(&entry.function.name);
                FunctionReadiness {
                    name: entry.function.name.to_string(),
                    ok: condition.error.is_none(),
                    version: condition.version,
                    error: condition.error,
                }
            })
            .collect()
    }
}
