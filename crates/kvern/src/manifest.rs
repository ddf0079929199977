//! Manifests, with mistakes as the command line tells them.

use std::path::Path;

use kvern_manifest::{Defaults, LoadError, Manifest};

use crate::exit::{Code, Stop};
use crate::print;

/// Reads and checks a manifest.
pub(crate) fn load(path: &Path) -> Result<Manifest, Stop> {
    kvern_manifest::load(path, &Defaults::of_this_machine()).map_err(|error| match error {
        LoadError::Mistakes(mistakes) => Stop::page(mistakes.render(print::in_colour()).trim_end()),
        LoadError::Read { path, source } if source.kind() == std::io::ErrorKind::NotFound => {
            Stop::new(Code::Usage, format!("there is no {}", path.display()))
                .hint("write one with `kvern new NAME`, or name another with `--config FILE` (`kvern check FILE`)")
        }
        LoadError::Read { path, source } => Stop::usage(format!("cannot read {}: {source}", path.display())),
    })
}

/// Checks the text of a manifest that is not written yet.
pub(crate) fn check(text: &str, path: &Path) -> Result<Manifest, Stop> {
    kvern_manifest::check(text, path, &Defaults::of_this_machine())
        .map_err(|mistakes| Stop::page(mistakes.render(print::in_colour()).trim_end()))
}
