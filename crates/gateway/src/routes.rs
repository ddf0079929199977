//! Everything that can be asked, in one table. Dispatch, `405`, `/openapi.json` and the tests read it, so they cannot
//! disagree.

use std::borrow::Cow;

use hyper::Method;

use crate::options::JOB_OPTIONS;
use crate::percent;

/// One route.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its method. HEAD goes with GET, OPTIONS with everything.
    pub method: Method,
    /// Its path; `{name}` and `{id}` stand for one segment.
    pub path: &'static str,
    /// What it does.
    pub what: What,
    /// The query parameters that it takes.
    pub query: &'static [&'static str],
    /// Whether it needs the token, where there is one.
    pub guarded: bool,
    /// What it is for, in a sentence.
    pub about: &'static str,
}

/// What a route does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum What {
    /// Accepts a job.
    Submit,
    /// Calls a function.
    Call,
    /// Reads a job's record.
    Job,
    /// Reads a job's result.
    Result,
    /// Reads a job's log.
    Logs,
    /// Reads a job's input.
    Input,
    /// Cancels a job.
    Cancel,
    /// Gives a dead letter another life.
    Retry,
    /// Lists jobs.
    Jobs,
    /// Lists functions.
    Functions,
    /// Describes a function.
    Function,
    /// Stops new attempts of the jobs of a function.
    Pause,
    /// Allows them again.
    Resume,
    /// Explains the error codes.
    Errors,
    /// Says that the process lives.
    Healthz,
    /// Says whether it takes jobs.
    Readyz,
    /// Gives the metrics.
    Metrics,
    /// Describes this table.
    OpenApi,
}

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'p> {
    /// A route, and the segment that its placeholder stands for, decoded; empty if it has none.
    Route(What, Cow<'p, str>),
    /// A path that has other methods.
    OtherMethod(Vec<&'static Method>),
    /// No path of ours.
    Nothing,
}

const fn route(
    method: Method,
    path: &'static str,
    what: What,
    query: &'static [&'static str],
    about: &'static str,
) -> Route {
    Route { method, path, what, query, guarded: true, about }
}

const fn open(path: &'static str, what: What, query: &'static [&'static str], about: &'static str) -> Route {
    Route { method: Method::GET, path, what, query, guarded: false, about }
}

const POST: Method = Method::POST;
const GET: Method = Method::GET;

/// The filters of a list.
pub(crate) const LIST_FILTERS: &[&str] = &["function", "state", "since", "cursor", "limit"];

/// The table; what is asked most comes first.
pub static ROUTES: [Route; 18] = [
    route(POST, "/v1/functions/{name}/jobs", What::Submit, JOB_OPTIONS, "Submit a job: 202 once it is durable"),
    route(GET, "/v1/jobs/{id}", What::Job, &["wait"], "The record of a job; `wait` waits for its end"),
    route(GET, "/v1/jobs/{id}/result", What::Result, &[], "The result of a job: the function's own bytes"),
    route(
        POST,
        "/v1/functions/{name}",
        What::Call,
        JOB_OPTIONS,
        "Call a function, or with `Prefer: respond-async` submit a job",
    ),
    route(GET, "/v1/jobs", What::Jobs, LIST_FILTERS, "Jobs, the latest move first"),
    route(
        GET,
        "/v1/jobs/{id}/logs",
        What::Logs,
        &["offset", "follow"],
        "The log of a job; `follow` streams it to its end",
    ),
    route(GET, "/v1/jobs/{id}/input", What::Input, &[], "The input of a job, as it was sent"),
    route(POST, "/v1/jobs/{id}/cancel", What::Cancel, &[], "Cancel a job"),
    route(POST, "/v1/jobs/{id}/retry", What::Retry, &[], "Give a failed or cancelled job another life"),
    route(GET, "/v1/functions", What::Functions, &[], "The functions with their counts"),
    route(GET, "/v1/functions/{name}", What::Function, &[], "One function with its settings and counts"),
    route(
        POST,
        "/v1/functions/{name}/pause",
        What::Pause,
        &[],
        "Stop new attempts of a function's jobs; they are still accepted, and calls go on",
    ),
    route(POST, "/v1/functions/{name}/resume", What::Resume, &[], "Allow new attempts of a function again"),
    route(GET, "/v1/errors", What::Errors, &[], "What each error code means"),
    open("/healthz", What::Healthz, &[], "200 while the process lives"),
    open("/readyz", What::Readyz, &["verbose"], "200 while jobs are accepted, 503 with the reason otherwise"),
    route(GET, "/metrics", What::Metrics, &[], "Metrics for Prometheus"),
    route(GET, "/openapi.json", What::OpenApi, &[], "This description"),
];

/// Finds the route of a request.
pub(crate) fn find<'p>(method: &Method, path: &'p str) -> Found<'p> {
    let wanted = if method == Method::HEAD { &Method::GET } else { method };
    let mut others = Vec::new();
    for route in &ROUTES {
        let Some(segment) = matched(route.path, path) else { continue };
        if route.method == wanted {
            return Found::Route(route.what, decoded(segment));
        }
        others.push(&route.method);
    }
    if others.is_empty() { Found::Nothing } else { Found::OtherMethod(others) }
}

/// The segment that the placeholder of `pattern` stands for in `path`, if they match.
fn matched<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    let Some((before, rest)) = pattern.split_once('{') else { return (pattern == path).then_some("") };
    let (_, after) = rest.split_once('}')?;
    let segment = path.strip_prefix(before)?.strip_suffix(after)?;
    (!segment.is_empty() && !segment.contains('/')).then_some(segment)
}

/// A segment as it is meant: a client may write `%2D` for `-` (RFC 3986, section 2.3). What is no proper escape stays, and
/// is the name of nothing.
fn decoded(segment: &str) -> Cow<'_, str> {
    if !segment.contains('%') {
        return Cow::Borrowed(segment);
    }
    percent::decode(segment).map_or(Cow::Borrowed(segment), Cow::Owned)
}

/// Whether this is the path of a probe, which is answered however full the server is.
pub(crate) fn is_probe(path: &str) -> bool {
    ROUTES.iter().any(|route| !route.guarded && route.path == path)
}

impl Route {
    /// The route that does this.
    pub(crate) fn of(what: What) -> &'static Self {
        // A test holds that each has one.
        ROUTES.iter().find(|route| route.what == what).unwrap_or(&ROUTES[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_matched_whole() {
        let route = |what, segment| Found::Route(what, Cow::Borrowed(segment));
        assert_eq!(find(&POST, "/v1/functions/hello/jobs"), route(What::Submit, "hello"));
        assert_eq!(find(&POST, "/v1/functions/hello"), route(What::Call, "hello"));
        assert_eq!(find(&GET, "/v1/functions/jobs"), route(What::Function, "jobs"));
        assert_eq!(find(&Method::HEAD, "/v1/jobs/7/result"), route(What::Result, "7"));
        assert_eq!(find(&POST, "/v1/functions/resize%2Dimage/jobs"), route(What::Submit, "resize-image"));
        assert_eq!(
            find(&GET, "/v1/functions/a+b%2Fc"),
            route(What::Function, "a+b/c"),
            "one segment, whatever it holds"
        );
        assert_eq!(find(&GET, "/v1/functions/%zz"), route(What::Function, "%zz"));
        for path in
            ["/v1/functions/", "/v1/functions//jobs", "/v1/functions/a/b/jobs", "/v1/jobs/", "/V1/jobs", "/", ""]
        {
            assert_eq!(find(&GET, path), Found::Nothing, "{path}");
        }
    }

    #[test]
    fn a_path_tells_its_methods() {
        assert_eq!(find(&Method::DELETE, "/v1/functions/hello"), Found::OtherMethod(vec![&POST, &GET]));
        assert_eq!(find(&GET, "/v1/functions/hello/jobs"), Found::OtherMethod(vec![&POST]));
    }

    #[test]
    fn each_deed_has_one_route() {
        let mut deeds: Vec<_> = ROUTES.iter().map(|route| route.what).collect();
        deeds.dedup();
        assert_eq!(deeds.len(), ROUTES.len());
        for route in &ROUTES {
            assert_eq!(Route::of(route.what).path, route.path);
        }
    }

    #[test]
    fn only_the_two_probes_need_no_token() {
        let open: Vec<_> = ROUTES.iter().filter(|route| !route.guarded).map(|route| route.path).collect();
        assert_eq!(open, ["/healthz", "/readyz"]);
    }
}
