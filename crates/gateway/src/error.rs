//! Every error that the gateway itself answers: RFC 9457 problem documents with a stable code.
//!
//! One code has one status, one title and one answer to "may I send it again?"; `docs/errors.md` has a section for each,
//! and a test holds the two together. What went wrong inside goes to the log only.

use std::borrow::Cow;

use hyper::StatusCode;
use kvern_core::{Failure, JobId};
use serde::Serialize;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident, $word:literal, $status:ident, $retryable:literal, $title:literal;)*) => {
        /// The stable codes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The word that stands in the document.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// The status that it is answered with.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// Whether the same request may succeed later.
            #[must_use]
            pub fn retryable(self) -> bool {
                match self { $(Self::$name => $retryable,)* }
            }

            /// What it means, in a few words.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

codes! {
    /// The request is not HTTP as it should be.
    BadRequest, "bad_request", BAD_REQUEST, false, "The request cannot be understood";
    /// A query parameter that is unknown or wrong.
    BadQuery, "bad_query", BAD_REQUEST, false, "A query parameter is wrong";
    /// The cursor is of another list, or damaged.
    BadCursor, "bad_cursor", BAD_REQUEST, false, "The cursor does not belong to this list";
    /// The text is not the id of a job.
    BadJobId, "bad_job_id", BAD_REQUEST, false, "This is not a job id";
    /// The idempotency key is not one, or stands on a call.
    BadIdempotencyKey, "bad_idempotency_key", BAD_REQUEST, false, "The Idempotency-Key cannot be taken";
    /// The function cannot take this input.
    BadInput, "bad_input", BAD_REQUEST, false, "The function cannot take this input";
    /// The token is missing or wrong.
    Unauthorized, "unauthorized", UNAUTHORIZED, false, "A token is needed";
    /// The request comes by a foreign name or from a foreign page.
    ForbiddenHost, "forbidden_host", FORBIDDEN, false, "The request comes by a foreign name";
    /// Nothing is at this path.
    NotFound, "not_found", NOT_FOUND, false, "There is nothing here";
    /// No function has this name.
    UnknownFunction, "unknown_function", NOT_FOUND, false, "There is no such function";
    /// No job has this id, or it was forgotten.
    UnknownJob, "unknown_job", NOT_FOUND, false, "There is no such job";
    /// The path is there, the method is not.
    MethodNotAllowed, "method_not_allowed", METHOD_NOT_ALLOWED, false, "The method is not allowed here";
    /// The body did not come in time.
    BodyTimeout, "body_timeout", REQUEST_TIMEOUT, true, "The body did not come in time";
    /// The job is in a state in which this cannot be done.
    WrongState, "wrong_state", CONFLICT, false, "The job's state does not allow this";
    /// The job has no result yet.
    NotFinished, "not_finished", CONFLICT, true, "The job has not finished";
    /// The job has no result and will have none: it failed.
    JobFailed, "job_failed", CONFLICT, false, "The job failed";
    /// The job has no result and will have none: it was cancelled.
    JobCancelled, "job_cancelled", CONFLICT, false, "The job was cancelled";
    /// The body is larger than the function takes.
    PayloadTooLarge, "payload_too_large", PAYLOAD_TOO_LARGE, false, "The input is too large";
    /// The key was used with another body.
    IdempotencyKeyReused, "idempotency_key_reused", UNPROCESSABLE_ENTITY, false, "The Idempotency-Key was used with another body";
    /// `max_queued` jobs wait.
    QueueFull, "queue_full", TOO_MANY_REQUESTS, true, "The queue of the function is full";
    /// The gateway failed.
    Internal, "internal", INTERNAL_SERVER_ERROR, true, "Kvern failed";
    /// The stored bytes do not match their checksum.
    Damaged, "damaged", INTERNAL_SERVER_ERROR, false, "The stored bytes are damaged";
    /// The function failed in a call.
    FunctionFailed, "function_failed", BAD_GATEWAY, true, "The function failed";
    /// No free slot, or too many bytes in flight.
    TooBusy, "too_busy", SERVICE_UNAVAILABLE, true, "Too much is going on";
    /// No room on the disk.
    NoSpace, "no_space", SERVICE_UNAVAILABLE, true, "There is no room on the disk";
    /// The disk refused it, or does not answer.
    StoreUnavailable, "store_unavailable", SERVICE_UNAVAILABLE, true, "The disk takes nothing for the moment";
    /// The store failed while it wrote, or was silent for too long.
    StoreUnknown, "store_unknown", SERVICE_UNAVAILABLE, true, "Whether the job was stored is unknown";
    /// The store takes nothing any more.
    StoreClosed, "store_closed", SERVICE_UNAVAILABLE, true, "The store is closed";
    /// The server is stopping.
    Stopping, "stopping", SERVICE_UNAVAILABLE, true, "The server is stopping";
    /// The function took too long in a call.
    Timeout, "timeout", GATEWAY_TIMEOUT, true, "The function took too long";
}

impl Code {
    /// Whether the function failed, and not Kvern or the client.
    pub(crate) fn is_of_function(self) -> bool {
        matches!(self, Self::FunctionFailed | Self::Timeout | Self::BadInput)
    }
}

/// An error on its way to a client. Boxed, because it stands beside small values in every result.
#[derive(Debug)]
pub(crate) struct Problem(Box<Facts>);

/// What is said of an error.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) code: Code,
    pub(crate) detail: Cow<'static, str>,
    pub(crate) hint: Option<Cow<'static, str>>,
    pub(crate) retry_after_s: Option<u32>,
    /// The methods that the path has, for 405.
    pub(crate) allow: Option<String>,
    /// The job that it is about.
    pub(crate) job: Option<JobId>,
    /// What the function said; makes it the function's error and not ours.
    pub(crate) failure: Option<Box<Failure>>,
    /// Whether the body of the request was read before this happened.
    pub(crate) is_after_body: bool,
    /// How the client may show who it is, for 401.
    pub(crate) challenge: Option<&'static str>,
}

/// A problem document.
#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    retryable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<JobId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<FailureJson<'a>>,
}

/// A function's failure, as jobs and problems show it.
#[derive(Serialize)]
pub(crate) struct FailureJson<'a> {
    code: &'static str,
    message: &'a str,
    class: Option<&'a str>,
    trace: Option<&'a str>,
    retryable: bool,
}

// === impl Problem ===

impl Problem {
    pub(crate) fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Facts {
            code,
            detail: detail.into(),
            hint: None,
            retry_after_s: None,
            allow: None,
            job: None,
            failure: None,
            is_after_body: false,
            challenge: None,
        }))
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.0
    }

    pub(crate) fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    pub(crate) fn retry_after(mut self, seconds: u32) -> Self {
        self.0.retry_after_s = Some(seconds);
        self
    }

    pub(crate) fn about(mut self, job: JobId) -> Self {
        self.0.job = Some(job);
        self
    }

    pub(crate) fn allow(mut self, methods: String) -> Self {
        self.0.allow = Some(methods);
        self
    }

    pub(crate) fn after_body(mut self) -> Self {
        self.0.is_after_body = true;
        self
    }

    pub(crate) fn challenge(mut self, challenge: &'static str) -> Self {
        self.0.challenge = Some(challenge);
        self
    }

    pub(crate) fn with_failure(mut self, failure: Failure) -> Self {
        self.0.failure = Some(Box::new(failure));
        self
    }
}

// === impl Facts ===

impl Facts {
    /// Whether the same request may succeed later. A call that fails may, if its failure is of that kind; asking again for
    /// the result of a job that failed for good never does.
    fn retryable(&self) -> bool {
        match &self.failure {
            Some(failure) if self.code.is_of_function() => failure.retryable(),
            _ => self.code.retryable(),
        }
    }

    /// The document.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let document = Document {
            r#type: format!("/v1/errors#{}", self.code.as_str()),
            title: self.code.title(),
            status: self.code.status().as_u16(),
            detail: &self.detail,
            code: self.code.as_str(),
            hint: self.hint.as_deref(),
            retryable: self.retryable(),
            job: self.job,
            error: self.failure.as_deref().map(FailureJson::new),
        };
        serde_json::to_vec(&document).unwrap_or_default()
    }
}

// === impl FailureJson ===

impl<'a> FailureJson<'a> {
    pub(crate) fn new(failure: &'a Failure) -> Self {
        Self {
            code: failure.code.as_str(),
            message: &failure.message,
            class: failure.class.as_deref(),
            trace: failure.trace.as_deref(),
            retryable: failure.retryable(),
        }
    }
}

#[cfg(test)]
mod tests {
    use kvern_core::FailureCode;
    use serde_json::Value;

    use super::*;

    #[test]
    fn asking_again_for_the_result_of_a_dead_letter_does_not_help() {
        let document = |code| {
            let failure = Failure::new(FailureCode::Exception, "KeyError");
            let problem = Problem::new(code, "it failed").with_failure(failure);
            serde_json::from_slice::<Value>(&problem.facts().to_json()).expect("JSON")
        };
        let asked = document(Code::JobFailed);
        assert_eq!((&asked["retryable"], &asked["error"]["retryable"]), (&false.into(), &true.into()));
        assert_eq!(document(Code::FunctionFailed)["retryable"], true, "a call may succeed next time");
    }
}
