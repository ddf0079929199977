//! The environment of the programs that prepare a function: installers and interpreters.

use std::ffi::OsString;

/// The server's own, because what an installer knows of proxies and indexes stands there. But nothing of ours: installers
/// run code of strangers, and any function can read the environment of a running one. The token stands there.
pub(super) fn of_tool() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| !is_ours(name))
}

fn is_ours(name: &OsString) -> bool {
    name.as_encoded_bytes().starts_with(b"KVERN_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_with_our_name_is_ours() {
        let theirs = ["PATH", "HTTPS_PROXY", "PIP_INDEX_URL", "MY_KVERN_TOKEN", "KVERNEL"];
        assert!(!theirs.map(OsString::from).iter().any(is_ours));
        assert!(["KVERN_TOKEN", "KVERN_TOKEN_FILE", "KVERN_LOG"].map(OsString::from).iter().all(is_ours));
    }
}
