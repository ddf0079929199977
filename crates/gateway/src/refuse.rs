//! The refusals in words: what happened, and what to try. One function for each, so that no two places say it differently.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use kvern_core::limits::{FREE_BYTES_MIN, INLINE_BYTES_MAX};
use kvern_core::{Failure, FailureCode, FunctionName, JobId, Size, State};
use kvern_queue::Error as QueueError;
use kvern_runtime::CallError;

use crate::error::{Code, Problem};

/// The function is not there.
pub(crate) fn unknown_function<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Problem {
    let name: String = name.chars().take(80).collect();
    let problem = Problem::new(Code::UnknownFunction, format!("there is no function `{name}`"));
    match nearest(&name, known) {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None => problem.hint("GET /v1/functions lists the functions; they are declared in kvern.toml"),
    }
}

/// The text is not an id.
pub(crate) fn bad_job_id(text: &str) -> Problem {
    let text: String = text.chars().take(80).collect();
    let detail = format!("`{text}` is {}", kvern_core::id::BadId);
    Problem::new(Code::BadJobId, detail).hint("take the id from the answer to the submit, or from GET /v1/jobs")
}

/// The body is larger than the function takes.
pub(crate) fn too_large(function: &FunctionName, limit: u64, announced: Option<u64>) -> Problem {
    let limit = Size(limit);
    let size = announced.map_or_else(|| format!("more than {limit}"), |bytes| Size(bytes).to_string());
    let detail = format!("the input has {size}; `{function}` takes at most {limit} (its `max_input`)");
    Problem::new(Code::PayloadTooLarge, detail)
        .hint(format!("send less, or raise `max_input` of `{function}` in kvern.toml"))
}

/// The bytes in flight are at their bound.
pub(crate) fn too_many_bytes(limit: u64) -> Problem {
    let detail = format!("request bodies of {} are already in memory; nothing was stored", Size(limit));
    Problem::new(Code::TooBusy, detail).hint("send it again in a moment").retry_after(1)
}

/// Every connection is taken.
pub(crate) fn too_many_connections(limit: usize) -> Problem {
    Problem::new(Code::TooBusy, format!("{limit} connections are open already; nothing was stored"))
        .hint("send it again in a moment, and keep fewer connections open")
        .retry_after(1)
}

/// The server stops.
pub(crate) fn stopping() -> Problem {
    Problem::new(Code::Stopping, "the server is stopping; nothing was stored").retry_after(5)
}

/// A query parameter is wrong.
pub(crate) fn bad_query(key: &str, value: &str, wanted: &str) -> Problem {
    let value: String = value.chars().take(80).collect();
    Problem::new(Code::BadQuery, format!("`{key}={value}`: {wanted}"))
}

/// The function failed in a call, or in a job that the client waited for.
pub(crate) fn failed(function: &FunctionName, failure: Failure) -> Problem {
    let code = match failure.code {
        FailureCode::Timeout => Code::Timeout,
        FailureCode::BadInput => Code::BadInput,
        _ => Code::FunctionFailed,
    };
    Problem::new(code, format!("`{function}` failed: {failure}")).with_failure(failure)
}

/// The stored bytes are not those that came.
pub(crate) fn damaged(id: JobId) -> Problem {
    Problem::new(Code::Damaged, format!("the stored bytes of job {id} do not match their checksum"))
        .hint("the disk or memory of the server is failing: `kvern doctor` there names all jobs concerned")
        .about(id)
}

/// Something broke that no client can mend.
pub(crate) fn internal(error: &dyn std::fmt::Display) -> Problem {
    tracing::error!(%error, "a request failed inside");
    Problem::new(Code::Internal, "Kvern failed to answer this; its log says why")
}

/// A file cannot be opened or read.
pub(crate) fn unreadable(error: &std::io::Error) -> Problem {
    if kvern_queue::is_scarcity(error) { scarce(&error.to_string()) } else { internal(error) }
}

fn scarce(inner: &str) -> Problem {
    static LAST: AtomicU64 = AtomicU64::new(0);
    if is_new_second(&LAST) {
        tracing::warn!(error = inner, "the system has too little for what goes on");
    }
    Problem::new(Code::TooBusy, "the server has no open files or memory to spare for this; nothing was stored")
        .hint("send it again in a moment; if this lasts, raise the server's limit on open files")
        .retry_after(1)
}

/// The known word that was probably meant.
pub(crate) fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.map(|word| (strsim::damerau_levenshtein(given, word), word));
    let (distance, word) = scored.min_by_key(|(distance, _)| *distance)?;
    (distance <= word.len().div_ceil(3)).then_some(word)
}

impl From<QueueError> for Problem {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::Full { function, limit } => {
                let detail =
                    format!("{limit} jobs of `{function}` wait already (its `max_queued`); nothing was stored");
                Self::new(Code::QueueFull, detail).hint("send it again later").retry_after(1)
            }
            QueueError::TooLarge { bytes, limit } => {
                let detail = format!("the input has {}; this queue stores at most {}", Size(bytes), Size(limit));
                Self::new(Code::PayloadTooLarge, detail).hint("send less, or the path of a file instead of its bytes")
            }
            QueueError::KeyReused(id) => {
                let detail = format!("this Idempotency-Key already made job {id} from another body or content type");
                Self::new(Code::IdempotencyKeyReused, detail).hint("use a new key for a new request").about(id)
            }
            QueueError::UnknownJob(id) => unknown_job(id),
            QueueError::WrongState { id, state } => {
                let verb = if matches!(state, State::Succeeded | State::Failed) { "has" } else { "is" };
                Self::new(Code::WrongState, format!("job {id} {verb} {state}")).about(id)
            }
            QueueError::BadCursor => Self::new(Code::BadCursor, "the cursor belongs to another list, or is damaged")
                .hint("take `next` from the last page and keep the same filters, or begin again without a cursor"),
            QueueError::Damaged(id) => {
                tracing::error!(job_id = %id, "stored bytes do not match their checksum");
                damaged(id)
            }
            QueueError::NoSpace(inner) => no_space(&inner),
            QueueError::Busy(inner) => scarce(&inner),
            QueueError::Disk(inner) => disk(&inner),
            QueueError::Unknown(inner) => store_unknown(&inner),
            QueueError::Closed(inner) => store_closed(&inner),
            error @ (QueueError::StaleLease(_) | QueueError::Broken(_)) => internal(&error),
        }
    }
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        match error {
            CallError::UnknownFunction(name) => unknown_function(name.as_str(), std::iter::empty()),
            CallError::Busy { function, retry_after_s } => {
                Self::new(Code::TooBusy, format!("every instance of `{function}` is busy"))
                    .hint("call again later, or submit a job: POST to the same path with /jobs")
                    .retry_after(retry_after_s)
            }
            CallError::NoRoom { function, retry_after_s } => Self::new(
                Code::TooBusy,
                format!("the server has no open files, processes or memory to spare for `{function}`; nothing ran"),
            )
            .hint("call again later, or submit a job: it waits until there is room")
            .retry_after(retry_after_s),
            CallError::Stopping => stopping(),
            CallError::CutOff => {
                let words = "the server is stopping, and the function was cut off: it may have done a part of its work";
                Self::new(Code::Stopping, words).hint("call again if doing that part twice does no harm").retry_after(5)
            }
            CallError::NoSpace(inner) => no_space_for_call(&inner),
            CallError::Disk(inner) => disk(&inner),
            CallError::Scarce(inner) => scarce(&inner),
            CallError::Broken(inner) => internal(&inner),
            CallError::Failed(failure) => Self::new(Code::FunctionFailed, "the function failed").with_failure(failure),
        }
    }
}

fn unknown_job(id: JobId) -> Problem {
    Problem::new(Code::UnknownJob, format!("there is no job {id}"))
        .hint("it never was, or it finished and was forgotten after its function's `keep`")
}

fn no_space(inner: &str) -> Problem {
    static LAST: AtomicU64 = AtomicU64::new(0);
    if is_new_second(&LAST) {
        tracing::warn!(error = inner, "there is no room to store jobs");
    }
    let least = Size(FREE_BYTES_MIN);
    let detail =
        format!("too little room on the server's disk: jobs are accepted from {least} free; nothing was stored");
    Problem::new(Code::NoSpace, detail)
        .hint("send it again later; an Idempotency-Key makes that safe in any case")
        .retry_after(10)
}

fn no_space_for_call(inner: &str) -> Problem {
    static LAST: AtomicU64 = AtomicU64::new(0);
    if is_new_second(&LAST) {
        tracing::warn!(error = inner, "there is no room to keep the input of a call");
    }
    let (small, least) = (Size(INLINE_BYTES_MAX as u64), Size(FREE_BYTES_MIN));
    let detail = format!(
        "too little room on the server's disk: an input over {small} is kept there from {least} free; the function did \
         not run"
    );
    Problem::new(Code::NoSpace, detail).hint("call again later").retry_after(10)
}

/// The disk has not answered a client that waited for it before its job was handed over.
pub(crate) fn disk(inner: &str) -> Problem {
    static LAST: AtomicU64 = AtomicU64::new(0);
    if is_new_second(&LAST) {
        tracing::error!(error = inner, "the disk does not take new jobs");
    }
    let detail = "the server's disk does not answer, or refused this; nothing of this request was stored";
    Problem::new(Code::StoreUnavailable, detail)
        .hint("send it again later; an Idempotency-Key makes that safe in any case")
        .retry_after(10)
}

fn store_unknown(inner: &str) -> Problem {
    static LAST: AtomicU64 = AtomicU64::new(0);
    if is_new_second(&LAST) {
        tracing::error!(error = inner, "whether jobs were stored is unknown");
    }
    let detail = "the store failed or was silent for too long while it wrote; whether the job was kept is unknown";
    Problem::new(Code::StoreUnknown, detail)
        .hint("send it again with the same Idempotency-Key: it becomes one job at most")
        .retry_after(5)
}

fn store_closed(inner: &str) -> Problem {
    static LAST: AtomicU64 = AtomicU64::new(0);
    if is_new_second(&LAST) {
        tracing::warn!(error = inner, "the store is closed");
    }
    Problem::new(Code::StoreClosed, "the store takes nothing any more; nothing was stored")
        .hint("the server is stopping, or its disk failed; GET /readyz?verbose says which")
        .retry_after(5)
}

/// Whether nothing was logged here in this second: a full disk must not be filled by lines about it.
fn is_new_second(last: &AtomicU64) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    last.swap(now, Ordering::Relaxed) != now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_offered_only_if_it_is_near() {
        let known = ["function", "state", "since", "cursor", "limit"];
        assert_eq!(nearest("stat", known.into_iter()), Some("state"));
        assert_eq!(nearest("funtcion", known.into_iter()), Some("function"));
        assert_eq!(nearest("order", known.into_iter()), None);
    }
}
