//! What does not go together, and where there is no way: said at once, with what to do.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use kvern_e2e::{Server, kvern, needs, socket_of, until};

use super::pair;

const MANIFEST: &str = "[functions.cat]\nexec = [\"cat\"]\n";

/// Runs `kvern serve` in the server's home, which is to end by itself: exit code and what it said.
fn serve(server: &Server, arguments: &[&str]) -> (i32, String) {
    let (code, _, said) = server.cli(&[&["serve"], arguments].concat());
    (code, said)
}

#[test]
fn wrong_roles_are_usage_errors() {
    let server = Server::start(&[("kvern.toml", MANIFEST)]);
    let cases: [(&[&str], &str); 6] = [
        (&["--role", "worker"], "a worker needs the queue of a gateway"),
        (&["--role", "gateway", "--queue", "unix:/run/q"], "is the queue of another process"),
        (&["--queue", "unix:/run/q"], "is the queue of another process"),
        (&["--role", "worker", "--queue", "unix:/run/q", "--listen", "127.0.0.1:1"], "a worker listens nowhere"),
        (&["--socket", "/run/q"], "--socket is for workers"),
        (&["--role", "boss"], "invalid value 'boss'"),
    ];
    for (arguments, words) in cases {
        let (code, said) = serve(&server, arguments);
        assert!(code == 2 && said.contains(words), "{arguments:?} ended with {code}: {said}");
    }
}

#[test]
fn a_path_that_can_be_no_socket_is_refused() {
    let server = Server::start(&[("kvern.toml", MANIFEST)]);
    let data = server.home.with_file_name("other").display().to_string();
    let listen = format!("127.0.0.1:{}", kvern_e2e::server::free_port());
    let worker = |queue: &str| serve(&server, &["--role", "worker", "--queue", queue, "--data", &data]);
    let (code, said) = worker(&format!("unix:{}/kvern.toml", server.home.display()));
    assert!(code == 2 && said.contains("it is no socket") && said.contains("--queue unix:PATH"), "{code}: {said}");
    let long = format!("{}/{}", server.home.display(), "x".repeat(120));
    let (code, said) = worker(&format!("unix:{long}"));
    assert!(code == 2 && said.contains("too long") && said.contains("107"), "{code}: {said}");
    let gateway =
        |socket: &str| serve(&server, &["--role", "gateway", "--listen", &listen, "--data", &data, "--socket", socket]);
    let (code, said) = gateway(&long);
    assert!(code == 2 && said.contains("too long") && said.contains("--socket PATH"), "{code}: {said}");
    let (code, said) = gateway("kvern.toml");
    assert!(code == 4 && said.contains("it is no socket"), "{code}: {said}");
}

#[test]
fn a_data_directory_has_one_process() {
    let (gateway, worker) = pair(&[("kvern.toml", MANIFEST)]);
    let queue = format!("unix:{}", socket_of(&gateway).display());
    let of = |data: &std::path::Path| {
        serve(&gateway, &["--role", "worker", "--queue", &queue, "--data", &data.display().to_string()])
    };
    let (code, said) = of(&worker.data);
    assert!(code == 4 && said.contains(&worker.data.display().to_string()), "two workers: {code}: {said}");
    let (code, said) = of(&gateway.data);
    assert!(code == 2 && said.contains("data directory of a gateway") && said.contains("--data DIR"), "{code}: {said}");
    let id = gateway.http.submit("cat", "1");
    assert_eq!(gateway.http.finished(&id)["state"], "succeeded", "those that were there go on");
}

#[test]
fn the_socket_is_for_its_own_user() {
    if !needs::programs(&["setpriv"]) || !rustix::process::geteuid().is_root() {
        return;
    }
    let (gateway, _worker) = pair(&[("kvern.toml", MANIFEST)]);
    let socket = socket_of(&gateway);
    let mode = std::fs::metadata(&socket).expect("a socket").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);

    // Where others may come in, and find the binary.
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).expect("a mode");
    std::fs::copy(kvern(), folder.path().join("kvern")).expect("a copy");
    std::fs::write(folder.path().join("kvern.toml"), MANIFEST).expect("a manifest");
    let there = folder.path().join("queue.sock");
    std::fs::hard_link(&socket, &there).expect("another way to it");
    let user = kvern_e2e::nobody::USER.to_string();
    let stranger = || {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
        command.arg(folder.path().join("kvern"));
        command.args(["serve", "--role", "worker", "--data", "data", "--queue", "unix:queue.sock"]);
        command.current_dir(folder.path()).stdin(Stdio::null());
        command
    };
    let refused = stranger().output().expect("it runs");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(5) && said.contains("not allowed to connect"), "{said}");

    // Somebody opened it to everyone: then the gateway asks who it is.
    std::fs::set_permissions(&there, PermissionsExt::from_mode(0o666)).expect("a mode");
    let log = folder.path().join("log");
    let mut waiting = stranger().stderr(std::fs::File::create(&log).expect("a log")).spawn().expect("it runs");
    until("it to be refused", || {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        said.contains("refused the connection").then_some(())
    });
    waiting.kill().and_then(|()| waiting.wait()).expect("it waits for ever");
    assert!(gateway.log().contains("the queue is for processes of its own user"), "{}", gateway.log());
}

#[test]
fn a_strangers_bytes_on_the_socket_harm_nobody() {
    let (gateway, _worker) = pair(&[("kvern.toml", MANIFEST)]);
    let hello = b"kvern-queue\0\0\0\0\x01";
    let huge = [&hello[..], &[0xff; 4], &[0; 4096]].concat();
    let garbage = [&hello[..], &[0, 0, 0, 9], b"\xc1garbage!"].concat();
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &hello[..], &huge, &garbage] {
        let mut stream = UnixStream::connect(socket_of(&gateway)).expect("it listens");
        // It may hang up in the middle.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
        let id = gateway.http.submit("cat", "1");
        assert_eq!(gateway.http.finished(&id)["state"], "succeeded", "after {} bytes", bytes.len());
    }
}
