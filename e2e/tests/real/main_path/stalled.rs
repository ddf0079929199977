//! Uploads that stall: each costs the server a bounded piece of memory, below and above what is kept inline.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use kvern_e2e::{Server, until};
use rustix::process::Signal;

const MANIFEST: &str = "[functions.keep]\nexec = [\"cat\"]\n";
/// As many as make the server's own memory small beside theirs.
const UPLOADS: u64 = 400;
/// What the design allows each connection.
const EACH_BYTES_MAX: u64 = 128 << 10;
/// A server that stands still takes nothing: the kernel has room for what is sent meanwhile, or says so.
const SENT_WITHIN: Duration = Duration::from_secs(30);

#[test]
fn a_stalled_upload_takes_a_bounded_piece_of_memory() {
    let server = Server::start(&[("kvern.toml", MANIFEST)]);
    let before = resident_bytes(server.pid(), "VmRSS");
    let mut uploads: Vec<TcpStream> = (0..UPLOADS).map(|_| begin(&server)).collect();
    for (kib, kib_on_disk) in [(60, 0), (40, 100)] {
        // All at once is the worst: the pieces that go to files wait for each other with their whole beginnings.
        server.signal(Signal::STOP);
        for upload in &mut uploads {
            chunk(upload, kib << 10);
        }
        server.signal(Signal::CONT);
        until("the server to have read everything", || {
            let where_it_is = (unread_bytes(&server), stored_bytes(&server));
            where_it_is.eq(&(0, UPLOADS * (kib_on_disk << 10))).then_some(())
        });
        assert_eq!(server.http.get("/healthz").status, 200);
        let each = resident_bytes(server.pid(), "VmHWM").saturating_sub(before) / UPLOADS;
        assert!(each < EACH_BYTES_MAX, "{} KiB for each at the peak, after {kib} KiB more", each >> 10);
    }
}

fn begin(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(server.http.address).expect("the server listens");
    let head = "POST /v1/functions/keep/jobs HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.set_write_timeout(Some(SENT_WITHIN)).expect("a timeout");
    stream.write_all(head.as_bytes()).expect("sent");
    stream
}

fn chunk(stream: &mut TcpStream, bytes: usize) {
    write!(stream, "{bytes:x}\r\n").expect("sent");
    stream.write_all(&vec![b'x'; bytes]).expect("sent");
    stream.write_all(b"\r\n").expect("sent");
}

/// What is resident now (`VmRSS`), or was at most so far (`VmHWM`).
fn resident_bytes(pid: u32, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the server runs");
    let size = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':')).expect("a size");
    size.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// What lies in files.
fn stored_bytes(server: &Server) -> u64 {
    let files = std::fs::read_dir(server.data.join("blobs")).expect("a folder");
    files.map(|file| file.and_then(|file| file.metadata()).expect("a file").len()).sum()
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
