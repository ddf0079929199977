//! `kvern functions`: list, describe, pause, resume.

use serde_json::Value;

use crate::cli::{Format, FunctionsVerb, Global};
use crate::client::Client;
use crate::exit::{Outcome, Stop};
use crate::print;
use crate::show;

/// Does what the verb says.
pub(crate) async fn run(global: &Global, verb: &FunctionsVerb) -> Outcome {
    let client = Client::new(global)?;
    match verb {
        FunctionsVerb::List => list(global, &client).await,
        FunctionsVerb::Describe { name } => {
            let function = client.get(&format!("/v1/functions/{}", checked(name)?)).await?.json()?;
            show::fields(global, &function);
            Ok(())
        }
        FunctionsVerb::Pause { name } => switch(global, &client, name, "pause", "paused").await,
        FunctionsVerb::Resume { name } => switch(global, &client, name, "resume", "resumed").await,
    }
}

async fn list(global: &Global, client: &Client) -> Outcome {
    let answer = client.get("/v1/functions").await?.json()?;
    if global.output == Format::Json {
        print::json(&answer);
        return Ok(());
    }
    let lists =
        ["functions", "removed"].map(|key| answer.get(key).and_then(Value::as_array).cloned().unwrap_or_default());
    let rows: Vec<Vec<String>> = lists.iter().flatten().map(row).collect();
    print::table(&["function", "runs", "version", "queued", "running", "succeeded", "failed", "state"], &rows);
    Ok(())
}

fn row(function: &Value) -> Vec<String> {
    let count = |state: &str| function.pointer(&format!("/jobs/{state}")).map(Value::to_string).unwrap_or_default();
    let error = function.get("error").and_then(Value::as_str).map(|error| error.lines().next().unwrap_or_default());
    let state = match (error, function.get("paused").and_then(Value::as_bool)) {
        (Some(error), _) => format!("broken: {error}"),
        (None, Some(true)) if show::text(function, "state") == "removed" => "paused, removed".to_owned(),
        (None, Some(true)) => "paused".to_owned(),
        (None, _) => show::text(function, "state").to_owned(),
    };
    let word = |key: &str| show::text(function, key).to_owned();
    vec![
        word("name"),
        word("runs"),
        word("version"),
        count("queued"),
        count("running"),
        count("succeeded"),
        count("failed"),
        state,
    ]
}

async fn switch(global: &Global, client: &Client, name: &str, verb: &str, done: &str) -> Outcome {
    let answer = client.post(&format!("/v1/functions/{}/{verb}", checked(name)?)).await?;
    match global.output {
        Format::Json => print::json(&answer.json()?),
        Format::Table => print::say(&format!("{name} {done}")),
    }
    Ok(())
}

fn checked(name: &str) -> Result<&str, Stop> {
    name.parse::<kvern_core::FunctionName>().map_err(|bad| Stop::usage(bad.to_string())).map(|_| name)
}
