//! The listening socket that a supervisor passes in (systemd's socket activation, sd_listen_fds(3)).
//!
//! The supervisor opened it and keeps it: while the server restarts, connections wait in it, and none is refused.
//!
//! ```text
//! LISTEN_PID=4121 LISTEN_FDS=1        descriptor 3 is for process 4121
//! ```
//!
//! Invalid: a number that is none, more than one descriptor, and one that is no listening TCP socket.

use std::env;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::exit::{Code, Stop};

/// Takes the socket, if one was passed to this process. It is not inherited by what this process starts.
///
/// To be called before anything else is opened: a wrong number would be somebody else's descriptor.
pub(crate) fn take() -> Result<Option<TcpListener>, Stop> {
    let variable = |name| env::var_os(name).map(|text| text.to_string_lossy().into_owned());
    if !is_passed(variable("LISTEN_PID").as_deref(), variable("LISTEN_FDS").as_deref(), std::process::id())? {
        return Ok(None);
    }
    let passed = sd_listen_fds::get().map_err(|error| unfit(&error.to_string()))?;
    let socket = passed.into_iter().next().map(|(_, descriptor)| descriptor.into_std());
    socket.map(checked).transpose()
}

/// Whether one socket was passed to the process `own`. What was passed to another process is none of our business: a shell
/// that was activated, say, and started us.
fn is_passed(pid: Option<&str>, count: Option<&str>, own: u32) -> Result<bool, Stop> {
    let (Some(pid), Some(count)) = (pid, count) else { return Ok(false) };
    if pid.parse() != Ok(own) {
        return Ok(false);
    }
    match count.parse::<u32>() {
        Ok(0) => Ok(false),
        Ok(1) => Ok(true),
        Ok(several) => Err(Stop::usage(format!("{several} sockets were passed in, and the server listens on one"))
            .hint("keep one `ListenStream=` in the socket unit; for a second address, put a proxy in front")),
        Err(_) => Err(Stop::usage(format!("LISTEN_FDS is `{count}`, which is not a number of sockets"))
            .hint("whoever starts the server sets it (sd_listen_fds(3)); without it, --listen says where to listen")),
    }
}

fn checked(socket: OwnedFd) -> Result<TcpListener, Stop> {
    let family = sockopt::socket_domain(&socket).map_err(|error| unfit(&format!("it is no socket ({error})")))?;
    if ![AddressFamily::INET, AddressFamily::INET6].contains(&family) {
        return Err(unfit("it is a socket of this machine only, or of another network than IP"));
    }
    if sockopt::socket_type(&socket) != Ok(SocketType::STREAM) {
        return Err(unfit("it is a socket for datagrams"));
    }
    if sockopt::socket_acceptconn(&socket) != Ok(true) {
        return Err(unfit("it does not listen"));
    }
    fcntl_setfd(&socket, FdFlags::CLOEXEC).map_err(std::io::Error::from)?;
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn unfit(why: &str) -> Stop {
    Stop::usage(format!("the descriptor that was passed in cannot be served: {why}"))
        .hint("it must be a listening TCP socket: in the socket unit, `ListenStream=127.0.0.1:8080` and `Accept=no`")
}

/// Where the server listens: a socket that was passed in wins over the manifest, and must not contradict a flag.
pub(crate) fn place(passed: Option<SocketAddr>, flag: Option<SocketAddr>) -> Result<Option<SocketAddr>, Stop> {
    match (passed, flag) {
        (Some(passed), Some(flag)) if passed != flag => Err(Stop::new(
            Code::Usage,
            format!("--listen (or KVERN_LISTEN) says {flag}, and the socket that was passed in listens on {passed}"),
        )
        .hint("leave --listen out: the socket unit says where to listen")),
        (passed, flag) => Ok(passed.or(flag)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_socket_and_only_for_us_is_taken() {
        let is = |pid, count| is_passed(pid, count, 7).ok();
        assert_eq!(is(Some("7"), Some("1")), Some(true));
        for (pid, count) in
            [(None, None), (Some("7"), None), (None, Some("1")), (Some("8"), Some("1")), (Some("7"), Some("0"))]
        {
            assert_eq!(is(pid, count), Some(false), "{pid:?} {count:?}");
        }
        for count in ["2", "-1", "", "one"] {
            assert_eq!(is(Some("7"), Some(count)), None, "{count}");
            assert_eq!(is(Some("8"), Some(count)), Some(false), "{count} for another");
        }
    }

    #[test]
    fn a_flag_must_say_the_same_as_the_socket() {
        let address = |port: u16| Some(SocketAddr::from(([127, 0, 0, 1], port)));
        assert_eq!(place(address(1), None).ok(), Some(address(1)));
        assert_eq!(place(address(1), address(1)).ok(), Some(address(1)));
        assert_eq!(place(None, address(2)).ok(), Some(address(2)));
        assert_eq!(place(None, None).ok(), Some(None));
        let stop = place(address(1), address(2)).expect_err("they contradict each other");
        assert!(stop.what.contains("127.0.0.1:1") && stop.what.contains("127.0.0.1:2"), "{stop}");
    }

    #[test]
    fn what_is_no_listening_tcp_socket_is_refused() {
        let socket = |family, kind| rustix::net::socket(family, kind, None).expect("a socket");
        for (descriptor, told) in [
            (socket(AddressFamily::INET, SocketType::STREAM), "does not listen"),
            (socket(AddressFamily::INET, SocketType::DGRAM), "datagrams"),
            (socket(AddressFamily::UNIX, SocketType::STREAM), "this machine only"),
            (OwnedFd::from(std::fs::File::open("/dev/null").expect("it is there")), "no socket"),
        ] {
            let stop = checked(descriptor).expect_err(told);
            assert!(stop.what.contains(told) && stop.hints[0].contains("ListenStream="), "{stop}");
        }
        assert!(checked(TcpListener::bind("127.0.0.1:0").expect("a port").into()).is_ok());
        assert!(checked(TcpListener::bind("[::1]:0").expect("a port").into()).is_ok());
    }
}
