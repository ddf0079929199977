//! `kvern.toml` from outside: what a user writes, and what a user gets.

mod bad;
mod good;
mod load;
mod never_panics;
mod schema;

use std::path::Path;

use kvern_manifest::{Defaults, Manifest, Mistakes, check};

/// A machine with four cores.
const FOUR_CORES: Defaults = Defaults { concurrency: 4 };

/// Checks a manifest that lies in the folder `app`.
fn check_text(text: &str) -> Result<Manifest, Mistakes> {
    check(text, Path::new("app/kvern.toml"), &FOUR_CORES)
}

/// Checks a manifest without mistakes.
fn good(text: &str) -> Manifest {
    check_text(text).unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}"))
}
