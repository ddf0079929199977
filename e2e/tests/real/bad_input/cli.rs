//! Command lines that cannot be followed. Where a server is asked, it goes on.

use kvern_e2e::files::write;
use kvern_e2e::{Server, needs};

use super::stage::{GOOD, Shared, nothing_is_lost, run_in, run_of, run_under};
use super::table::told;

static SERVER: Shared =
    Shared::new(&[], || Server::start(&[("kvern.toml", &format!("{GOOD}[functions.held]\nexec = [\"cat\"]\n"))]));

#[test]
fn port_taken() {
    if !needs::root() {
        return;
    }
    let Some(server) = SERVER.get() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "kvern.toml", GOOD);
    let listen = server.http.address.to_string();
    let run =
        nothing_is_lost(&server.http, || run_in(folder.path(), &["serve", "--data", "data", "--listen", &listen]));
    told("a port that is taken, as root").is(&run_of(&run));
    assert!(run.2.contains(&format!("process {}", server.pid())), "it is ours: {}", run.2);
    assert!(!folder.path().join("data").exists(), "nothing was touched");
}

#[test]
fn port_taken_by_who_knows_whom() {
    if !needs::programs(&["setpriv"]) {
        return;
    }
    let Some(server) = SERVER.get() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "kvern.toml", GOOD);
    let listen = server.http.address.to_string();
    let serve = ["serve", "--data", "data", "--listen", &listen];
    // Root without this right sees no more of the server than its own user does.
    let under: &[&str] = match rustix::process::geteuid().is_root() {
        true => &["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"],
        false => &[],
    };
    let run = nothing_is_lost(&server.http, || run_under(under, folder.path(), &serve));
    told("a port that is taken").is(&run_of(&run));
    assert!(run.2.contains(&format!("(uid {})", rustix::process::geteuid().as_raw())), "it is ours: {}", run.2);
    assert!(!folder.path().join("data").exists(), "nothing was touched");
}

#[test]
fn second_server_on_the_same_data() {
    let Some(server) = SERVER.get() else { return };
    let data = server.data.to_str().expect("a path in UTF-8");
    let serve = ["serve", "--data", data, "--listen", "127.0.0.1:0"];
    let run = nothing_is_lost(&server.http, || run_in(&server.home, &serve));
    told("a second server on the same data directory").is(&run_of(&run));
    assert!(run.2.contains(&format!("process {}", server.pid())), "it is ours: {}", run.2);
}

#[test]
fn unknown_function() {
    let Some(server) = SERVER.get() else { return };
    let run = nothing_is_lost(&server.http, || server.cli(&["invoke", "gud", "-d", "{}"]));
    told("`kvern invoke` of an unknown function").is(&run_of(&run));
}

#[test]
fn bad_job_id() {
    let Some(server) = SERVER.get() else { return };
    let run = nothing_is_lost(&server.http, || server.cli(&["jobs", "get", "42"]));
    told("`kvern jobs` with a bad id").is(&run_of(&run));
}

#[test]
fn unknown_job_id() {
    let Some(server) = SERVER.get() else { return };
    let run = nothing_is_lost(&server.http, || server.cli(&["jobs", "result", "01890a5d-ac96-774b-bcce-b302099a8057"]));
    told("`kvern jobs` with an unknown id").is(&run_of(&run));
}

#[test]
fn server_not_reachable() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = format!("http://127.0.0.1:{}", kvern_e2e::server::free_port());
    told("a server that is not there").is(&run_of(&run_in(folder.path(), &["--server", &server, "jobs", "list"])));
}

#[test]
fn wait_too_short() {
    let Some(server) = SERVER.get() else { return };
    let http = &server.http;
    assert_eq!(http.post("/v1/functions/held/pause", "").status, 200);
    let run = nothing_is_lost(http, || server.cli(&["invoke", "held", "-d", "{}", "--wait", "1s"]));
    told("`--wait` that is too short").is(&run_of(&run));
    assert_eq!(http.post("/v1/functions/held/resume", "").status, 200);
    assert_eq!(http.finished(run.1.trim())["state"], "succeeded", "the job that it named");
}

#[test]
fn key_of_a_call() {
    let folder = tempfile::tempdir().expect("a folder");
    told("`--key` of a call").is(&run_of(&run_in(folder.path(), &["invoke", "good", "--key", "k1"])));
}

#[test]
fn name_that_is_a_path() {
    let folder = tempfile::tempdir().expect("a folder");
    told("a name that is a path").is(&run_of(&run_in(folder.path(), &["invoke", "good/jobs"])));
}

#[test]
fn bad_flag() {
    let folder = tempfile::tempdir().expect("a folder");
    told("a flag that does not exist").is(&run_of(&run_in(folder.path(), &["serve", "--dta", "data"])));
}

#[test]
fn no_slot() {
    let folder = tempfile::tempdir().expect("a folder");
    told("no slot at all").is(&run_of(&run_in(folder.path(), &["serve", "--slots", "0"])));
}

#[test]
fn bad_duration() {
    let folder = tempfile::tempdir().expect("a folder");
    told("a time without a unit").is(&run_of(&run_in(folder.path(), &["invoke", "hello", "--wait", "5"])));
}

#[test]
fn new_over_an_existing_file() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "hello.py", "# mine\n");
    told("`kvern new` over an existing file").is(&run_of(&run_in(folder.path(), &["new", "hello"])));
    assert_eq!(std::fs::read_to_string(folder.path().join("hello.py")).expect("it is there"), "# mine\n");
    assert!(!folder.path().join("kvern.toml").exists(), "nothing was declared either");
}

#[test]
fn new_of_a_declared_function() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "kvern.toml", GOOD);
    told("`kvern new` of a declared function").is(&run_of(&run_in(folder.path(), &["new", "good"])));
    assert_eq!(std::fs::read_to_string(folder.path().join("kvern.toml")).expect("it is there"), GOOD);
}
