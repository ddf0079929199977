//! Bytes that no process of ours sends: the connection that they come over ends, and nothing else does.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use kvern_queue::Queue;
use kvern_queue_socket::{ConnectError, SocketQueue};

use crate::restarts::Setup;

const HELLO: &[u8; 16] = b"kvern-queue\0\0\0\0\x01";

/// Says this, and hears everything until the server hangs up.
fn say(path: &Path, bytes: &[u8]) -> Vec<u8> {
    let mut socket = UnixStream::connect(path).expect("it listens");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a time");
    // The server may have hung up already.
    let _ = socket.write_all(bytes);
    let _ = socket.shutdown(std::net::Shutdown::Write);
    let mut heard = Vec::new();
    match socket.read_to_end(&mut heard) {
        Ok(_) => heard,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => heard,
        Err(error) => panic!("the server does not hang up: {error}"),
    }
}

fn frame(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("a short frame");
    [&HELLO[..], &length.to_be_bytes(), bytes].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strangers_bytes_harm_nobody() {
    let t = Setup::new().await;
    let huge = [&HELLO[..], &u32::MAX.to_be_bytes(), &[0; 100]].concat();
    let above = [&HELLO[..], &((4 << 20) + 1_u32).to_be_bytes(), &[0; 100]].concat();
    let half = [&HELLO[..], &1000_u32.to_be_bytes(), &[0; 10]].concat();
    let deep = frame(&[0x91; 100_000]);
    let many = frame(&[0xdd, 0xff, 0xff, 0xff, 0xff]);
    let long = frame(&[0x92, 0x00, 0xdb, 0xff, 0xff, 0xff, 0xff]);
    let said: [&[u8]; 9] =
        [b"", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", &HELLO[..], &huge, &above, &half, &deep, &many, &long];
    for bytes in said {
        say(&t.path, bytes);
        t.submit().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_bytes_harm_nobody() {
    let t = Setup::new().await;
    let mut seed = 13_u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed.to_be_bytes()
    };
    for round in 0..300_u32 {
        let length = usize::from(random()[0]) * 3;
        let mut bytes: Vec<u8> = std::iter::repeat_with(&mut random).take(length / 8 + 1).flatten().collect();
        bytes.truncate(length);
        if round % 3 > 0 {
            // What begins as a question does, with a number and a name.
            let begin = [&[0x92, 0x07][..], if round % 2 == 0 { &[0x81, 0xa5] } else { &[0xa4] }, b"Lease"].concat();
            bytes = frame(&[&begin[..], &bytes].concat());
        }
        say(&t.path, &bytes);
    }
    t.submit().await;
    assert_eq!(t.queue.stats().functions.iter().map(|(_, counts)| counts.queued).sum::<u64>(), 1, "only ours");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_release_is_told_and_waited_for() {
    let t = Setup::new().await;
    let heard = say(&t.path, b"kvern-queue\0\0\0\0\x09");
    assert_eq!(heard, HELLO, "it hears which version we speak");

    let other = t.path.with_extension("other");
    let listener = std::os::unix::net::UnixListener::bind(&other).expect("it listens");
    let answering = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("a client");
        let mut hello = [0; 16];
        socket.read_exact(&mut hello).expect("a hello");
        socket.write_all(b"HTTP/1.1 400 Bad").expect("it hears");
    });
    let stranger = SocketQueue::open(&other).await.expect_err("no queue of ours");
    assert!(matches!(stranger, ConnectError::Stranger { .. }), "{stranger}");
    answering.join().expect("no panic");
}
