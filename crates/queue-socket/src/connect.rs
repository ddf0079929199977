//! From a path to a connection that has said hello, or why not, and whether that may pass.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

use crate::frame::{codec, decode};
use crate::hello::{self, VERSION, Welcome};
use crate::socket::{SocketError, check_length};

/// A connection that has said hello.
pub(crate) struct Connected {
    pub(crate) frames: FramedRead<OwnedReadHalf, LengthDelimitedCodec>,
    pub(crate) socket: OwnedWriteHalf,
    pub(crate) welcome: Welcome,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is no such path, or nobody listens there. It may come.
    #[error("nobody listens on {path}")]
    Silent {
        /// The path.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The server said hello in another version of this.
    #[error("the queue on {path} is of another release: it speaks version {theirs}, and we speak {VERSION}")]
    Version {
        /// The path.
        path: PathBuf,
        /// Its version.
        theirs: u32,
    },
    /// The server closed the connection before it had said hello.
    #[error("the queue on {path} refused the connection, as it does to processes of other users")]
    Refused {
        /// The path.
        path: PathBuf,
    },
    /// We may not.
    #[error("not allowed to connect to {path}")]
    NotAllowed {
        /// The path.
        path: PathBuf,
    },
    /// The path can be no socket.
    #[error(transparent)]
    Unfit(SocketError),
    /// Somebody else listens there.
    #[error("what listens on {path} is no queue of kvern")]
    Stranger {
        /// The path.
        path: PathBuf,
    },
}

// === impl ConnectError ===

impl ConnectError {
    /// Whether there is no point in trying again until a person has changed something.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Silent { .. } | Self::Version { .. } | Self::Refused { .. } => false,
            Self::NotAllowed { .. } | Self::Unfit(_) | Self::Stranger { .. } => true,
        }
    }
}

/// Connects and says hello.
pub(crate) async fn connect(path: &Path) -> Result<Connected, ConnectError> {
    check_length(path).map_err(ConnectError::Unfit)?;
    let mut stream = UnixStream::connect(path).await.map_err(|error| why(path, error))?;
    let path = || path.to_owned();
    match hello::exchange(&mut stream).await {
        Ok(Some(VERSION)) => {}
        Ok(Some(theirs)) => return Err(ConnectError::Version { path: path(), theirs }),
        Ok(None) => return Err(ConnectError::Stranger { path: path() }),
        Err(source) if source.kind() == io::ErrorKind::TimedOut => {
            return Err(ConnectError::Silent { path: path(), source });
        }
        Err(_) => return Err(ConnectError::Refused { path: path() }),
    }
    let (reader, socket) = stream.into_split();
    let mut frames = FramedRead::new(reader, codec());
    let welcome = timeout(hello::WITHIN, frames.next()).await;
    match welcome.ok().flatten().and_then(Result::ok).and_then(|frame| decode(&frame)) {
        Some(welcome) => Ok(Connected { frames, socket, welcome }),
        None => Err(ConnectError::Refused { path: path() }),
    }
}

fn why(path: &Path, source: io::Error) -> ConnectError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied => ConnectError::NotAllowed { path },
        // The kernel says the same of a socket that nobody listens on and of what is no socket.
        _ if is_another_thing(&path) => ConnectError::Unfit(SocketError::NotASocket { path }),
        _ => ConnectError::Silent { path, source },
    }
}

fn is_another_thing(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| !metadata.file_type().is_socket())
}
