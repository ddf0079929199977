//! The exit codes of `kvern --help`, each by a case that a script meets.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use kvern_e2e::{Server, kvern, until};
use rustix::process::Signal;

const MANIFEST: &str = "\
[functions.good]
exec = [\"cat\"]

[functions.bad]
exec = [\"sh\", \"-c\", \"exit 65\"]

[functions.failing]
exec = [\"sh\", \"-c\", \"exit 1\"]

[functions.slow]
exec = [\"sleep\", \"1000\"]
timeout = \"10m\"

[functions.ticks]
exec = [\"sh\", \"-c\", \"while echo tick >&2; do sleep 0.05; done\"]
";
const NOBODY: &str = "01890000-0000-7000-8000-000000000000";

#[test]
fn each_exit_code_means_what_the_help_says() {
    let server = Server::start(&[("kvern.toml", MANIFEST)]);
    let done = server.http.submit("good", "x");
    let _ = server.http.finished(&done);
    let slow = server.http.submit("slow", "");
    let broken = server.home.join("broken.toml");
    std::fs::write(&broken, "[functions.x]\nexce = [\"cat\"]\n").expect("written");
    let broken = broken.display().to_string();
    let cases: [(i32, &[&str]); 27] = [
        (0, &["invoke", "good", "-d", "x"]),
        (0, &["invoke", "good", "-d", "x", "--wait", "30s"]),
        (1, &["invoke", "failing"]),
        // The function says that its caller sent what it cannot take.
        (2, &["invoke", "bad"]),
        (2, &["invoke", "bad", "--wait", "30s"]),
        (2, &["invoke"]),
        // A call has no key, and a name is no path.
        (2, &["invoke", "good", "--key", "k1"]),
        (2, &["invoke", "good/jobs", "-d", "x"]),
        (0, &["invoke", "good", "--key", "k1", "--async"]),
        (2, &["jobs", "list", "--color"]),
        (2, &["jobs", "get", "no-id"]),
        (2, &["jobs", "list", "--state", "sleeping"]),
        (2, &["serve", "--host", "http://kvern.lan"]),
        // An empty secret guards nothing.
        (2, &["jobs", "list", "--token", ""]),
        (2, &["check", &broken]),
        (2, &["check", "never-was.toml"]),
        (3, &["invoke", "never-was"]),
        (3, &["jobs", "get", NOBODY]),
        (3, &["functions", "describe", "never-was"]),
        (3, &["logs", "never-was"]),
        (3, &["logs", "never-was", "-f"]),
        // There is one by that name, and it has no jobs.
        (0, &["logs", "ticks"]),
        (3, &["reload", "--data", "/nonexistent"]),
        (4, &["jobs", "cancel", &done]),
        (4, &["jobs", "result", &slow]),
        (7, &["jobs", "get", &slow, "--wait", "50ms"]),
        (7, &["invoke", "slow", "--wait", "1s"]),
    ];
    for (expected, arguments) in cases {
        let (code, _, said) = server.cli(arguments);
        assert_eq!(code, expected, "{arguments:?}: {said}");
        let is_told = expected == 0 || said.contains("error") || said.contains("Usage");
        assert!(is_told, "{arguments:?} says why: {said}");
    }
}

#[test]
fn bad_input_to_a_function_is_told_apart_from_its_failure() {
    let server = Server::start(&[("kvern.toml", MANIFEST)]);
    // Exit 65 of the function is an answer of 400: the caller's input is wrong.
    let answer = server.http.post("/v1/functions/bad", "x");
    assert_eq!((answer.status, &answer.json()["code"]), (400, &"bad_input".into()));
}

#[test]
fn a_token_is_needed_where_there_is_one() {
    let server = Server::start(&[("kvern.toml", MANIFEST), ("token", "s3cret\n")]);
    let with_token = |token: Option<&str>| {
        let mut command = Command::new(kvern());
        command.args(["jobs", "list", "--server", &format!("http://{}", server.http.address)]);
        command.env_remove("KVERN_TOKEN").envs(token.map(|token| ("KVERN_TOKEN", token)));
        command.output().expect("kvern runs").status.code()
    };
    assert_eq!(with_token(None), Some(0));
    server.signal(Signal::TERM);
    drop(server);

    let guarded = Server::start_with(&[("kvern.toml", MANIFEST)], &["--token", "s3cret"]);
    let list = |arguments: &[&str]| guarded.cli(&[&["jobs", "list"], arguments].concat());
    assert_eq!(list(&[]).0, 5);
    assert_eq!(list(&["--token", "wrong"]).0, 5);
    assert_eq!(list(&["--token", "s3cret"]).0, 0);
    assert_eq!(guarded.cli(&["healthcheck"]).0, 0, "a probe needs none");
}

/// What a script leaves that found no secret would open the server to everybody.
#[test]
fn an_empty_token_starts_no_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    write("kvern.toml", MANIFEST);
    write("blank", " \n");
    let listen = format!("0.0.0.0:{}", kvern_e2e::server::free_port());
    for (arguments, name, value) in [
        (&["--token", ""][..], "KVERN_LOG", "info"),
        (&[], "KVERN_TOKEN", ""),
        (&[], "KVERN_TOKEN", "  "),
        (&[], "KVERN_TOKEN_FILE", "blank"),
    ] {
        let mut command = Command::new(kvern());
        command.args(["serve", "--data", "data", "--listen", &listen]).args(arguments).current_dir(folder.path());
        command.env_remove("KVERN_TOKEN").env_remove("KVERN_TOKEN_FILE").env(name, value);
        let output = command.output().expect("kvern runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?} {name}={value:?}: {said}");
        assert!(said.contains("is empty"), "{said}");
        assert!(!folder.path().join("data").exists(), "nothing was touched");
    }
}

#[test]
fn a_folder_is_told_from_a_file_that_is_not_there() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, words) in [("none", "there is no file none"), (".", ". is a folder")] {
        let output = Command::new(kvern()).args(["dev", name]).current_dir(folder.path()).output().expect("kvern runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words) && said.contains("kvern dev"), "{said}");
    }
}

#[test]
fn what_is_not_good_is_not_called_so() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("kvern.toml"), "").expect("written");
    let run = |arguments: &[&str]| {
        let output = Command::new(kvern()).args(arguments).current_dir(folder.path()).output().expect("kvern runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = run(&["check"]);
    assert!(code == Some(2) && said.contains("declares no function") && !said.contains("good"), "{said}");
    let (code, said) = run(&["serve", "--data", "kvern.toml", "--listen", "127.0.0.1:0"]);
    assert!(code == Some(2) && said.contains("kvern.toml is no folder"), "{said}");
}

#[test]
fn a_server_that_is_not_there_is_code_six() {
    let port = kvern_e2e::server::free_port();
    let server = format!("http://127.0.0.1:{port}");
    let output = Command::new(kvern()).args(["jobs", "list", "--server", &server]).output().expect("kvern runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(said.contains(&format!("127.0.0.1:{port}")) && said.contains("kvern dev"), "what to try: {said}");
}

#[test]
fn output_that_cannot_be_written_is_no_success() {
    let server = Server::start(&[("kvern.toml", MANIFEST)]);
    let id = server.http.submit("good", "x");
    assert_eq!(server.http.finished(&id)["state"], "succeeded");
    let run = |verb: &[&str], stdout: Stdio| {
        let mut command = Command::new(kvern());
        command.args(verb).env("KVERN_SERVER", format!("http://{}", server.http.address)).stdout(stdout);
        let output = command.stdin(Stdio::null()).output().expect("kvern runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let verbs = [
        &["jobs", "result", &id][..],
        &["jobs", "list"],
        &["jobs", "get", &id, "-o", "json"],
        &["token"],
        &["--help"],
        &["jobs", "list", "--help"],
        &["--version"],
        &["completions", "bash"],
    ];
    for verb in verbs {
        let full = std::fs::File::options().write(true).open("/dev/full").expect("full(4)");
        let (code, said) = run(verb, full.into());
        assert_eq!(code, Some(1), "{verb:?} {said}");
        assert!(said.contains("the output could not be written: No space left on device"), "{verb:?} {said}");

        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        assert_eq!(run(verb, writer.into()).0, Some(0), "{verb:?}: a reader may go");
    }
}

#[test]
fn following_ends_with_its_reader() {
    let server = Server::start(&[("kvern.toml", MANIFEST)]);
    let id = server.http.submit("ticks", "");
    until("a log of the running job", || {
        (!server.http.get(&format!("/v1/jobs/{id}/logs")).body.is_empty()).then_some(())
    });
    for verb in [&["logs", "ticks", "--follow"][..], &["jobs", "logs", &id, "--follow"]] {
        let mut command = Command::new(kvern());
        command.args(verb).env("KVERN_SERVER", format!("http://{}", server.http.address));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("kvern runs");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        assert!(lines.next().expect("a line").expect("text").contains("tick"), "{verb:?}");
        drop(lines);
        assert_eq!(child.wait().expect("it ends").code(), Some(0), "{verb:?}");
    }
}

#[test]
fn a_slip_in_the_name_of_a_function_is_told_with_what_was_meant() {
    let server = Server::start(&[("kvern.toml", MANIFEST)]);
    for verb in [&["logs", "godo"][..], &["functions", "describe", "godo"]] {
        let (code, stdout, said) = server.cli(verb);
        assert_eq!((code, stdout.as_str()), (3, ""), "{verb:?}: {said}");
        assert!(said.contains("did you mean `good`?"), "{verb:?}: {said}");
    }
}
