//! A client of a real server that writes down what it asks before it asks, and what it is told.

use std::io::{Error, ErrorKind};

use serde_json::Value;

use super::{Ask, History, Record, Told};
use crate::http::{Answer, Http};

/// The refusal of a machine without a server.
pub const NOBODY_LISTENS: &str = "nobody listens";

/// Refusals with a status of 5xx after which nothing was done, by `docs/errors.md`.
const NOTHING_DONE: [&str; 4] = ["too_busy", "no_space", "store_closed", "stopping"];

/// Asks, and keeps the history. Threads share it.
#[derive(Debug)]
pub struct Client {
    /// The way to the server.
    pub http: Http,
    /// What was asked and told.
    pub history: History,
}

/// A job to submit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Submit<'a> {
    /// The function.
    pub function: &'a str,
    /// What tells the job from all others; see [`Ask::Submit`]. It becomes a tag; the body holds it for the function.
    pub note: u64,
    /// The `Idempotency-Key`.
    pub key: Option<&'a str>,
    /// More of the query: `&delay=1s&priority=7`.
    pub options: &'a str,
    /// The input.
    pub body: &'a [u8],
}

impl Client {
    /// Of this server, with an empty history.
    #[must_use]
    pub fn new(http: Http) -> Self {
        Self { http, history: History::default() }
    }

    /// Submits a job.
    pub fn submit(&self, job: Submit<'_>) -> Told {
        let path = format!("/v1/functions/{}/jobs?tag=note:{}{}", job.function, job.note, job.options);
        let mut headers = vec![("content-type", "application/octet-stream")];
        headers.extend(job.key.map(|key| ("idempotency-key", key)));
        self.record(Ask::Submit(job.note), || self.http.try_ask("POST", &path, &headers, job.body))
    }

    /// Cancels a job.
    pub fn cancel(&self, id: &str) -> Told {
        let path = format!("/v1/jobs/{id}/cancel");
        self.record(Ask::Cancel(id.to_owned()), || self.http.try_ask("POST", &path, &[], b""))
    }

    /// Gives a job another life.
    pub fn retry(&self, id: &str) -> Told {
        let path = format!("/v1/jobs/{id}/retry");
        self.record(Ask::Retry(id.to_owned()), || self.http.try_ask("POST", &path, &[], b""))
    }

    /// Looks at a job, at its end if that comes within this time (`500ms`).
    pub fn look(&self, id: &str, wait: &str) -> Told {
        let path = format!("/v1/jobs/{id}?wait={wait}");
        self.record(Ask::Look(id.to_owned()), || self.http.try_ask("GET", &path, &[], b""))
    }

    /// The records of all jobs, by the pages of the list.
    ///
    /// # Panics
    /// If the server does not give them.
    #[must_use]
    pub fn list(&self) -> Vec<Record> {
        let mut records = Vec::new();
        let mut path = "/v1/jobs?limit=500".to_owned();
        loop {
            let page = self.http.get(&path).json();
            records
                .extend(page["jobs"].as_array().unwrap_or_else(|| panic!("no list: {page}")).iter().map(Record::read));
            let Some(cursor) = page["next"].as_str() else { return records };
            path = format!("/v1/jobs?limit=500&cursor={cursor}");
        }
    }

    fn record(&self, ask: Ask, send: impl FnOnce() -> Result<Answer, Error>) -> Told {
        let ticket = self.history.asks(ask);
        let told = told(send());
        self.history.told(&ticket, told.clone());
        told
    }
}

/// What an answer says of what was done.
fn told(answer: Result<Answer, Error>) -> Told {
    let answer = match answer {
        Ok(answer) => answer,
        // Nobody listens, so nobody has read it.
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Told::Refused(NOBODY_LISTENS.to_owned()),
        Err(error) => return Told::Unknown(error.to_string()),
    };
    // A server that dies may leave half an answer.
    let Ok(body) = serde_json::from_slice::<Value>(&answer.body) else { return Told::Unknown(answer.text()) };
    let code = body["code"].as_str().unwrap_or_default();
    match (answer.status, body["id"].as_str()) {
        (202, Some(id)) => Told::Accepted(id.to_owned()),
        (200, Some(_)) => Told::Shown(Record::read(&body)),
        (400..=499, _) => Told::Refused(code.to_owned()),
        (500..=599, _) if NOTHING_DONE.contains(&code) => Told::Refused(code.to_owned()),
        _ => Told::Unknown(answer.text()),
    }
}
