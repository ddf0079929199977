//! The socket in the file system: for its owner alone, and taken over from a server that was killed.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// The longest path of a socket, in bytes: the kernel's own bound (unix(7)), less the zero at its end.
pub const PATH_BYTES_MAX: usize = 107;

/// A socket that listens. Its file goes with it.
#[derive(Debug)]
pub struct Socket {
    pub(crate) listener: UnixListener,
    path: PathBuf,
    /// Device and number of the file, which may be another's by the time we go.
    file: (u64, u64),
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The kernel takes no path of this length.
    #[error("the path of the socket is too long: {path} has {} bytes, and the system takes {PATH_BYTES_MAX}", path.as_os_str().len())]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// A server listens there.
    #[error("another server listens on {path}")]
    Taken {
        /// The path.
        path: PathBuf,
    },
    /// Something else is there, which is not ours to remove.
    #[error("{path} is there, and it is no socket")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// It cannot be made.
    #[error("cannot listen on {path}")]
    Io {
        /// The path.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
}

// === impl Socket ===

impl Socket {
    /// Listens. A socket that nobody listens on is left from a server that was killed, and is replaced.
    ///
    /// # Errors
    /// See [`SocketError`].
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        check_length(path)?;
        remove_stale(path)?;
        let failed = |source| SocketError::Io { path: path.to_owned(), source };
        let listener = UnixListener::bind(path).map_err(failed)?;
        // In the moment before this the mode is that of any new file. Whoever got in by then is asked who it is, as
        // everybody is.
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
        let metadata = fs::symlink_metadata(path).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned(), file: (metadata.dev(), metadata.ino()) })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let is_ours = |metadata: fs::Metadata| (metadata.dev(), metadata.ino()) == self.file;
        if fs::symlink_metadata(&self.path).is_ok_and(is_ours) {
            // A file that stays is taken over by the next server.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Refuses a path that the kernel would refuse in other words.
pub(crate) fn check_length(path: &Path) -> Result<(), SocketError> {
    if path.as_os_str().len() > PATH_BYTES_MAX {
        return Err(SocketError::TooLong { path: path.to_owned() });
    }
    Ok(())
}

fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let failed = |source| SocketError::Io { path: path.to_owned(), source };
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(SocketError::NotASocket { path: path.to_owned() });
    }
    match BlockingStream::connect(path) {
        Ok(_) => Err(SocketError::Taken { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_for_its_owner_and_goes_with_its_server() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("queue.sock");
        let socket = Socket::bind(&path).expect("it listens");
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
        assert!(matches!(Socket::bind(&path), Err(SocketError::Taken { .. })));
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_taken_over_and_a_file_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("queue.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("it listens"));
        assert!(path.exists(), "a plain listener leaves its file, as a kill does");
        let first = Socket::bind(&path).expect("it is taken over");
        fs::remove_file(&path).expect("it is there");
        let second = Socket::bind(&path).expect("it listens");
        drop(first);
        assert!(path.exists(), "what another made since is not removed");
        drop(second);

        fs::write(&path, "notes").expect("a file");
        assert!(matches!(Socket::bind(&path), Err(SocketError::NotASocket { .. })));
        assert_eq!(fs::read(&path).expect("it is there"), b"notes");
        let long = dir.path().join("x".repeat(PATH_BYTES_MAX));
        let said = Socket::bind(&long).expect_err("too long").to_string();
        assert!(said.contains("takes 107"), "{said}");
    }
}
