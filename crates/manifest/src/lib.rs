//! `kvern.toml`: as written, then checked. Only the checked form travels.
//!
//! ```text
//!  text ──▶ syntax ──▶ read ──▶ written ──▶ check ──▶ Manifest
//!           TOML       types,   the keys    bounds,
//!                      keys     as types    relations, defaults
//!             └──────────┴─────────┬───────────┘
//!                               mistake: all of them at once, each with line, column and caret
//! ```
//!
//! Read [`check`] first, then `written.rs`: it is the list of the keys, and its comments are their documentation. From
//! it come the [`schema`] and the [reference page](reference_markdown).
//!
//! The crate reads one file in [`load`] and asks for the number of cores in [`Defaults::of_this_machine`]; nothing else
//! in it looks at the machine. It does not know which flags and environment variables come before the `[server]` table.

mod address;
mod bounds;
mod check;
mod door;
mod host;
mod load;
mod mistake;
mod read;
mod reference;
mod route;
mod schema;
mod syntax;
mod units;
mod values;
mod written;

use std::path::{Path, PathBuf};

use kvern_core::Function;

pub use address::{BadAddress, listen_address};
pub use bounds::{CONCURRENCY_MAX, MANIFEST_BYTES_MAX};
pub use host::{BadHost, host_name};
pub use load::{LoadError, load};
pub use mistake::{Mistake, Mistakes};
pub use reference::reference_markdown;
pub use schema::{schema, schema_text};

/// A manifest as checked: every value within its bounds, every default filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The functions, in the order of the file; their names and their routes are unique.
    pub functions: Vec<Function>,
    /// What the file says about the server.
    pub server: ServerSettings,
    /// The path of the file, as it was given.
    pub path: PathBuf,
    /// The folder of the file: where relative paths begin. Absolute if the manifest comes from [`load`].
    pub home: PathBuf,
}

/// The `[server]` table: what it leaves out is for flags, environment variables and defaults to say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerSettings {
    /// The address of the gateway, as [`listen_address`] reads it.
    pub listen: Option<String>,
    /// The data directory; a relative one already begins at [`Manifest::home`].
    pub data: Option<PathBuf>,
    /// The queue: `sqlite`, or `unix:` and the path of a socket.
    pub queue: Option<String>,
    /// The host names that are allowed without a token, as [`host_name`] gives them.
    pub hosts: Vec<String>,
}

/// The defaults that depend on the machine, as arguments, so that [`check`] is the same everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    /// `concurrency` of a function that does not say.
    pub concurrency: u32,
}

// === impl Defaults ===

impl Defaults {
    /// One attempt at a time per core that this process may use.
    #[must_use]
    pub fn of_this_machine() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        Self { concurrency: u32::try_from(cores).unwrap_or(CONCURRENCY_MAX).min(CONCURRENCY_MAX) }
    }
}

// === impl Manifest ===

impl Manifest {
    /// The function of that name.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|function| function.name.as_str() == name)
    }
}

/// Checks the text of a manifest. No file is touched: `path` is for the messages, and its folder for relative paths.
///
/// # Errors
///
/// Every mistake in the text. After a mistake that leaves the structure of the rest in doubt (a bracket that never
/// closes) only that one.
pub fn check(text: &str, path: &Path, defaults: &Defaults) -> Result<Manifest, Mistakes> {
    let home = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    check_in(text, path, home, defaults)
}

/// [`check`] with the folder from elsewhere.
fn check_in(text: &str, path: &Path, home: &Path, defaults: &Defaults) -> Result<Manifest, Mistakes> {
    // Some editors put a byte order mark in front; it belongs to no line and no column.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut report = mistake::Report::new(text);
    let document = if text.len() > MANIFEST_BYTES_MAX {
        report.add(&(0..0), format!("a manifest has at most {MANIFEST_BYTES_MAX} bytes, this text has {}", text.len()));
        None
    } else {
        syntax::parse(text, &mut report)
    };
    let written: written::Manifest = match &document {
        Some(document) => read::document(document.get_ref(), &mut report),
        None => written::Manifest::default(),
    };
    let functions = check::functions(&written, home, defaults, &mut report);
    let server = check::server(&written, home, &mut report);
    report.finish(path)?;
    Ok(Manifest { functions, server, path: path.to_owned(), home: home.to_owned() })
}
