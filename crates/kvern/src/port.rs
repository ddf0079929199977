//! Who holds a port: from `/proc`, for the message that says so.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;

const LISTENING: &str = "0A";

/// A socket that listens, as the kernel tells it to everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Listening {
    uid: u32,
    inode: u64,
}

/// The holder of a listening port, in words: `python3 (process 4121, of ada)`. Which process it is can be hidden from us:
/// that of another user, or a `kvern serve` (`secrecy.rs`). Then at least whose it is can be said.
pub(crate) fn holder(address: SocketAddr) -> Option<String> {
    let listening = listening(address.port())?;
    let process = owner_of(&format!("socket:[{}]", listening.inode)).and_then(process);
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

fn owner_of(link: &str) -> Option<u32> {
    let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    pids.into_iter().find(|pid| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        descriptors.into_iter().any(|d| fs::read_link(d.path()).is_ok_and(|to| to.as_os_str() == link))
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
    use std::net::TcpListener;

    use super::*;

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
