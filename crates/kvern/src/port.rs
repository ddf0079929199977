//! Who holds a port: from `/proc`, for the message that says so.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;

const LISTENING: &str = "0A";

/// The holder of a listening port, in words, if it can be seen: `python3 (process 4121, of ada)`.
pub(crate) fn holder(address: SocketAddr) -> Option<String> {
    let inode = listening_inode(address.port())?;
    let pid = owner_of(&format!("socket:[{inode}]"))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    let user = fs::metadata(format!("/proc/{pid}")).ok().map(|m| user_name(m.uid()))?;
    Some(format!("{} (process {pid}, of {user})", name.trim()))
}

/// The inode of the socket that listens on a port, from `/proc/net/tcp` and `tcp6` (proc(5)).
fn listening_inode(port: u16) -> Option<u64> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines().skip(1)).find_map(|line| inode_if_listening(line, port))
}

fn inode_if_listening(line: &str, port: u16) -> Option<u64> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
    let is_it = u16::from_str_radix(local_port, 16).ok()? == port && *fields.get(3)? == LISTENING;
    if is_it { fields.get(9)?.parse().ok() } else { None }
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
        let line = "0: 0100007F:1F90 00000000:0000 01 00000000:00000000 00:00000000 00000000 0 0 4242 1 0";
        assert_eq!(inode_if_listening(line, 8080), None);
        assert_eq!(inode_if_listening(&line.replace(" 01 ", " 0A "), 8080), Some(4242));
    }
}
