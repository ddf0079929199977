//! `kvern healthcheck`: exit code 0 if the server lives (or is ready), for containers without a shell.

use crate::cli::{Format, Global, Healthcheck};
use crate::client::Client;
use crate::exit::Outcome;
use crate::print;

/// Asks the server.
pub(crate) async fn run(global: &Global, check: &Healthcheck) -> Outcome {
    let path = if check.ready { "/readyz" } else { "/healthz" };
    Client::new(global)?.get(path).await?;
    let state = if check.ready { "ready" } else { "alive" };
    match global.output {
        Format::Table => print::say(state),
        Format::Json => print::json(&serde_json::json!({ "state": state })),
    }
    Ok(())
}
