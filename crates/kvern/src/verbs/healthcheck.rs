//! `kvern healthcheck`: exit code 0 if the server lives (or is ready), for containers without a shell.

use crate::cli::{Global, Healthcheck};
use crate::client::Client;
use crate::exit::Outcome;
use crate::print;

/// Asks the server.
pub(crate) async fn run(global: &Global, check: &Healthcheck) -> Outcome {
    let path = if check.ready { "/readyz" } else { "/healthz" };
    Client::new(global)?.get(path).await?;
    print::say(if check.ready { "ready" } else { "alive" });
    Ok(())
}
