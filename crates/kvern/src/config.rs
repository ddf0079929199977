//! Where settings come from: flag, then `KVERN_*` environment, then file, then default.

use std::fs;
use std::path::{Path, PathBuf};

use crate::exit::{Code, Outcome, Stop};

/// The default place to listen.
pub(crate) const LISTEN: &str = "127.0.0.1:8080";

/// The default data directory: the system's for root, the user's own otherwise.
pub(crate) fn data_dir() -> Result<PathBuf, Stop> {
    default_dir("kvern")
}

/// The default data directory of a worker apart from its gateway.
pub(crate) fn worker_dir() -> Result<PathBuf, Stop> {
    default_dir("kvern-worker")
}

fn default_dir(name: &str) -> Result<PathBuf, Stop> {
    if rustix::process::geteuid().is_root() {
        return Ok(Path::new("/var/lib").join(name));
    }
    let base = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    match base.or(home) {
        Some(base) => Ok(base.join(name)),
        None => Err(Stop::usage("there is no home directory to keep data in").hint("name one with --data DIR")),
    }
}

/// A data directory around the code would be watched with it and copied into itself, and functions could not be told from
/// what is kept for them.
pub(crate) fn check_data(data: &Path, home: &Path) -> Outcome {
    if data.exists() && !data.is_dir() {
        return Err(Stop::usage(format!("{} is no folder: it cannot be the data directory", data.display()))
            .hint("leave --data out, or name a folder of its own"));
    }
    let (Ok(data), Ok(home)) = (data.canonicalize(), home.canonicalize()) else { return Ok(()) };
    if home.starts_with(&data) {
        return Err(Stop::usage(format!("{} holds the functions: it cannot be the data directory", data.display()))
            .hint("leave --data out, or name a folder of its own"));
    }
    Ok(())
}

/// The token: given, or in the file that `KVERN_TOKEN_FILE` names.
pub(crate) fn token(given: Option<String>) -> Result<Option<String>, Stop> {
    if given.is_some() {
        return not_empty(given, "KVERN_TOKEN (or --token)");
    }
    let Some(path) = std::env::var_os("KVERN_TOKEN_FILE") else { return Ok(None) };
    let text = fs::read_to_string(&path).map_err(|error| {
        let path = PathBuf::from(&path);
        Stop::new(Code::Usage, format!("cannot read the token from {}: {error}", path.display()))
            .hint("KVERN_TOKEN_FILE must name a readable file that holds the token and nothing else")
    })?;
    not_empty(Some(text.trim().to_owned()), "the file that KVERN_TOKEN_FILE names")
}

/// An empty token is what a script leaves that found no secret: it would open the server to everybody.
fn not_empty(token: Option<String>, from: &str) -> Result<Option<String>, Stop> {
    if token.as_ref().is_some_and(|token| token.trim().is_empty()) {
        return Err(Stop::usage(format!("the token in {from} is empty"))
            .hint("make one with `kvern token`, or unset the variable to go without"));
    }
    Ok(token)
}

/// A fresh token: 32 random bytes from the kernel, as hexadecimal digits.
pub(crate) fn new_token() -> Result<String, Stop> {
    use std::io::Read;
    let mut bytes = [0; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_directory_is_not_around_the_code() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = folder.path().join("app");
        std::fs::create_dir_all(home.join("state")).expect("a folder");
        for around in [folder.path(), &home, &home.join("state/..")] {
            assert!(check_data(around, &home).is_err(), "{}", around.display());
        }
        for apart in [home.join("state"), home.join(".kvern"), folder.path().join("application")] {
            assert!(check_data(&apart, &home).is_ok(), "{}", apart.display());
        }
    }
}
