//! Reading the file.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::{Defaults, MANIFEST_BYTES_MAX, Manifest, Mistakes, check_in};

/// Why there is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read; `source` says why (not found, not allowed, not UTF-8).
    #[error("cannot read {}", path.display())]
    Read {
        /// The path, as it was given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file was read, and there are mistakes in it. The text is [`Mistakes::render`] without colour.
    #[error("{0}")]
    Mistakes(Mistakes),
}

/// Reads and checks the manifest at `path`.
///
/// # Errors
///
/// The file cannot be read, or there are mistakes in it.
pub fn load(path: &Path, defaults: &Defaults) -> Result<Manifest, LoadError> {
    let failed = |source| LoadError::Read { path: path.to_owned(), source };
    let text = read(path).map_err(failed)?;
    // Absolute, because the working directory of a server is nobody's business but its own; not canonical, because a
    // link such as `current` in a deployment should stay a link.
    let file = std::path::absolute(path).map_err(failed)?;
    let home = file.parent().unwrap_or(Path::new("/"));
    check_in(&text, path, home, defaults).map_err(LoadError::Mistakes)
}

/// The file's text. Of a file that is too long, no more is read than shows that it is.
fn read(path: &Path) -> io::Result<String> {
    let mut text = Vec::new();
    File::open(path)?.take(MANIFEST_BYTES_MAX as u64 + 1).read_to_end(&mut text)?;
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    if text.len() > MANIFEST_BYTES_MAX {
        return Err(invalid(format!("it is longer than {MANIFEST_BYTES_MAX} bytes")));
    }
    String::from_utf8(text).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let (line, byte) =
            good.iter().fold((1, 1), |(line, at), next| if *next == b'\n' { (line + 1, 1) } else { (line, at + 1) });
        invalid(format!("line {line} is not UTF-8, from its byte {byte} on"))
    })
}
