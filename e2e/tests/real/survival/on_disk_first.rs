//! A `202` leaves the server after what it promises is on the disk, and not merely with the kernel: a server that is
//! killed cannot tell the two apart, a power cut can. So the order of the system calls is looked at, with `strace`.

use std::collections::HashMap;
use std::path::Path;

use kvern_e2e::{Server, Start, needs, until};
use rustix::process::Signal;

const MANIFEST: &str = "[functions.later]\nexec = [\"true\"]\n";
const TRACED: &str =
    "trace=write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,fsync,fdatasync,sync_file_range,msync";
const LOG: &str = "queue.db-wal";

/// What a server did, in order. A write counts from its begin and a sync from its end.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Deed {
    Wrote(String),
    Synced(String),
    Answered202,
}

/// A delayed job each: nothing but the submit itself writes then. The deeds of each up to its `202`.
fn submits(bodies: &[&[u8]]) -> Vec<Vec<Deed>> {
    let folder = tempfile::Builder::new().prefix("kvern-e2e-strace-").tempdir().expect("a folder");
    let trace = folder.path().join("trace");
    let path = trace.display().to_string();
    // As a grandchild (-D), so that the server is our own child; one file for all threads, so that it has an order.
    let under =
        ["strace", "-D", "--seccomp-bpf", "-f", "-y", "-q", "-s", "32", "-e", TRACED, "-e", "signal=none", "-o", &path];
    let mut server = Server::start_as(Start { files: &[("kvern.toml", MANIFEST)], under: &under, ..Start::default() });
    for body in bodies {
        let answer = server.http.ask("POST", "/v1/functions/later/jobs?delay=1h", &[], body);
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    let pid = server.pid().to_string();
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    let text = until("the end of the trace", || {
        let text = String::from_utf8_lossy(&std::fs::read(&trace).expect("a trace")).into_owned();
        // Short numbers are padded.
        let is_end =
            |line: &str| line.strip_prefix(&pid).is_some_and(|rest| rest.trim_start().starts_with("+++ exited"));
        text.lines().any(is_end).then_some(text)
    });
    let deeds = deeds(&text, &server.data);
    let mut submits: Vec<_> = deeds.split(|deed| *deed == Deed::Answered202).map(<[Deed]>::to_vec).collect();
    submits.pop();
    assert_eq!(submits.len(), bodies.len(), "the trace has every 202: {submits:?}");
    submits
}

fn deeds(trace: &str, data: &Path) -> Vec<Deed> {
    let mut begun: HashMap<&str, Deed> = HashMap::new();
    let mut deeds = Vec::new();
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        if call.contains("resumed>") {
            deeds.extend(begun.remove(thread).filter(|_| call.ends_with(" = 0")));
            continue;
        }
        match deed(call.trim_start(), data) {
            Some(sync @ Deed::Synced(_)) if call.ends_with("<unfinished ...>") => _ = begun.insert(thread, sync),
            Some(Deed::Synced(_)) if !call.ends_with(" = 0") => {}
            other => deeds.extend(other),
        }
    }
    deeds
}

fn deed(call: &str, data: &Path) -> Option<Deed> {
    let (name, arguments) = call.split_once('(')?;
    if arguments.contains("\"HTTP/1.1 202 ") {
        return Some(Deed::Answered202);
    }
    let path = arguments.split_once('<')?.1.split_once('>')?.0;
    let path = Path::new(path).strip_prefix(data).ok()?.display().to_string();
    match name {
        "fsync" | "fdatasync" => Some(Deed::Synced(path)),
        _ if name.contains("write") => Some(Deed::Wrote(path)),
        _ => None,
    }
}

/// Where the last of these is; it must be there.
fn last(deeds: &[Deed], deed: &Deed) -> usize {
    deeds.iter().rposition(|other| other == deed).unwrap_or_else(|| panic!("no {deed:?} before the 202: {deeds:?}"))
}

#[test]
fn the_202_leaves_after_the_sync() {
    if !needs::programs(&["strace"]) {
        return;
    }
    let large = vec![b'x'; 200_000];
    let submits = submits(&[b"small", &large, b"small again"]);
    let (wrote, synced) = (|path: &str| Deed::Wrote(path.to_owned()), |path: &str| Deed::Synced(path.to_owned()));
    for deeds in &submits {
        assert!(last(deeds, &wrote(LOG)) < last(deeds, &synced(LOG)), "{deeds:?}");
    }
    // The bytes of a large input, then its name, then the row that names it.
    let deeds = &submits[1];
    let is_blob = |deed: &&Deed| matches!(deed, Deed::Wrote(path) if path.starts_with("blobs/"));
    let blob = deeds.iter().rfind(is_blob).unwrap_or_else(|| panic!("a blob was written: {deeds:?}")).clone();
    let Deed::Wrote(path) = &blob else { unreachable!("it was looked for") };
    let order = [&blob, &synced(path), &synced("blobs"), &wrote(LOG), &synced(LOG)].map(|deed| last(deeds, deed));
    assert!(order.is_sorted(), "{order:?} of {deeds:?}");
}

#[test]
fn a_sync_counts_from_its_end_and_an_answer_from_its_begin() {
    let trace = "\
7 pwrite64(9</d/queue.db-wal>, \"x\"..., 24, 0) = 24
7 fdatasync(9</d/queue.db-wal> <unfinished ...>
8 writev(5<socket:[1]>, [{iov_base=\"HTTP/1.1 202 Accepted\\r\\n\"..., iov_len=9}], 1 <unfinished ...>
7 <... fdatasync resumed>)             = 0
8 <... writev resumed>)                = 9
7 fsync(10</d/blobs>)              = 0
7 fsync(10</d/blobs>)              = -1 EIO (Input/output error)
7 write(2</elsewhere>, \"x\", 1) = 1
";
    let (log, blobs) = (LOG.to_owned(), "blobs".to_owned());
    let expected = [Deed::Wrote(log.clone()), Deed::Answered202, Deed::Synced(log), Deed::Synced(blobs)];
    assert_eq!(deeds(trace, Path::new("/d")), expected);
}
