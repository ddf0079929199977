//! Hello: the first sixteen bytes of each side. They stay as they are in every release, so that two releases which cannot
//! talk to each other can say so.
//!
//! ```text
//! 6b 76 65 72 6e 2d 71 75  65 75 65 00 00 00 00 01      "kvern-queue\0", version 1
//! ```
//!
//! Invalid: other bytes before the version. Another version ends the connection after both have said theirs.

use std::io;
use std::time::Duration;

use kvern_queue::Durability;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// What this release speaks. Greater by one with each change of [`crate::words`].
pub(crate) const VERSION: u32 = 1;
pub(crate) const BYTES: usize = 16;
const MAGIC: &[u8; 12] = b"kvern-queue\0";

/// Whoever has not said hello by then is not waited for.
pub(crate) const WITHIN: Duration = Duration::from_secs(5);

/// The first frame of the server, once the versions are the same.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Welcome {
    /// Another number for each start of the server.
    pub(crate) life: u64,
    pub(crate) durability: Durability,
}

/// Our hello.
pub(crate) fn ours() -> [u8; BYTES] {
    let mut hello = [0; BYTES];
    hello[..MAGIC.len()].copy_from_slice(MAGIC);
    hello[MAGIC.len()..].copy_from_slice(&VERSION.to_be_bytes());
    hello
}

/// The version of a hello; none if it is none.
pub(crate) fn version(hello: &[u8; BYTES]) -> Option<u32> {
    let (magic, version) = hello.split_at(MAGIC.len());
    let version = <[u8; 4]>::try_from(version).ok()?;
    (magic == MAGIC).then_some(u32::from_be_bytes(version))
}

/// Says our hello and gives the version of the other side; none if that is a stranger.
///
/// # Errors
/// The connection's, and [`io::ErrorKind::TimedOut`].
pub(crate) async fn exchange(stream: &mut UnixStream) -> io::Result<Option<u32>> {
    let exchanged = async {
        stream.write_all(&ours()).await?;
        let mut theirs = [0; BYTES];
        stream.read_exact(&mut theirs).await?;
        Ok(version(&theirs))
    };
    timeout(WITHIN, exchanged).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_is_known_in_every_release() {
        assert_eq!(ours()[..12], *b"kvern-queue\0");
        assert_eq!(version(&ours()), Some(VERSION));
        let mut later = ours();
        later[15] = 9;
        assert_eq!(version(&later), Some(9));
        assert_eq!(version(b"GET / HTTP/1.1\r\n"), None);
    }
}
