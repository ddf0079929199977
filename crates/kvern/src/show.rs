//! How jobs and functions look in a terminal: columns for lists, lines for one.

use serde_json::Value;

use crate::cli::{Format, Global};
use crate::print;

/// The columns of a list of jobs.
pub(crate) const JOB_HEADINGS: [&str; 6] = ["job", "function", "state", "attempt", "created", "error"];

/// A job as a row under [`JOB_HEADINGS`].
pub(crate) fn job_row(job: &Value) -> Vec<String> {
    let attempt = match (job.get("attempt").and_then(Value::as_u64), job.get("attempts_max").and_then(Value::as_u64)) {
        (Some(attempt), Some(max)) => format!("{attempt}/{max}"),
        (Some(attempt), None) => attempt.to_string(),
        _ => String::new(),
    };
    let word = |key: &str| text(job, key).to_owned();
    vec![word("id"), word("function"), word("state"), attempt, word("created_at"), first_line(&error(job))]
}

/// A job, whole.
pub(crate) fn job(global: &Global, job: &Value) {
    if global.output == Format::Json {
        print::json(job);
        return;
    }
    let row = job_row(job);
    for (heading, cell) in JOB_HEADINGS.iter().zip(row).filter(|(_, cell)| !cell.is_empty()) {
        print::line(&format!("{heading:<9} {cell}"));
    }
    for key in ["due_at", "started_at", "finished_at"] {
        if !text(job, key).is_empty() {
            print::line(&format!("{:<9} {}", key.trim_end_matches("_at"), text(job, key)));
        }
    }
    for attempt in job.get("attempts").and_then(Value::as_array).into_iter().flatten() {
        let number = attempt.get("number").map(Value::to_string).unwrap_or_default();
        let line = format!("attempt {number} {} {}", text(attempt, "outcome"), text(attempt, "error"));
        print::line(&format!("  {} {}", text(attempt, "finished_at"), line.trim_end()));
    }
    if let Some(trace) = job.pointer("/error/trace").and_then(Value::as_str) {
        print::line(trace.trim_end());
    }
    if let Some(result) = job.get("result").filter(|r| !r.is_null()) {
        let bytes = result.get("bytes").map(Value::to_string).unwrap_or_default();
        print::line(&format!("result    {bytes} bytes of {}", text(result, "content_type")));
        print::say(&format!("print it with: kvern jobs result {}", text(job, "id")));
    }
}

/// Any object, a line per field.
pub(crate) fn fields(global: &Global, object: &Value) {
    if global.output == Format::Json {
        print::json(object);
        return;
    }
    for (key, value) in object.as_object().into_iter().flatten() {
        match value {
            Value::Null => {}
            Value::String(text) => print::line(&format!("{key:<16} {text}")),
            Value::Object(inner) => {
                let inner: Vec<String> = inner.iter().map(|(k, v)| format!("{k} {}", plain(v))).collect();
                print::line(&format!("{key:<16} {}", inner.join(" · ")));
            }
            other => print::line(&format!("{key:<16} {other}")),
        }
    }
}

/// A field that is a text; empty if it is not there.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Why a job failed, in one text.
pub(crate) fn error(job: &Value) -> String {
    let message = job.pointer("/error/message").and_then(Value::as_str).unwrap_or_default();
    match job.pointer("/error/class").and_then(Value::as_str) {
        Some(class) => format!("{class}: {message}"),
        None => message.to_owned(),
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(100).collect()
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
