//! A low limit on open files: the server says 503 to what it has none for, and goes on with the rest.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use kvern_e2e::{Http, Server, Start, until};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

const MANIFEST: &str = "[functions.same]\nexec = [\"cat\"]\n";
const FILES: &[(&str, &str)] = &[("kvern.toml", MANIFEST)];

/// A connection that is kept.
struct Kept(BufReader<TcpStream>);

#[test]
fn a_full_server_answers_everybody_and_runs_its_jobs() {
    let under = ["sh", "-c", "ulimit -n 256; exec \"$0\" \"$@\""];
    let server = Server::start_as(Start { files: FILES, under: &under, ..Start::default() });
    assert!(server.log().contains("fewer connections than wanted"), "{}", server.log());
    // More than there are open files, each with a request.
    let (mut clients, answers): (Vec<Kept>, Vec<(u16, bool)>) = std::iter::repeat_with(|| {
        let mut client = Kept::to(&server.http);
        let answer = client.submit(100);
        (client, answer)
    })
    .take(300)
    .unzip();
    for (status, has_retry_after) in &answers {
        assert!(*status == 202 || (*status == 503 && *has_retry_after), "{answers:?}");
    }
    let accepted = answers.iter().filter(|(status, _)| *status == 202).count();
    assert!((64..=128).contains(&accepted), "half of the files are for connections: {accepted}");
    let first = &mut clients[0];
    assert_eq!(first.submit(100_000).0, 202, "there are files left for an upload");
    assert_eq!(first.ask("GET", "/v1/jobs", 0).0, 200, "and for a look at the jobs");
    until("all jobs to succeed", || {
        let (status, _, jobs) = first.ask("GET", "/v1/functions/same", 0);
        assert_eq!(status, 200);
        let jobs: serde_json::Value = serde_json::from_slice(&jobs).expect("JSON");
        assert_eq!(jobs["jobs"]["failed"], 0, "{jobs}");
        (jobs["jobs"]["succeeded"] == accepted + 1).then_some(())
    });
}

#[test]
fn the_limit_is_raised_as_far_as_it_goes() {
    let hard = getrlimit(Resource::Nofile).maximum;
    let under = ["sh", "-c", "ulimit -S -n 64; exec \"$0\" \"$@\""];
    let server = Server::start_as(Start { files: FILES, under: &under, ..Start::default() });
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid())).expect("the server runs");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    let words: Vec<&str> = files.split_whitespace().collect();
    assert_eq!(words[3], words[4], "{files}");
    assert_eq!(words[4].parse().ok(), hard, "{files}");
}

#[test]
fn what_needs_a_file_is_put_off_while_there_are_none() {
    let server = Server::start(FILES);
    let (mut uploader, mut looker) = (Kept::served(&server.http), Kept::served(&server.http));
    leave_no_files(&server, &mut looker);
    let (status, has_retry_after, _) = looker.ask("GET", "/v1/jobs", 0);
    assert_eq!((status, has_retry_after), (503, true));
    // The last: its connection is closed after the answer, which gives a file back.
    assert_eq!(uploader.submit(100_000), (503, true));
    limit(&server, None);
    assert_eq!(looker.ask("GET", "/v1/jobs", 0).0, 200);
    assert_eq!(looker.submit(100_000), (202, false));
}

#[test]
fn a_call_that_needs_a_file_is_put_off_and_not_called_a_failure() {
    let server = Server::start(FILES);
    let (mut caller, mut looker) = (Kept::served(&server.http), Kept::served(&server.http));
    leave_no_files(&server, &mut looker);
    let (status, has_retry_after, problem) = caller.ask("POST", "/v1/functions/same", 100_000);
    let problem = String::from_utf8_lossy(&problem);
    assert!((status, has_retry_after) == (503, true) && problem.contains("too_busy"), "{status} {problem}");
    limit(&server, None);
    let same = server.http.ask("POST", "/v1/functions/same", &[], &[b'x'; 100_000]);
    assert_eq!((same.status, same.body.len()), (200, 100_000));
}

/// Lets the server open nothing more. Two clients are connected.
fn leave_no_files(server: &Server, looker: &mut Kept) {
    until("everything else to have given its files back", || {
        let metrics = String::from_utf8(looker.ask("GET", "/metrics", 0).2).expect("text");
        let function = String::from_utf8(looker.ask("GET", "/v1/functions/same", 0).2).expect("text");
        let is_quiet = metrics.lines().any(|line| line == "kvern_http_connections 2");
        (is_quiet && function.contains(r#""state":"ready""#)).then_some(())
    });
    limit(server, Some(lowest_unused(server.pid())));
}

/// Sets the server's limit, or takes it back to the hard one, which it has from us.
fn limit(server: &Server, open_files: Option<u64>) {
    let pid = Pid::from_raw(i32::try_from(server.pid()).expect("a pid")).expect("a pid");
    let maximum = getrlimit(Resource::Nofile).maximum;
    let new = Rlimit { current: open_files.or(maximum), maximum };
    prlimit(Some(pid), Resource::Nofile, new).expect("it is our child");
}

/// The number that the next open file would get.
fn lowest_unused(pid: u32) -> u64 {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the server runs");
    let numbers: Vec<u64> =
        open.map(|entry| entry.expect("a file").file_name().to_string_lossy().parse().expect("a number")).collect();
    (0..).find(|number| !numbers.contains(number)).expect("there is one")
}

impl Kept {
    /// Accepted by the server: later there will be no file for a connection.
    fn served(http: &Http) -> Self {
        let mut client = Self::to(http);
        assert_eq!(client.ask("GET", "/healthz", 0).0, 200);
        client
    }

    fn to(http: &Http) -> Self {
        let stream = TcpStream::connect(http.address).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        Self(BufReader::new(stream))
    }

    /// Status, and whether it was told when to come again.
    fn submit(&mut self, bytes: usize) -> (u16, bool) {
        let (status, has_retry_after, _) = self.ask("POST", "/v1/functions/same/jobs", bytes);
        (status, has_retry_after)
    }

    fn ask(&mut self, method: &str, path: &str, bytes: usize) -> (u16, bool, Vec<u8>) {
        let head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {bytes}\r\n\r\n");
        let stream = self.0.get_mut();
        stream.write_all(head.as_bytes()).expect("sent");
        stream.write_all(&vec![b'x'; bytes]).expect("sent");
        let (mut status, mut length, mut has_retry_after) = (0, 0, false);
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).expect("an answer");
            let line = line.trim_end().to_lowercase();
            if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest[..3].parse().expect("a status");
            } else if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().expect("a length");
            } else if line.is_empty() {
                break;
            }
            has_retry_after |= line.starts_with("retry-after: ");
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("the body");
        (status, has_retry_after, body)
    }
}
