//! Uploads that stall: each costs the server a bounded piece of memory, below and above what is kept inline.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use kvern_e2e::{Server, until, until_within};

const MANIFEST: &str = "[functions.keep]\nexec = [\"cat\"]\n";
/// As many as make the server's own memory small beside theirs.
const UPLOADS: u64 = 400;
/// What the design allows each connection.
const EACH_BYTES_MAX: u64 = 128 << 10;
/// The allocator gives freed pages back as others are asked for, not at once.
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(60);

#[test]
fn a_stalled_upload_takes_a_bounded_piece_of_memory() {
    let server = Server::start(&[("kvern.toml", MANIFEST)]);
    let before = resident_bytes(server.pid());
    let mut uploads: Vec<TcpStream> = (0..UPLOADS).map(|_| begin(&server)).collect();
    for kib in [60, 40] {
        for upload in &mut uploads {
            chunk(upload, kib << 10);
        }
        until("the server to have read everything", || unread_bytes(&server).eq(&0).then_some(()));
        // What was freed is given back a moment later, as requests come and go.
        until_within(GIVEN_BACK_WITHIN, "each upload to take no more than it may", || {
            assert_eq!(server.http.get("/healthz").status, 200);
            let each = resident_bytes(server.pid()).saturating_sub(before) / UPLOADS;
            (each < EACH_BYTES_MAX).then_some(())
        });
    }
}

fn begin(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(server.http.address).expect("the server listens");
    let head = "POST /v1/functions/keep/jobs HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("sent");
    stream
}

fn chunk(stream: &mut TcpStream, bytes: usize) {
    write!(stream, "{bytes:x}\r\n").expect("sent");
    stream.write_all(&vec![b'x'; bytes]).expect("sent");
    stream.write_all(b"\r\n").expect("sent");
}

fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the server runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// What lies in the kernel on its way to the server.
fn unread_bytes(server: &Server) -> u64 {
    let port = format!(":{:04X}", server.http.address.port());
    let sockets = std::fs::read_to_string("/proc/net/tcp").expect("the kernel tells");
    let queued = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (own, other, queues) = (words.next()?, words.next()?, words.nth(1)?);
        let (sent, received) = queues.split_once(':')?;
        let queue = if own.ends_with(&port) { received } else { sent };
        (own.ends_with(&port) || other.ends_with(&port)).then(|| u64::from_str_radix(queue, 16).ok())?
    };
    sockets.lines().filter_map(queued).sum()
}
