//! Calls: the caller waits for the function itself, or with `Prefer: respond-async` for a job.

use std::sync::PoisonError;
use std::time::Duration;

use hyper::Method;
use hyper::body::Incoming;
use hyper::http::request::Parts as Head;
use kvern_core::limits::STOP_GRACE;
use kvern_core::{Failure, FailureCode, Job, Mode};
use kvern_runtime::body::Body as RuntimeBody;
use kvern_runtime::{Call, CallError};
use tokio::time::Instant;

use crate::dispatch::Gateway;
use crate::error::{Code, Problem};
use crate::functions::Entry;
use crate::intake::{Intake, content_type};
use crate::lookup::applied;
use crate::options::{JobOptions, Prefer, no_idempotency_key};
use crate::refuse;
use crate::reply::{self, Response};

/// A call ends by its own deadlines; this much later the gateway stops believing that.
const OVERDUE: Duration = Duration::from_secs(10);

impl Gateway {
    /// `POST /v1/functions/{name}`.
    pub(crate) async fn call(&self, entry: &Entry, head: &Head, body: Incoming) -> Result<Response, Problem> {
        let options = JobOptions::parse(head.uri.query())?;
        let prefer = Prefer::parse(&head.headers);
        if prefer.respond_async {
            return self.submit_and_wait(entry, head, options, prefer, body).await;
        }
        if options != JobOptions::default() {
            return Err(Problem::new(Code::BadQuery, "a call takes no options of a job")
                .hint("POST to the same path with /jobs, or send `Prefer: respond-async`"));
        }
        self.invoke_and_reply(entry, head, body).await
    }

    /// A route of the manifest. Its query is the client's own business: webhooks bring what they want.
    pub(crate) async fn on_own_route(&self, entry: &Entry, head: &Head, body: Incoming) -> Result<Response, Problem> {
        let prefer = Prefer::parse(&head.headers);
        let options = JobOptions::default();
        let is_call = entry.function.mode == Mode::Sync && !prefer.respond_async;
        if head.method == Method::HEAD && !is_call {
            return Err(Problem::new(Code::MethodNotAllowed, "HEAD submits no job")
                .hint("use GET")
                .allow("GET, OPTIONS".to_owned()));
        }
        match entry.function.mode {
            Mode::Sync if is_call => self.invoke_and_reply(entry, head, body).await,
            Mode::Async if prefer == Prefer::default() => {
                let submitted = self.accept(entry, &head.headers, options, body).await?;
                Ok(self.accepted(&entry.function.name, submitted))
            }
            Mode::Sync | Mode::Async => self.submit_and_wait(entry, head, options, prefer, body).await,
        }
    }

    async fn submit_and_wait(
        &self,
        entry: &Entry,
        head: &Head,
        options: JobOptions,
        prefer: Prefer,
        body: Incoming,
    ) -> Result<Response, Problem> {
        let mut submitted = self.accept(entry, &head.headers, options, body).await?;
        if let Some(wait) = prefer.wait {
            match self.until_final(submitted.id, wait).await {
                Ok(job) => {
                    submitted.state = job.state;
                    if let Some(finished) = self.told(&job).await {
                        let finished = finished.map_err(Problem::after_body)?;
                        return Ok(applied(finished, &prefer.applied()));
                    }
                }
                Err(error) => tracing::warn!(job_id = %submitted.id, %error, "a wait for an accepted job broke off"),
            }
        }
        Ok(applied(self.accepted(&entry.function.name, submitted), &prefer.applied()))
    }

    /// What became of an accepted job, if it is over and that can be told. An error that does not name the job is not
    /// passed on: the client would take the job for one that was never stored.
    async fn told(&self, job: &Job) -> Option<Result<Response, Problem>> {
        if !job.state.is_final() {
            return None;
        }
        let finished = self.finished(job).await;
        finished.as_ref().err().is_none_or(|problem| problem.facts().job.is_some()).then_some(finished)
    }

    async fn invoke_and_reply(&self, entry: &Entry, head: &Head, body: Incoming) -> Result<Response, Problem> {
        if self.is_stopping() {
            return Err(refuse::stopping());
        }
        no_idempotency_key(&head.headers)?;
        let function = &entry.function;
        let content_type = content_type(&head.headers)?;
        let intake = Intake::open(body, function, self, Instant::now())?;
        let (taken, early) = intake.pass().await?;
        let is_read = matches!(taken.body, RuntimeBody::Bytes(_));
        let call = Call {
            function: function.name.clone(),
            content_type: content_type.map(str::to_owned),
            body: taken.body,
            patience: self.limits().patience,
        };
        let longest = self.limits().patience + function.timeout + STOP_GRACE + OVERDUE;
        // Dropped at that moment, which stops the attempt (rule 3 of the contract).
        let called = tokio::time::timeout(longest, self.invoke().call(call)).await;
        drop(taken.room);
        // A body that broke off is the client's doing, whatever it made of the call.
        if let Some(problem) = early.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(problem);
        }
        let problem = match called {
            Ok(Ok(answer)) => {
                return reply::from_function(answer.status.unwrap_or(200), &answer.content_type, answer.body).await;
            }
            Ok(Err(CallError::Failed(failure))) => refuse::failed(&function.name, failure),
            Ok(Err(error)) => error.into(),
            Err(_) => {
                let message = format!(
                    "nothing came of the call within {} s, which is more than its `timeout`: the usual reason is a file \
                     whose import never returns",
                    longest.as_secs()
                );
                refuse::failed(&function.name, Failure::new(FailureCode::Timeout, message))
            }
        };
        Err(if is_read { problem.after_body() } else { problem })
    }
}
