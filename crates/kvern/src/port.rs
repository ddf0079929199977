//! A port to listen on; and who holds it already, from `/proc`, for the message that says so.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{fs, io};

use tokio::net::{TcpListener, TcpSocket};

/// Connections that the kernel keeps for us until we accept them: as many as we serve at once. (It keeps fewer where
/// `net.core.somaxconn` says so.) Whoever comes beyond has to ask again, a second later at the soonest.
const BACKLOG: u32 = 4096;

/// How long a port is tried whose holder is nowhere to be seen: a server that was killed leaves it, for a moment, to a child
/// that it had just forked and that does not run its own program yet.
const ORPHAN_WAIT: Duration = Duration::from_secs(1);
const ORPHAN_STEP: Duration = Duration::from_millis(5);

const LISTENING: &str = "0A";

/// A socket that listens, as the kernel tells it to everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Listening {
    uid: u32,
    inode: u64,
}

/// Listens, also where the last connections of another server are still closing.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The same, after a server that has just been killed.
pub(crate) fn listen_again(address: SocketAddr) -> io::Result<TcpListener> {
    let began = Instant::now();
    loop {
        match listen(address) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && began.elapsed() < ORPHAN_WAIT
                    && holding_process(address.port()).is_none() =>
            {
                sleep(ORPHAN_STEP);
            }
            tried => return tried,
        }
    }
}

fn holding_process(port: u16) -> Option<u32> {
    listening(port).and_then(owner_of)
}

/// The holder of a listening port, in words: `python3 (process 4121, of ada)`. Which process it is can be hidden from us:
/// that of another user, or a `kvern serve` (`secrecy.rs`). Then at least whose it is can be said.
pub(crate) fn holder(address: SocketAddr) -> Option<String> {
    let listening = listening(address.port())?;
    let process = owner_of(listening).and_then(process);
    Some(process.unwrap_or_else(|| {
        let Listening { uid, .. } = listening;
        format!("a process of {} (uid {uid}); `ss -ltnp` as root shows which", user_name(uid))
    }))
}

fn process(pid: u32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    let user = fs::metadata(format!("/proc/{pid}")).ok().map(|m| user_name(m.uid()))?;
    Some(format!("{} (process {pid}, of {user})", name.trim()))
}

/// The socket that listens on a port, from `/proc/net/tcp` and `tcp6` (proc(5)).
fn listening(port: u16) -> Option<Listening> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines().skip(1)).find_map(|line| listening_in(line, port))
}

fn listening_in(line: &str, port: u16) -> Option<Listening> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
    let is_it = u16::from_str_radix(local_port, 16).ok()? == port && *fields.get(3)? == LISTENING;
    if !is_it {
        return None;
    }
    Some(Listening { uid: fields.get(7)?.parse().ok()?, inode: fields.get(9)?.parse().ok()? })
}

fn owner_of(Listening { inode, .. }: Listening) -> Option<u32> {
    let link = format!("socket:[{inode}]");
    let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    pids.into_iter().find(|pid| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        descriptors.into_iter().any(|d| fs::read_link(d.path()).is_ok_and(|to| to.as_os_str() == link.as_str()))
    })
}

fn user_name(uid: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    found.unwrap_or_else(|| format!("user {uid}"))
}

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::{AsFd, OwnedFd};

    use rustix::net::{
        AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg,
        socketpair,
    };
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;

    /// More than the 1,024 that are usual.
    const SPIKE: usize = 1500;

    #[tokio::test]
    async fn a_spike_of_connections_finds_room() {
        let maximum = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("up to the hard limit");
        let most = fs::read_to_string("/proc/sys/net/core/somaxconn").expect("the kernel tells");
        let spike = SPIKE.min(most.trim().parse().expect("a number"));
        let listener = listen("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let connect = |_| TcpStream::connect_timeout(&address, Duration::from_millis(900));
        let refused = (0..spike).map(connect).find_map(|connected| {
            // Kept: the kernel forgets who left.
            connected.map(std::mem::forget).err()
        });
        assert!(refused.is_none(), "nobody accepts yet, but the kernel does: {refused:?}");
    }

    /// A listening socket that no process holds: it is on its way from one end of a pair to the other.
    fn nobodys() -> (SocketAddr, [OwnedFd; 2]) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (one, other) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a pair");
        let descriptors = [listener.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)), "there is space for one");
        sendmsg(&one, &[io::IoSlice::new(b"x")], &mut ancillary, SendFlags::empty()).expect("sent");
        (address, [one, other])
    }

    #[tokio::test]
    async fn a_port_that_a_dead_server_left_to_a_child_is_waited_for() {
        let (address, pair) = nobodys();
        let runtime = tokio::runtime::Handle::current();
        let listening = std::thread::spawn(move || {
            let _runtime = runtime.enter();
            listen_again(address).map(drop)
        });
        drop(pair);
        listening.join().expect("no panic").expect("it is free");
    }

    #[tokio::test]
    async fn but_not_for_ever() {
        let (address, _pair) = nobodys();
        let began = Instant::now();
        let error = listen_again(address).expect_err("it is taken");
        assert!(error.kind() == io::ErrorKind::AddrInUse && began.elapsed() >= ORPHAN_WAIT, "{error}");
    }

    #[tokio::test]
    async fn a_port_whose_holder_can_be_seen_is_refused_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let began = Instant::now();
        listen_again(listener.local_addr().expect("an address")).expect_err("it is taken");
        assert!(began.elapsed() < ORPHAN_WAIT);
    }

    #[test]
    fn we_find_ourselves() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let holder = holder(address).expect("we hold it");
        assert!(holder.contains(&format!("process {}", std::process::id())), "{holder}");
    }

    #[test]
    fn other_states_are_not_listening() {
        let line = "0: 0100007F:1F90 00000000:0000 01 00000000:00000000 00:00000000 00000000 1000 0 4242 1 0";
        assert_eq!(listening_in(line, 8080), None);
        let found = listening_in(&line.replace(" 01 ", " 0A "), 8080);
        assert_eq!(found, Some(Listening { uid: 1000, inode: 4242 }));
    }
}
