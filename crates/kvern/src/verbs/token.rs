//! `kvern token`: a fresh token for `KVERN_TOKEN`.

use crate::cli::{Format, Global};
use crate::exit::Outcome;
use crate::{config, print};

/// Prints it; it is stored nowhere.
pub(crate) fn run(global: &Global) -> Outcome {
    let token = config::new_token()?;
    match global.output {
        Format::Table => print::line(&token),
        Format::Json => print::json(&serde_json::json!({ "token": token })),
    }
    Ok(())
}
