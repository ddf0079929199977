//! The bits stay where the user put them: the server runs in a network namespace without a route, under `strace`, and
//! whatever it and its functions write lies in the data directory or where the function itself writes.

mod namespace;
mod trace;

use std::path::{Path, PathBuf};

use kvern_e2e::{Server, Start, needs, until};
use tempfile::TempDir;

use namespace::Namespace;
use trace::{Deed, deeds};

const MANIFEST: &str = "\
[functions.python]
handler = \"work.py:work\"
memory = \"256M\"
timeout = \"10s\"

[functions.node]
handler = \"work.mjs\"

[functions.shell]
exec = [\"./work.sh\"]
route = \"POST /work\"

[functions.stray]
handler = \"work.py:stray\"
";
/// They use what a function is given: the folder of the manifest, the temporary directory, imports, the log.
const WORK_PY: &str = "\
import base64, csv, email, logging, os, socket, sqlite3, tempfile, helper

def work(event, ctx):
    print('working', ctx.job_id)
    os.makedirs('data', exist_ok=True)
    with open(f'data/python-{ctx.job_id}', 'w') as file:
        file.write('mine')
    with tempfile.TemporaryFile() as file:
        file.write(b'x' * 100000)
    return event if event else 'y' * 100000

def stray(event):
    with open(event['path'], 'w') as file:
        file.write('not where it should be')
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 53))
";
const WORK_MJS: &str = "\
import fs from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';

export default function work(event) {
  console.log('working');
  fs.mkdirSync('data', { recursive: true });
  fs.writeFileSync(join(fs.mkdtempSync(join(os.tmpdir(), 'node-')), 'file'), 'mine');
  return event ?? 'z'.repeat(100000);
}
";
const WORK_SH: &str = "#!/bin/sh\necho working >&2\nmktemp >&2\ncat\n";
const FILES: [(&str, &str); 5] = [
    ("kvern.toml", MANIFEST),
    ("work.py", WORK_PY),
    ("work.mjs", WORK_MJS),
    ("work.sh", WORK_SH),
    ("helper.py", "VALUE = 1\n"),
];
/// What the requests below ask of the disk and of the network.
const TRACED: &str = "trace=open,openat,openat2,creat,mkdir,mkdirat,mknod,mknodat,rename,renameat,renameat2,link,linkat,\
                      symlink,symlinkat,unlink,unlinkat,rmdir,truncate,chmod,fchmodat,connect,sendto,sendmsg,sendmmsg";

/// A traced server in a namespace of its own.
struct Stage {
    server: Server,
    traces: TempDir,
}

impl Stage {
    fn start(files: &[(&str, &str)]) -> Self {
        let traces = tempfile::Builder::new().prefix("kvern-e2e-strace-").tempdir().expect("a folder");
        let prefix = traces.path().join("trace").display().to_string();
        // As a grandchild (-D), so that the server is our own child; a file per process, so that no line is torn.
        let under = [
            "strace",
            "-D",
            "--seccomp-bpf",
            "-ff",
            "-y",
            "-qq",
            "-s",
            "4096",
            "-e",
            TRACED,
            "-e",
            "signal=none",
            "-o",
            &prefix,
        ];
        Self { server: Server::start_as(Start { files, under: &under, ..Start::default() }), traces }
    }

    /// Stops the server and gives what was done where it should not be.
    fn astray(mut self) -> Vec<Deed> {
        self.server.signal(rustix::process::Signal::TERM);
        assert!(self.server.wait().success());
        let deeds = deeds(self.traces.path(), &self.server.home);
        assert!(deeds.len() > 100, "the trace sees the server: {} deeds", deeds.len());
        let (data, own) = (self.server.data.clone(), self.server.home.join("data"));
        deeds
            .into_iter()
            .filter(|deed| !deed.paths.iter().all(|path| is_allowed(path, &data, &own)) || deed.leaves)
            .collect()
    }
}

/// The data directory, what a function writes into its own folder, and what is no disk: the kernel's switches for the
/// limits of a process, and the devices that forget.
fn is_allowed(path: &Path, data: &Path, own: &Path) -> bool {
    let no_disk = ["/proc", "/sys/fs/cgroup", "/dev/null", "/dev/tty", "/dev/pts"];
    path.starts_with(data) || path.starts_with(own) || no_disk.iter().any(|start| path.starts_with(start))
}

/// Everything that a server does: calls, jobs with small and large bytes, results, logs, failures, cancels, reloads.
fn use_everything(server: &Server) {
    let large = vec![b'x'; 200_000];
    let types = [("content-type", "application/octet-stream")];
    for function in ["python", "node", "shell"] {
        for body in [&b""[..], b"{\"a\": 1}", &large] {
            let path = format!("/v1/functions/{function}");
            assert_eq!(server.http.ask("POST", &path, &types, body).status, 200, "{function}");
            let accepted = server.http.ask("POST", &format!("{path}/jobs"), &types, body);
            let id = accepted.json()["id"].as_str().expect("an id").to_owned();
            assert_eq!(server.http.finished(&id)["state"], "succeeded");
            for what in ["result", "logs", "input"] {
                assert_eq!(server.http.get(&format!("/v1/jobs/{id}/{what}")).status, 200);
            }
        }
    }
    assert_eq!(server.http.post("/work", "{}").status, 202);
    for path in ["/ui", "/ui/app.js", "/metrics", "/openapi.json", "/v1/jobs", "/v1/functions", "/readyz?verbose"] {
        assert_eq!(server.http.get(path).status, 200);
    }
    let reloaded = |log: String| log.contains("\"message\":\"reloaded\"").then_some(());
    server.signal(rustix::process::Signal::HUP);
    until("the reload", || reloaded(server.log()));
}

#[test]
fn nothing_is_written_outside_the_data_directory() {
    if !needs::programs(&["strace", "python3", "node"]) {
        return;
    }
    let Some(namespace) = Namespace::new("traced") else { return };
    namespace.inside(|| {
        let stage = Stage::start(&FILES);
        use_everything(&stage.server);
        // The trace must see what it is there for, so one function does both on purpose.
        let outside = stage.traces.path().join("stray");
        let job = stage.server.http.submit("stray", &format!("{{\"path\": \"{}\"}}", outside.display()));
        let _ = stage.server.http.finished(&job);
        let (on_purpose, astray): (Vec<Deed>, Vec<Deed>) = stage
            .astray()
            .into_iter()
            .partition(|deed| deed.paths == [outside.clone()] || deed.line.contains("inet_addr(\"192.0.2.1\")"));
        assert!(astray.is_empty(), "{}", lines(&astray));
        assert!(
            on_purpose.iter().any(|deed| deed.leaves) && on_purpose.iter().any(|deed| !deed.leaves),
            "{on_purpose:?}"
        );
    });
}

#[test]
fn installing_writes_nothing_outside_the_data_directory() {
    if !needs::programs(&["strace", "python3", "node", "npm"]) {
        return;
    }
    let Some(namespace) = Namespace::new("install") else { return };
    let (wheels, wheel) = wheel();
    let requirements = format!("{}\n", wheels.path().join(wheel).display());
    let manifest = "[functions.python]\nhandler = \"p/main.py:main\"\n\n[functions.node]\nhandler = \"n/main.mjs\"\n";
    let files = [
        ("kvern.toml", manifest),
        ("p/main.py", "import tiny\n\ndef main():\n    return tiny.VALUE\n"),
        ("p/requirements.txt", &requirements),
        ("n/main.mjs", "import value from 'tiny';\nexport default () => value;\n"),
        ("n/package.json", "{\"dependencies\": {\"tiny\": \"file:./tiny\"}}"),
        ("n/tiny/package.json", "{\"name\": \"tiny\", \"version\": \"1.0.0\", \"main\": \"index.js\"}"),
        ("n/tiny/index.js", "module.exports = 7;\n"),
    ];
    namespace.inside(|| {
        let stage = Stage::start(&files);
        for function in ["python", "node"] {
            let id = stage.server.http.submit(function, "");
            let job = stage.server.http.finished(&id);
            assert_eq!(job["state"], "succeeded", "{job}");
            assert_eq!(stage.server.http.get(&format!("/v1/jobs/{id}/result")).text(), "7");
        }
        let astray = stage.astray();
        assert!(astray.is_empty(), "{}", lines(&astray));
    });
}

/// A Python package that needs no index: its folder and its name.
fn wheel() -> (TempDir, PathBuf) {
    const MAKE: &str = "\
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], 'w') as wheel:
    wheel.writestr('tiny.py', 'VALUE = 7\\n')
    wheel.writestr('tiny-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n')
    wheel.writestr('tiny-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    wheel.writestr('tiny-1.0.dist-info/RECORD', '')
";
    let folder = tempfile::Builder::new().prefix("kvern-e2e-wheel-").tempdir().expect("a folder");
    let name = PathBuf::from("tiny-1.0-py3-none-any.whl");
    let made = std::process::Command::new("python3").args(["-c", MAKE]).arg(folder.path().join(&name)).status();
    assert!(made.is_ok_and(|status| status.success()));
    (folder, name)
}

fn lines(deeds: &[Deed]) -> String {
    let mut lines: Vec<String> = deeds.iter().map(|deed| format!("{:?} {}", deed.paths, deed.line)).collect();
    lines.dedup();
    format!("{} astray:\n{}", lines.len(), lines.join("\n"))
}
