//! What a function cannot see of its server, though it runs as the same user.

use std::fs::{File, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Child, Command, Stdio};

use kvern_e2e::files::write;
use kvern_e2e::server::free_port;
use kvern_e2e::{Http, kvern, needs, until};

/// A user who is not root and owns nothing.
const USER: u32 = 65_534;
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

/// A server that is no root's; killed when dropped.
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
    let folder = tempfile::Builder::new().prefix("kvern-e2e-").tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("others may come in");
    write(folder.path(), "kvern.toml", MANIFEST);
    write(folder.path(), "spy.sh", SPY);
    // Where the binary lies, others may not come in.
    std::fs::copy(kvern(), folder.path().join("kvern")).expect("a copy");
    std::fs::create_dir(folder.path().join("data")).expect("a folder");
    std::fs::set_permissions(folder.path().join("data"), Permissions::from_mode(0o700)).expect("a mode");
    chown(folder.path().join("data"), Some(USER), Some(USER)).expect("it is theirs");
    let http = Http { address: SocketAddr::from(([127, 0, 0, 1], free_port())) };
    let user = USER.to_string();
    let server = Command::new("setpriv")
        .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
        .arg(folder.path().join("kvern"))
        .args(["serve", "--data", "data", "--listen", &http.address.to_string()])
        .current_dir(folder.path())
        .env("KVERN_TOKEN", TOKEN)
        .stdin(Stdio::null())
        .stderr(File::create(folder.path().join("log")).expect("a file"))
        .spawn()
        .expect("it starts");
    let server = Own(server);
    until("the server to be ready", || {
        http.try_ask("GET", "/readyz", &[], b"").ok().filter(|answer| answer.status == 200)
    });
    let headers = [("authorization", &*format!("Bearer {TOKEN}"))];
    let pid = server.0.id().to_string();
    let answer = http.ask("POST", "/v1/functions/spy", &headers, pid.as_bytes());
    let seen = answer.text();
    assert_eq!(answer.status, 200, "{seen}");
    assert!(seen.contains(&format!("process {pid} of {USER}")), "it climbs up to the server, as the same user: {seen}");
    assert!(!seen.contains(TOKEN), "{seen}");
    assert!(!seen.contains("its files are seen"), "{seen}");
}
