//! What a function cannot see of its server, though it runs as the same user.

use std::fs::File;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use kvern_e2e::files::write;
use kvern_e2e::nobody::{Nobody, USER};
use kvern_e2e::server::free_port;
use kvern_e2e::{Http, kvern, needs, until};

const TOKEN: &str = "s3cret-token";
/// Its input is the id of the server's process. It prints what it can read of that, and of all its ancestors.
const MANIFEST: &str = r#"
[functions.spy]
exec = ["sh", "spy.sh"]
"#;
const SPY: &str = r#"server=$(cat)
pid=$$
while [ "$pid" -gt 1 ]; do
  echo "process $pid of $(id -u), child of $(awk '/^PPid/ {print $2}' /proc/$pid/status)"
  tr "\0" "\n" </proc/$pid/environ
  [ "$pid" = "$server" ] && break
  pid=$(awk '/^PPid/ {print $2}' /proc/$pid/status)
done
head -c 1 /proc/$server/mem
ls /proc/$server/fd >/dev/null && echo "its files are seen"
exit 0
"#;

const MANIFEST_SPY: &str = "[functions.hello]\nhandler = \"hello.py\"\n";
const HELLO: &str = "def hello():\n    return 'hello'\n";
/// A package whose build needs no network. It tells its own environment, and that of the installer.
const BUILD: &str = "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n\
                     [project]\nname = \"spy\"\nversion = \"1.0\"\n";
const BACKEND: &str = r#"import os, zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    with open(os.environ["SEEN"], "ab") as seen:
        seen.write(repr(os.environ).encode() + b" of the build\n")
        seen.write(open("/proc/%d/environ" % os.getppid(), "rb").read() + b" of the installer\n")
    name = "spy-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        info = "spy-1.0.dist-info/"
        wheel.writestr("spy.py", "")
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: spy\nVersion: 1.0\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(info + "RECORD", "")
    return name
"#;
/// Stands before the real Python on PATH, as a version manager does.
const PYTHON: &str = "#!/bin/sh\necho \"$(env) of the check\" >>\"$SEEN\"\nPATH=${PATH#*:} exec python3 \"$@\"\n";

/// A server of the test's own; killed when dropped.
struct Own(Child);

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_function_does_not_see_the_environment_of_its_server() {
    if !needs::root() || !needs::programs(&["setpriv", "awk"]) {
        return;
    }
    let server = Nobody::start(&[("kvern.toml", MANIFEST), ("spy.sh", SPY)], &[("KVERN_TOKEN", TOKEN)]);
    let headers = [("authorization", &*format!("Bearer {TOKEN}"))];
    let pid = server.pid().to_string();
    let answer = server.http.ask("POST", "/v1/functions/spy", &headers, pid.as_bytes());
    let seen = answer.text();
    assert_eq!(answer.status, 200, "{seen}");
    assert!(seen.contains(&format!("process {pid} of {USER}")), "it climbs up to the server, as the same user: {seen}");
    assert!(!seen.contains(TOKEN), "{seen}");
    assert!(!seen.contains("its files are seen"), "{seen}");
}

#[test]
fn an_installer_does_not_see_the_token() {
    if !needs::programs(&["python3"]) {
        return;
    }
    let folder = tempfile::Builder::new().prefix("kvern-e2e-").tempdir().expect("a folder");
    for (name, text) in [
        ("kvern.toml", MANIFEST_SPY),
        ("hello.py", HELLO),
        ("requirements.txt", "--no-index\n./spy\n"),
        ("spy/pyproject.toml", BUILD),
        ("spy/backend.py", BACKEND),
        ("bin/python3", PYTHON),
    ] {
        write(folder.path(), name, text);
    }
    let bin = folder.path().join("bin");
    let path = std::env::var("PATH").expect("a PATH");
    let http = Http { address: SocketAddr::from(([127, 0, 0, 1], free_port())) };
    let server = Command::new(kvern())
        .args(["serve", "--data", "data", "--listen", &http.address.to_string()])
        .current_dir(folder.path())
        .env("KVERN_TOKEN", TOKEN)
        .env("SEEN", folder.path().join("seen"))
        .env("PATH", format!("{}:{path}", bin.display()))
        .stdin(Stdio::null())
        .stderr(File::create(folder.path().join("log")).expect("a file"))
        .spawn()
        .expect("it starts");
    let _server = Own(server);
    until("the server to be ready", || {
        http.try_ask("GET", "/healthz", &[], b"").ok().filter(|answer| answer.status == 200)
    });
    let headers = [("authorization", &*format!("Bearer {TOKEN}"))];
    let answer = http.ask("POST", "/v1/functions/hello", &headers, b"");
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"), "{}", answer.text());
    let seen = std::fs::read(folder.path().join("seen")).expect("it was written");
    let seen = String::from_utf8_lossy(&seen);
    for whose in ["of the check", "of the build", "of the installer"] {
        assert!(seen.contains(whose), "no environment {whose}: {seen}");
    }
    assert!(!seen.contains(TOKEN), "{seen}");
}
