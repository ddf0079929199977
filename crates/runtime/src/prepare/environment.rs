//! The environment of the programs that prepare a function: installers and interpreters.

use std::ffi::OsString;

/// What the names of our own variables begin with: our settings, and what a supervisor tells us (sd_listen_fds(3),
/// sd_notify(3)).
const OURS: [&[u8]; 3] = [b"KVERN_", b"LISTEN_", b"NOTIFY_SOCKET"];

/// The server's own, because what an installer knows of proxies and indexes stands there. But nothing of ours: installers
/// run code of strangers, and any function can read the environment of a running one. The token stands there.
pub(super) fn of_tool() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| !is_ours(name))
}

fn is_ours(name: &OsString) -> bool {
    OURS.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_with_our_name_is_ours() {
        let theirs = ["PATH", "HTTPS_PROXY", "PIP_INDEX_URL", "MY_KVERN_TOKEN", "KVERNEL"];
        assert!(!theirs.map(OsString::from).iter().any(is_ours));
        let ours = ["KVERN_TOKEN", "KVERN_TOKEN_FILE", "KVERN_LOG", "LISTEN_FDNAMES", "NOTIFY_SOCKET"];
        assert!(ours.map(OsString::from).iter().all(is_ours));
    }
}
