//! Tells the supervisor how far the server is (systemd's `Type=notify`, sd_notify(3)).
//!
//! ```text
//! NOTIFY_SOCKET=/run/systemd/notify   a datagram socket; `@name` for an abstract one
//! READY=1                             it serves
//! STOPPING=1                          it was told to stop, and finishes what is open
//! ```

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// It serves.
pub(crate) const READY: &str = "READY=1\n";
/// It was told to stop.
pub(crate) const STOPPING: &str = "STOPPING=1\n";

/// Tells this, if there is somebody to tell. A supervisor that cannot be told goes by its own time limits.
pub(crate) fn tell(what: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) else { return };
    if let Err(error) = send(&socket, what) {
        tracing::warn!(%error, "the supervisor at NOTIFY_SOCKET cannot be told");
    }
}

fn send(socket: &OsStr, what: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    // Full only if the supervisor hangs: that must not hang us.
    let ours = UnixDatagram::unbound()?;
    ours.set_nonblocking(true)?;
    ours.send_to_addr(what.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_sockets_are_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let name = format!("kvern-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let listeners = [UnixDatagram::bind(&path).expect("bound"), UnixDatagram::bind_addr(&address).expect("bound")];
        for (socket, listener) in [path.into_os_string(), format!("@{name}").into()].iter().zip(listeners) {
            send(socket, READY).expect("told");
            let mut heard = [0; 64];
            let bytes = listener.recv(&mut heard).expect("heard");
            assert_eq!(&heard[..bytes], b"READY=1\n");
        }
        assert!(send(OsStr::new("/no/such/socket"), READY).is_err());
    }
}
