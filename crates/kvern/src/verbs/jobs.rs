//! `kvern jobs`: list, get, result, logs, cancel, retry.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::{Format, Global, JobsVerb};
use crate::client::Client;
use crate::exit::{Code, Outcome, Stop};
use crate::verbs::logs::each_line;
use crate::{print, show, wait};

/// Does what the verb says.
pub(crate) async fn run(global: &Global, verb: &JobsVerb) -> Outcome {
    let client = Client::new(global)?;
    match verb {
        JobsVerb::List { function, state, since, limit, cursor } => {
            let filters = [("function", function), ("state", state), ("since", since), ("cursor", cursor)]
                .map(|(k, v)| (k, v.as_deref()));
            list(global, &client, &filters, *limit).await
        }
        JobsVerb::Get { id, wait } => get(global, &client, id, *wait).await,
        JobsVerb::Result { id } => result(&client, id).await,
        JobsVerb::Logs { id, follow } => logs(global, &client, id, *follow).await,
        JobsVerb::Cancel { id } => {
            let job = client.post(&format!("/v1/jobs/{}/cancel", checked(id)?)).await?.json()?;
            show::job(global, &job);
            Ok(())
        }
        JobsVerb::Retry { ids, all_failed } => match all_failed {
            None => retry(global, &client, ids).await,
            Some(function) => retry_all(global, &client, function).await,
        },
    }
}

async fn list(global: &Global, client: &Client, filters: &[(&str, Option<&str>)], limit: usize) -> Outcome {
    let mut path = format!("/v1/jobs?limit={limit}");
    for (key, value) in filters {
        if let Some(value) = value {
            path.push_str(&format!("&{key}={}", percent(value)));
        }
    }
    let page = client.get(&path).await?.json()?;
    if global.output == Format::Json {
        print::json(&page);
        return Ok(());
    }
    let jobs = page.get("jobs").and_then(Value::as_array).cloned().unwrap_or_default();
    if jobs.is_empty() {
        print::say("no jobs match");
        return Ok(());
    }
    print::table(&show::JOB_HEADINGS, &jobs.iter().map(show::job_row).collect::<Vec<_>>());
    if let Some(cursor) = page.get("next").and_then(Value::as_str) {
        print::say(&format!("more: add --cursor {cursor}"));
    }
    Ok(())
}

async fn get(global: &Global, client: &Client, id: &str, wait: Option<Duration>) -> Outcome {
    let id = checked(id)?;
    let job = match wait {
        Some(wait) => wait::until_final(client, id, wait::deadline(wait)).await?,
        None => client.get(&format!("/v1/jobs/{id}")).await?.json()?,
    };
    show::job(global, &job);
    if wait.is_some() && !wait::is_final(&job) {
        return Err(Stop::new(Code::TimedOut, format!("job {id} is still {}", show::text(&job, "state"))));
    }
    Ok(())
}

async fn result(client: &Client, id: &str) -> Outcome {
    client.stream(&format!("/v1/jobs/{}/result", checked(id)?), |piece| print::data(&piece)).await
}

async fn logs(global: &Global, client: &Client, id: &str, follow: bool) -> Outcome {
    let query = if follow { "?follow=true" } else { "" };
    let path = format!("/v1/jobs/{}/logs{query}", checked(id)?);
    if global.output == Format::Json {
        return each_line(client, &path, |line| print::json_line(&json!({ "job": id, "line": line }))).await;
    }
    let mut pending = Vec::new();
    client.stream(&path, |piece| print::log(&piece, &mut pending)).await
}

async fn retry(global: &Global, client: &Client, ids: &[String]) -> Outcome {
    let mut jobs = Vec::new();
    for id in ids {
        jobs.push(client.post(&format!("/v1/jobs/{}/retry", checked(id)?)).await?.json()?);
    }
    match (global.output, jobs.len()) {
        // Several are one document too.
        (Format::Json, 2..) => print::json(&json!({ "jobs": jobs })),
        _ => jobs.iter().for_each(|job| show::job(global, job)),
    }
    Ok(())
}

/// Retries what had failed when it was asked; a job that fails again meanwhile is not retried twice.
async fn retry_all(global: &Global, client: &Client, function: &str) -> Outcome {
    let mut ids = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/v1/jobs?function={}&state=failed&limit=500{cursor}", percent(function));
        let page = client.get(&path).await?.json()?;
        let jobs = page.get("jobs").and_then(Value::as_array).cloned().unwrap_or_default();
        ids.extend(jobs.iter().map(|job| show::text(job, "id").to_owned()));
        match page.get("next").and_then(Value::as_str) {
            Some(next) => cursor = format!("&cursor={}", percent(next)),
            None => break,
        }
    }
    let mut done = 0;
    for id in &ids {
        match client.post(&format!("/v1/jobs/{id}/retry")).await {
            Ok(_) => done += 1,
            Err(stop) => print::say(&format!("{id}: {}", stop.what)),
        }
        if done % 100 == 0 && done > 0 {
            print::say(&format!("{done} of {} queued again", ids.len()));
        }
    }
    match global.output {
        Format::Json => print::json(&json!({ "failed": ids.len(), "retried": done })),
        Format::Table => print::line(&format!("{done} of {} failed jobs of `{function}` queued again", ids.len())),
    }
    if done == ids.len() { Ok(()) } else { Err(Stop::failed("not every job could be retried")) }
}

/// The id, if it is one: what is typed here must not become another path on the server.
fn checked(id: &str) -> Result<&str, Stop> {
    match id.parse::<kvern_core::JobId>() {
        Ok(_) => Ok(id),
        Err(bad) => Err(Stop::usage(format!("`{id}` is {bad}")).hint("list ids with `kvern jobs list`")),
    }
}

/// Percent-encodes a query value (RFC 3986, section 2.3: only unreserved characters stay).
pub(crate) fn percent(value: &str) -> String {
    value.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b',' | b':' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
        out
    })
}
