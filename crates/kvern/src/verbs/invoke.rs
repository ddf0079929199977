//! `kvern invoke`: a call, or a job with or without a wait for its result.

use std::io::Read;
use std::time::Instant;

use bytes::Bytes;
use kvern_core::FunctionName;
use kvern_core::name::BadName;
use serde_json::Value;

use crate::cli::{Format, Global, Invoke};
use crate::client::{Answer, Client};
use crate::exit::{Code, Outcome, Stop};
use crate::{print, show, wait};

/// Sends the input and prints the answer; the function's failure is exit code 1.
pub(crate) async fn run(global: &Global, invoke: &Invoke) -> Outcome {
    // What is typed here must not become another path on the server.
    let name: FunctionName = invoke.name.parse().map_err(|bad: BadName| Stop::usage(bad.to_string()))?;
    let client = Client::new(global)?;
    let body = input(invoke.data.as_deref())?;
    let headers = headers(invoke, &body);
    if invoke.asynchronous || invoke.wait.is_some() {
        let until = invoke.wait.map(wait::deadline);
        let accepted = client.ask("POST", &format!("/v1/functions/{name}/jobs"), &headers, body).await?.checked()?;
        return match until {
            None => print_job(global, &accepted.json()?),
            Some(until) => print_end(global, &client, &name, &accepted, until).await,
        };
    }
    let answer = client.ask("POST", &format!("/v1/functions/{name}"), &headers, body).await?;
    if !answer.status.is_success() && answer.content_type.starts_with("application/problem+json") {
        return Err(failure(&answer));
    }
    print_answer(&answer);
    if answer.status.is_success() { Ok(()) } else { Err(Stop::failed(format!("`{name}` answered {}", answer.status))) }
}

/// Waits for the end of a job and prints what a call would have given, or the id of a job that has not ended.
async fn print_end(
    global: &Global,
    client: &Client,
    name: &FunctionName,
    accepted: &Answer,
    until: Instant,
) -> Outcome {
    let accepted = accepted.json()?;
    let id = show::text(&accepted, "id");
    // Whoever lost the connection still wants the job.
    let told = |stop: Stop| stop.hint(format!("the job is {id}: `kvern jobs get {id}`"));
    let job = wait::until_final(client, id, until).await.map_err(told)?;
    match show::text(&job, "state") {
        "succeeded" => {
            print_answer(&client.get(&format!("/v1/jobs/{id}/result")).await.map_err(told)?);
            Ok(())
        }
        "failed" => Err(failure_of_job(name, &job)),
        "cancelled" => Err(Stop::failed(format!("job {id} was cancelled"))),
        _ => {
            print_job(global, &accepted)?;
            Err(Stop::new(Code::TimedOut, "the job has not finished yet")
                .hint(format!("look again with `kvern jobs get {id} --wait 60s`")))
        }
    }
}

/// The function's bytes, and a line end after JSON that has none, for the prompt.
fn print_answer(answer: &Answer) {
    print::data(&answer.body);
    if answer.content_type.starts_with("application/json") && !answer.body.ends_with(b"\n") {
        print::line("");
    }
}

fn headers(invoke: &Invoke, body: &Bytes) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    let is_json = || serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
    match &invoke.content_type {
        Some(given) => headers.push(("content-type", given.clone())),
        None if is_json() => headers.push(("content-type", "application/json".to_owned())),
        None => {}
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
fn print_job(global: &Global, job: &Value) -> Outcome {
    match global.output {
        Format::Json => print::json(job),
        Format::Table => print::line(show::text(job, "id")),
    }
    Ok(())
}

/// The function's failure with its trace, where there is one.
fn failure(answer: &Answer) -> Stop {
    let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    with_trace(answer.problem(), &problem)
}

/// The same of a job, with the exit codes of a call.
fn failure_of_job(name: &FunctionName, job: &Value) -> Stop {
    let code = match job.pointer("/error/code").and_then(Value::as_str) {
        Some("bad_input") => Code::Usage,
        Some("timeout") => Code::TimedOut,
        _ => Code::Failed,
    };
    with_trace(Stop::new(code, format!("`{name}` failed: {}", show::error(job))), job)
}

fn with_trace(stop: Stop, document: &Value) -> Stop {
    let trace = document.pointer("/error/trace").and_then(Value::as_str).unwrap_or_default();
    trace.trim_end().lines().fold(stop, Stop::hint)
}
