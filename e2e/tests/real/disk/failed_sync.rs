//! A write that cannot be made durable: whoever waits for it hears that its fate is unknown, the store takes nothing more,
//! and the server ends so that its supervisor starts another. A failed sync is never tried again: the kernel reports it
//! once and then claims success, while the disk lacks the data.

use std::path::PathBuf;

use kvern_e2e::{Answer, Server, Start, needs, until};
use tempfile::TempDir;

use super::fill::fill_log;
use super::load::{Load, MANIFEST};

/// A file of the data directory, with the system call that fails on it, and the first time that it does.
struct Fault<'a>(&'a str, &'a str, u32);

/// More calls than a start makes, and the most that `strace` counts.
const NEVER: u32 = 65_535;

struct Traced {
    server: Server,
    trace: PathBuf,
    _folder: TempDir,
    home: TempDir,
}

impl Traced {
    /// A server under `strace`, which makes one system call fail.
    fn start(fault: &Fault<'_>) -> Self {
        let (folder, home) = (private_folder(), private_folder());
        let Fault(file, call, first) = fault;
        let (data, trace) = (home.path().join("data"), folder.path().join("trace"));
        let path = data.join(file).display().to_string();
        let inject = format!("inject={call}:error=EIO:when={first}");
        let to = trace.display().to_string();
        // As a grandchild (-D), so that the server is our own child.
        let under = [
            "strace",
            "-D",
            "--seccomp-bpf",
            "-f",
            "-y",
            "-q",
            "-P",
            &path,
            "-e",
            "trace=fsync,fdatasync",
            "-e",
            &inject,
            "-e",
            "signal=none",
            "-o",
            &to,
        ];
        let files = [("kvern.toml", MANIFEST)];
        let server = Server::start_as(Start { files: &files, data: Some(&data), under: &under, ..Start::default() });
        Self { server, trace, _folder: folder, home }
    }

    fn syncs(&self) -> Vec<String> {
        self.text().lines().filter(|line| line.contains("sync(")).map(str::to_owned).collect()
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.trace).expect("a trace")
    }
}

fn private_folder() -> TempDir {
    tempfile::Builder::new().prefix("kvern-e2e-sync-").tempdir().expect("a folder")
}

/// What the refusals of a server say whose store failed under a load, and whether somebody waited for that very write. It
/// may have been one of the server's own.
pub(super) fn are_honest(refused: &[Answer]) -> bool {
    assert!(!refused.is_empty(), "somebody waited for the write that failed");
    for answer in refused {
        let problem = answer.json();
        let code = problem["code"].as_str().unwrap_or_default();
        assert!(
            answer.status == 503 && ["store_unknown", "store_unavailable", "store_closed", "stopping"].contains(&code),
            "{problem}"
        );
        assert!(answer.header("retry-after").is_some() && problem["retryable"] == true, "{problem}");
    }
    let unknown = refused.iter().find(|answer| answer.json()["code"] == "store_unknown");
    unknown.is_some_and(|unknown| {
        let unknown = unknown.json();
        assert!(unknown["hint"].as_str().is_some_and(|hint| hint.contains("same Idempotency-Key")), "{unknown}");
        true
    })
}

#[test]
fn a_failed_sync_of_the_log_is_unknown_and_the_end_of_the_server() {
    if !needs::programs(&["strace"]) {
        return;
    }
    let told = [1, 7, 30].map(|later| ends_and_loses_nothing("queue.db-wal", later));
    assert!(told.contains(&true), "nobody was ever told that it is unknown");
}

#[test]
fn a_failed_sync_of_the_database_is_the_end_of_the_server() {
    if !needs::programs(&["strace"]) {
        return;
    }
    _ = ends_and_loses_nothing("queue.db", 1);
}

/// Lets a sync fail that comes so much later than the last one of a start. Whether somebody was told that it is unknown.
fn ends_and_loses_nothing(file: &str, later: u32) -> bool {
    let of_start = u32::try_from(Traced::start(&Fault(file, "fdatasync", NEVER)).syncs().len()).expect("few");
    let mut traced = Traced::start(&Fault(file, "fdatasync", of_start + later));
    let load = Load::new(&traced.server.http);
    let status = load.during(|| {
        if file == "queue.db" {
            // It is synced when the log is copied, which these fill.
            fill_log(&traced.server.http, |answer| answer.is_none());
        }
        traced.server.wait()
    });
    assert_eq!(status.code(), Some(1), "{}", traced.server.log());
    assert!(traced.server.log().contains("look at the disk, then start again"), "{}", traced.server.log());
    // The line of a call is in two pieces where another thread came in between: its end alone says that it failed.
    let text = until("the end of the trace", || Some(traced.text()).filter(|text| text.contains("(INJECTED)")));
    let (_, later) = text.split_once("(INJECTED)").expect("it was looked for");
    assert!(!later.contains("sync("), "a sync was tried again: {text}");
    let told = file == "queue.db-wal" && are_honest(&load.heard().refused);
    traced.server.restart_alone();
    load.is_kept();
    load.nothing_is_made_up();
    drop(traced.home);
    told
}
