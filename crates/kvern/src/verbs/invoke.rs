//! `kvern invoke`: a call, or a job with or without a wait for its result.

use std::io::Read;

use bytes::Bytes;
use hyper::StatusCode;
use serde_json::Value;

use crate::cli::{Format, Global, Invoke};
use crate::client::{Answer, Client};
use crate::exit::{Code, Outcome, Stop};
use crate::print;
use crate::show;

/// Sends the input and prints the answer; the function's failure is exit code 1.
pub(crate) async fn run(global: &Global, invoke: &Invoke) -> Outcome {
    let client = Client::new(global)?;
    let body = input(invoke.data.as_deref())?;
    let headers = headers(invoke, &body);
    let name = &invoke.name;
    if invoke.asynchronous && invoke.wait.is_none() {
        let answer = client.ask("POST", &format!("/v1/functions/{name}/jobs"), &headers, body).await?.checked()?;
        return print_job(global, &answer);
    }
    let answer = client.ask("POST", &format!("/v1/functions/{name}"), &headers, body).await?;
    if answer.status == StatusCode::ACCEPTED {
        print_job(global, &answer)?;
        let job = answer.json()?;
        return Err(Stop::new(Code::TimedOut, "the job has not finished yet")
            .hint(format!("look again with `kvern jobs get {} --wait 60s`", show::text(&job, "id"))));
    }
    if !answer.status.is_success() && answer.content_type.starts_with("application/problem+json") {
        return Err(failure(&answer));
    }
    print::data(&answer.body);
    if answer.content_type.starts_with("application/json") && !answer.body.ends_with(b"\n") {
        print::line("");
    }
    if answer.status.is_success() { Ok(()) } else { Err(Stop::failed(format!("`{name}` answered {}", answer.status))) }
}

fn headers(invoke: &Invoke, body: &Bytes) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    let is_json = || serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
    match &invoke.content_type {
        Some(given) => headers.push(("content-type", given.clone())),
        None if is_json() => headers.push(("content-type", "application/json".to_owned())),
        None => {}
    }
    if let Some(wait) = invoke.wait {
        headers.push(("prefer", format!("respond-async, wait={}", wait.as_secs().max(1))));
    }
    if let Some(key) = &invoke.key {
        headers.push(("idempotency-key", key.clone()));
    }
    headers
}

/// The input: text as it is, `@FILE`, or `-` for stdin.
fn input(data: Option<&str>) -> Result<Bytes, Stop> {
    match data {
        None => Ok(Bytes::new()),
        Some("-") => {
            let mut bytes = Vec::new();
            std::io::stdin().lock().read_to_end(&mut bytes)?;
            Ok(bytes.into())
        }
        Some(text) => match text.strip_prefix('@') {
            Some(path) => std::fs::read(path)
                .map(Bytes::from)
                .map_err(|error| Stop::new(Code::Usage, format!("cannot read the input from {path}: {error}"))),
            None => Ok(Bytes::copy_from_slice(text.as_bytes())),
        },
    }
}

/// The id alone, so that a shell can keep it; everything with `-o json`.
fn print_job(global: &Global, answer: &Answer) -> Outcome {
    let job = answer.json()?;
    match global.output {
        Format::Json => print::json(&job),
        Format::Table => print::line(job.get("id").and_then(Value::as_str).unwrap_or_default()),
    }
    Ok(())
}

/// The function's failure with its trace, where there is one.
fn failure(answer: &Answer) -> Stop {
    let mut stop = answer.problem();
    let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if let Some(trace) = problem.pointer("/error/trace").and_then(Value::as_str) {
        for line in trace.trim_end().lines() {
            stop = stop.hint(line);
        }
    }
    stop
}
