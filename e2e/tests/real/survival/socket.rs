//! A socket that a supervisor opened and passes in (sd_listen_fds(3)), and what the supervisor is told (sd_notify(3)).

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Child, Stdio};

use kvern_e2e::server::PASS_SOCKET;
use kvern_e2e::wait::DEADLINE;
use kvern_e2e::{Http, Server, Start, files, kvern_under, until};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const MANIFEST: &str = "[functions.cat]\nexec = [\"cat\"]\n";

/// What `kvern serve` with these arguments says of a descriptor that is passed in and that it does not take: exit code and
/// stderr. It listens where its flag says if it does not see it.
fn refused(descriptor: OwnedFd, under: &[impl AsRef<std::ffi::OsStr>], arguments: &[&str]) -> (Option<i32>, String) {
    let folder = TempDir::new().expect("a folder");
    files::write(folder.path(), "kvern.toml", MANIFEST);
    let output = kvern_under(under)
        .args(["serve", "--data", "data"])
        .args(arguments)
        .current_dir(folder.path())
        .env_remove("KVERN_TOKEN")
        .stdin(Stdio::from(descriptor))
        .output()
        .expect("kvern runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// [`PASS_SOCKET`] with other variables.
fn passing(variables: &str) -> [String; 4] {
    PASS_SOCKET.map(|word| word.replace("LISTEN_PID=$$ LISTEN_FDS=1", variables))
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a port")
}

#[test]
fn a_wrong_descriptor_is_told_by_name() {
    let folder = TempDir::new().expect("a folder");
    let unix = UnixListener::bind(folder.path().join("socket")).expect("bound");
    let file = std::fs::File::open("/dev/null").expect("it is there");
    for (descriptor, told) in [(OwnedFd::from(unix), "this machine only"), (OwnedFd::from(file), "no socket")] {
        let (code, said) = refused(descriptor, &PASS_SOCKET, &[]);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.starts_with("error: the descriptor that was passed in") && said.contains(told), "{said}");
        assert!(said.contains("ListenStream="), "{said}");
    }
}

#[test]
fn two_sockets_are_one_too_many() {
    let two = passing("LISTEN_PID=$$ LISTEN_FDS=2");
    let (code, said) = refused(listener().into(), &two, &[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("2 sockets were passed in"), "{said}");
}

#[test]
fn a_flag_that_contradicts_the_socket_is_refused() {
    let socket = listener();
    let address = socket.local_addr().expect("an address").to_string();
    let (code, said) = refused(socket.into(), &PASS_SOCKET, &["--listen", "127.0.0.1:1"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains(&address) && said.contains("127.0.0.1:1"), "{said}");
}

#[test]
fn a_socket_that_others_can_reach_needs_a_token() {
    let open = TcpListener::bind("0.0.0.0:0").expect("a port");
    let address = open.local_addr().expect("an address").to_string();
    let (code, said) = refused(open.into(), &PASS_SOCKET, &[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains(&format!("will not listen on {address} without a token")), "{said}");
    assert!(said.contains("the socket that was passed in"), "{said}");
}

/// Its neighbour's: the variables came along with the environment of whoever started us.
#[test]
fn a_socket_for_another_process_is_left_alone() {
    let others = passing("LISTEN_PID=1 LISTEN_FDS=1");
    let (code, said) = refused(listener().into(), &others, &["--listen", "0.0.0.0:1"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("will not listen on 0.0.0.0:1 without a token"), "the flag counts: {said}");
}

#[test]
fn neither_socket_nor_variables_reach_a_function() {
    let script = "[functions.look]\nexec = [\"sh\", \"-c\", \"cat >/dev/null; readlink /proc/self/fd/*; env\"]\n";
    let server = Server::start_as(Start { files: &[("kvern.toml", script)], passes_socket: true, ..Start::default() });
    assert!(server.log().contains("was passed in"), "{}", server.log());
    let seen = server.http.post("/v1/functions/look", "{}").text();
    assert!(seen.contains("KVERN_FUNCTION=look") && seen.contains("pipe:"), "it looks: {seen}");
    assert!(!seen.contains("socket:") && !seen.contains("LISTEN_"), "{seen}");
}

#[test]
fn a_supervisor_is_told_of_readiness_and_stop() {
    let folder = TempDir::new().expect("a folder");
    files::write(folder.path(), "kvern.toml", MANIFEST);
    let notify = UnixDatagram::bind(folder.path().join("notify")).expect("bound");
    notify.set_read_timeout(Some(DEADLINE)).expect("a bound");
    let hear = || {
        let mut bytes = [0; 256];
        let length = notify.recv(&mut bytes).expect("it tells");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    let socket = listener();
    let address = socket.local_addr().expect("an address");
    let mut server = served(&folder, socket.into());
    assert_eq!(hear(), "READY=1\n");
    // Ready means that it answers; the socket alone would take the connection anyway.
    assert_eq!(Http { address }.get("/readyz").status, 200);
    kill_process(Pid::from_child(&server), Signal::TERM).expect("it runs");
    assert_eq!(hear(), "STOPPING=1\n");
    let status = until("the server to end", || server.try_wait().expect("a child"));
    assert!(status.success(), "{status}");
}

fn served(folder: &TempDir, socket: OwnedFd) -> Child {
    kvern_under(&PASS_SOCKET)
        .args(["serve", "--data", "data"])
        .current_dir(folder.path())
        .env("NOTIFY_SOCKET", folder.path().join("notify"))
        .stdin(Stdio::from(socket))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("kvern starts")
}
