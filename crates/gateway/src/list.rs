//! Lists of jobs.

use hyper::StatusCode;
use kvern_core::State;
use kvern_core::limits::PAGE_JOBS_MAX;
use kvern_queue::{Cursor, Filter};
use serde::Serialize;

use crate::dispatch::Gateway;
use crate::error::Problem;
use crate::job_json::JobJson;
use crate::query::Query;
use crate::refuse::{bad_query, nearest};
use crate::reply::{self, Response};
use crate::times;

/// Jobs on a page unless the client says otherwise.
const PAGE_JOBS_DEFAULT: usize = 50;

/// A page.
#[derive(Serialize)]
struct PageJson<'a> {
    jobs: Vec<JobJson<'a>>,
    /// The cursor of the next page; null at the end.
    next: Option<&'a str>,
}

impl Gateway {
    /// `GET /v1/jobs`.
    pub(crate) async fn jobs(&self, query: &Query) -> Result<Response, Problem> {
        let filter = self.filter(query)?;
        let cursor = query.get("cursor").map(|cursor| Cursor(cursor.to_owned()));
        let page = self.queue().list(&filter, cursor.as_ref(), limit(query)?).await?;
        let functions = self.functions();
        let jobs = page.jobs.iter().map(|job| JobJson::new(job, &functions)).collect();
        reply::json(StatusCode::OK, &PageJson { jobs, next: page.next.as_ref().map(|cursor| cursor.0.as_str()) })
    }

    fn filter(&self, query: &Query) -> Result<Filter, Problem> {
        let function = query.get("function").map(|text| {
            text.parse().map_err(|bad: kvern_core::name::BadName| bad_query("function", text, &bad.to_string()))
        });
        let states = query.get("state").unwrap_or_default().split(',').filter(|word| !word.is_empty());
        let since = query.get("since").map(|text| {
            let moment = times::moment(text, self.clock().now());
            moment.ok_or_else(|| bad_query("since", text, "a time as in `2026-01-02T03:04:05Z`, or an age as in `1h`"))
        });
        Ok(Filter {
            function: function.transpose()?,
            states: states.map(state).collect::<Result<_, _>>()?,
            since: since.transpose()?,
        })
    }
}

fn state(word: &str) -> Result<State, Problem> {
    word.parse().map_err(|()| {
        let words = State::ALL.map(State::as_str);
        let problem = bad_query("state", word, "there is no such state");
        match nearest(word, words.into_iter()) {
            Some(near) => problem.hint(format!("did you mean `{near}`?")),
            None => problem.hint(format!("the states are {}", words.join(", "))),
        }
    })
}

fn limit(query: &Query) -> Result<usize, Problem> {
    let Some(text) = query.get("limit") else { return Ok(PAGE_JOBS_DEFAULT) };
    let limit = Query::number(text).filter(|limit| (1..=PAGE_JOBS_MAX).contains(limit));
    limit.ok_or_else(|| bad_query("limit", text, &format!("a number from 1 to {PAGE_JOBS_MAX}")))
}
