//! From a request to the handler of its route, and from every error to its answer.

use std::sync::Arc;

use axum::Router;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts as Head;
use hyper::service::Service;
use hyper::{Method, Request, StatusCode};
use hyper_util::service::TowerToHyperService;
use kvern_core::JobId;
use kvern_queue::{Clock, Queue};
use kvern_runtime::Invoke;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::admit::Admission;
use crate::error::{Code, Problem};
use crate::functions::{Conditions, Entry, Functions, Workers};
use crate::health;
use crate::metrics::Metrics;
use crate::openapi;
use crate::query::Query;
use crate::refuse;
use crate::reply::{self, Page, ReplyBody, Response};
use crate::routes::{self, Found, Route, What};
use crate::scrape::HistogramReading;
use crate::settings::{Limits, Settings};

/// A body up to this size that nobody read is in hyper's buffer already, and the connection goes on. A larger one makes
/// hyper close the connection after the answer, which the answer should say.
const UNREAD_BYTES_MAX: u64 = 4 << 10;

/// What the gateway needs; all of it comes from the caller.
pub struct Parts {
    /// Where jobs are.
    pub queue: Arc<dyn Queue>,
    /// What runs calls.
    pub invoke: Arc<dyn Invoke>,
    /// The functions; a reload sends new ones.
    pub functions: watch::Receiver<Arc<Functions>>,
    /// How functions fare on the worker's side.
    pub conditions: Conditions,
    /// The names of the workers that are connected, where workers are other processes.
    pub workers: Option<Workers>,
    /// What time it is.
    pub clock: Clock,
    /// Token, hosts and limits.
    pub settings: Settings,
    /// The counters, shared with whoever else counts.
    pub metrics: Arc<Metrics>,
    /// Reads the queue's fsync times, where it has any.
    pub fsync: Option<HistogramReading>,
    /// Pages that the binary mounts beside the API, behind the same access rules.
    pub extra: Router,
}

/// The gateway without its sockets.
pub(crate) struct Gateway {
    queue: Arc<dyn Queue>,
    invoke: Arc<dyn Invoke>,
    functions: watch::Receiver<Arc<Functions>>,
    conditions: Conditions,
    workers: Option<Workers>,
    clock: Clock,
    access: Access,
    limits: Limits,
    admission: Admission,
    metrics: Arc<Metrics>,
    extra: Router,
    stop: CancellationToken,
}

/// Counts one open connection until dropped.
pub(crate) struct Counted<'g>(&'g Gateway);

// === impl Gateway ===

impl Gateway {
    pub(crate) fn new(parts: Parts, stop: CancellationToken) -> Self {
        parts.metrics.read_at_scrape(Arc::clone(&parts.queue), parts.fsync);
        Self {
            queue: parts.queue,
            invoke: parts.invoke,
            functions: parts.functions,
            conditions: parts.conditions,
            workers: parts.workers,
            clock: parts.clock,
            access: Access::new(&parts.settings),
            admission: Admission::new(parts.settings.limits.body_bytes),
            limits: parts.settings.limits,
            metrics: parts.metrics,
            extra: parts.extra.fallback(async || Page404),
            stop,
        }
    }

    /// Answers a request, always; one beyond the bound on connections with hardly more than a refusal.
    pub(crate) async fn handle(&self, request: Request<Incoming>, is_beyond: bool) -> Response {
        let is_small = request.body().size_hint().upper().is_some_and(|bytes| bytes <= UNREAD_BYTES_MAX);
        let answered = match request.uri().path() {
            path if is_beyond && !routes::is_probe(path) => Err(refuse::too_many_connections(self.limits.connections)),
            _ => self.answer(request).await,
        };
        match answered {
            Ok(response) => response,
            Err(problem) => {
                let closes = !is_small && !problem.facts().is_after_body;
                let mut response = problem.into_response();
                if closes {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                response
            }
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response, Problem> {
        let (head, body) = request.into_parts();
        match routes::find(&head.method, head.uri.path()) {
            Found::Route(What::Submit, name) => {
                self.access.check(&head, true)?;
                let entry = self.entry(&name)?;
                self.submit(&entry, &head, body).await
            }
            // The other routes are boxed, so that a connection's task is no larger than the main path needs.
            Found::Route(what, segment) => {
                let route = Route::of(what);
                self.access.check(&head, route.guarded)?;
                Box::pin(self.run(route, &segment, &head, body)).await
            }
            Found::OtherMethod(methods) => {
                self.access.check(&head, true)?;
                let allowed: Vec<&str> = methods.iter().map(|method| method.as_str()).collect();
                other_method(&head.method, &allowed)
            }
            Found::Nothing => {
                self.access.check(&head, true)?;
                Box::pin(self.elsewhere(head, body)).await
            }
        }
    }

    async fn run(&self, route: &Route, segment: &str, head: &Head, body: Incoming) -> Result<Response, Problem> {
        let query = match route.what {
            // These two read theirs themselves: what is allowed depends on more than the path.
            What::Submit | What::Call => Query::default(),
            _ => Query::parse(head.uri.query(), route.query)?,
        };
        match route.what {
            What::Submit => self.submit(&*self.entry(segment)?, head, body).await,
            What::Call => self.call(&*self.entry(segment)?, head, body).await,
            What::Job => self.job(id(segment)?, &query).await,
            What::Result => self.result(id(segment)?).await,
            What::Logs => self.logs(id(segment)?, &query).await,
            What::Input => self.input(id(segment)?).await,
            What::Cancel => self.cancel(id(segment)?).await,
            What::Retry => self.retry(id(segment)?).await,
            What::Jobs => self.jobs(&query).await,
            What::Functions => self.list_functions(),
            What::Function => self.describe_function(&*self.entry(segment)?),
            What::Pause => self.pause(&*self.entry(segment)?, true).await,
            What::Resume => self.pause(&*self.entry(segment)?, false).await,
            What::Errors => Ok(openapi::errors_page()),
            What::Healthz => Ok(health::healthz()),
            What::Readyz => self.readyz(head, &query),
            What::Metrics => Ok(health::metrics(&self.metrics)),
            What::OpenApi => openapi::document(),
        }
    }

    /// A path that is not ours: a route of the manifest, or a page.
    async fn elsewhere(&self, head: Head, body: Incoming) -> Result<Response, Problem> {
        let functions = self.functions();
        if let Some(entries) = functions.at_path(head.uri.path()) {
            let method = if head.method == Method::HEAD { &Method::GET } else { &head.method };
            if let Some((_, entry)) = entries.iter().find(|(other, _)| other == method) {
                self.access.check_site(&head)?;
                return self.on_own_route(entry, &head, body).await;
            }
            let allowed: Vec<&str> = entries.iter().map(|(method, _)| method.as_str()).collect();
            return other_method(&head.method, &allowed);
        }
        let method = head.method.clone();
        let request = Request::from_parts(head, axum::body::Body::new(body));
        let response = match TowerToHyperService::new(self.extra.clone()).call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        if response.extensions().get::<Page404>().is_some() {
            return Err(Problem::new(Code::NotFound, "there is nothing at this path")
                .hint("GET /openapi.json lists the paths; functions are at /v1/functions/NAME"));
        }
        if response.status() == StatusCode::METHOD_NOT_ALLOWED {
            // In our words, as on every other path; HEAD and OPTIONS are added again.
            let allow = response.headers().get(header::ALLOW).and_then(|allow| allow.to_str().ok()).unwrap_or_default();
            let allowed: Vec<&str> = allow.split(',').map(str::trim).filter(|method| *method != "HEAD").collect();
            return other_method(&method, &allowed);
        }
        Ok(response.map(|body| ReplyBody::Page(Page::new(body, self.stop.clone()))))
    }

    /// The function with this name.
    fn entry(&self, name: &str) -> Result<Arc<Entry>, Problem> {
        let functions = self.functions.borrow();
        functions.get(name).cloned().ok_or_else(|| refuse::unknown_function(name, functions.names()))
    }

    pub(crate) fn functions(&self) -> Arc<Functions> {
        Arc::clone(&self.functions.borrow())
    }

    pub(crate) fn queue(&self) -> &Arc<dyn Queue> {
        &self.queue
    }

    pub(crate) fn invoke(&self) -> &dyn Invoke {
        &*self.invoke
    }

    pub(crate) fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// The workers that are connected; none where the worker is in this process.
    pub(crate) fn workers(&self) -> Option<Vec<String>> {
        self.workers.as_ref().map(|workers| workers())
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn admission(&self) -> &Admission {
        &self.admission
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The signal that the server stops.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    pub(crate) fn count_connection(&self) -> Counted<'_> {
        self.metrics.connections.inc();
        Counted(self)
    }
}

fn id(text: &str) -> Result<JobId, Problem> {
    text.parse().map_err(|_| refuse::bad_job_id(text))
}

/// OPTIONS is told the methods; any other wrong method is refused with them.
fn other_method(method: &Method, allowed: &[&str]) -> Result<Response, Problem> {
    let mut all: Vec<&str> = allowed.to_vec();
    if allowed.contains(&"GET") {
        all.push("HEAD");
    }
    all.push("OPTIONS");
    let allow = all.join(", ");
    if method == Method::OPTIONS {
        let mut response = reply::whole(StatusCode::NO_CONTENT, HeaderValue::from_static("text/plain"), "");
        response.headers_mut().insert(header::ALLOW, reply::value(&allow));
        return Ok(response);
    }
    let method: String = method.as_str().chars().take(20).collect();
    Err(Problem::new(Code::MethodNotAllowed, format!("{method} is not a method of this path"))
        .hint(format!("use {}", allowed.join(" or ")))
        .allow(allow))
}

// === impl Counted ===

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.metrics.connections.dec();
    }
}

/// Marks the answer of a router that has no such page, so that ours is given instead.
#[derive(Debug, Clone, Copy)]
struct Page404;

impl axum::response::IntoResponse for Page404 {
    fn into_response(self) -> axum::response::Response {
        let mut response = StatusCode::NOT_FOUND.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
