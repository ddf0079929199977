//! Functions that cannot start, or cannot take what they are given. The server starts all the same and says why.

use kvern_e2e::Server;

use super::stage::{GOOD, Shared, ending, has, nothing_is_lost, run_of, word};
use super::table::{Line, labelled, told};

const ONCE: &str = "retry = { attempts = 1 }\n\n";

static SERVER: Shared = Shared::new(&["python3"], || {
    let handlers = [
        ("nofile", "nofile.py:nofile"),
        ("typo", "typo.py:resise"),
        ("broken", "broken.py:broken"),
        ("leaver", "leaver.py:leaver"),
        ("unmet", "unmet/unmet.py:unmet"),
    ];
    let mut manifest = GOOD.to_owned();
    for (name, handler) in handlers {
        manifest.push_str(&format!("[functions.{name}]\nhandler = \"{handler}\"\n{ONCE}"));
    }
    for (name, program) in [("noprogram", "./thumbs"), ("notexecutable", "./notes.txt"), ("windows", "./windows.sh")] {
        manifest.push_str(&format!("[functions.{name}]\nexec = [\"{program}\"]\n{ONCE}"));
    }
    manifest.push_str("[functions.greet]\nhandler = \"greet.py:greet\"\n");
    Server::start(&[
        ("kvern.toml", &manifest),
        ("typo.py", "def resize(event):\n    return event\n"),
        ("broken.py", "def broken(event):\n    return (event\n"),
        ("leaver.py", "import sys\nprint('no settings found')\nsys.exit(3)\n"),
        ("unmet/unmet.py", "def unmet(event):\n    return event\n"),
        ("unmet/requirements.txt", "--no-index\nno-such-package-kvern==0.0.1\n"),
        ("greet.py", "def greet(name: str):\n    return name\n"),
        ("notes.txt", "to do: everything\n"),
        ("windows.sh", "#!/bin/sh\r\ncat\r\n"),
    ])
});

/// What a job of this function comes to, and what the list of functions says then.
fn broken(server: &Server, function: &str) -> Vec<Line> {
    let job = nothing_is_lost(&server.http, || server.http.finished(&server.http.submit(function, "{}")));
    assert_eq!(job["attempt"], 1, "as often as its `retry` says: {job}");
    let mut said = ending(&job);
    let described = server.http.get(&format!("/v1/functions/{function}")).json();
    let error = word(&described, "error").to_owned();
    assert!(said.iter().any(|line| line.text == error), "it says {error:?}, the job says {said:?}");
    let (code, list, _) = server.cli(&["functions", "list"]);
    assert_eq!(code, 0);
    let row = list.lines().find(|row| row.starts_with(function)).unwrap_or_default();
    assert!(row.contains(error.lines().next().unwrap_or_default()), "{row}");
    said.push(labelled("functions list", &row[row.find("broken: ").unwrap_or(row.len())..]));
    said
}

#[test]
fn handler_file_that_does_not_exist() {
    let Some(server) = SERVER.get() else { return };
    told("a handler file that does not exist").is(&broken(&server, "nofile"));
}

#[test]
fn function_that_is_not_in_the_file() {
    let Some(server) = SERVER.get() else { return };
    told("a function that is not in the file").is(&broken(&server, "typo"));
}

#[test]
fn syntax_error_in_the_handler() {
    let Some(server) = SERVER.get() else { return };
    told("a syntax error in the handler").is(&broken(&server, "broken"));
    let page = server.http.get("/v1/jobs?function=broken&limit=1").json();
    let trace = word(&page["jobs"][0]["error"], "trace");
    let place = format!("File \"{}\", line 2", server.home.join("broken.py").display());
    assert!(trace.contains(&place) && trace.contains("return (event"), "{trace}");
}

#[test]
fn handler_that_exits_at_import() {
    let Some(server) = SERVER.get() else { return };
    told("a handler that exits at import").is(&broken(&server, "leaver"));
}

#[test]
fn requirement_that_cannot_be_installed() {
    let Some(server) = SERVER.get() else { return };
    told("a requirement that cannot be installed").is(&broken(&server, "unmet"));
    let page = server.http.get("/v1/jobs?function=unmet&limit=1").json();
    let trace = word(&page["jobs"][0]["error"], "trace");
    assert!(trace.contains("no-such-package-kvern==0.0.1"), "the installer's own words: {trace}");
}

#[test]
fn program_that_does_not_exist() {
    let Some(server) = SERVER.get() else { return };
    told("a program that does not exist").is(&broken(&server, "noprogram"));
}

#[test]
fn program_that_is_not_executable() {
    let Some(server) = SERVER.get() else { return };
    told("a program that is not executable").is(&broken(&server, "notexecutable"));
}

#[test]
fn program_with_windows_line_ends() {
    let Some(server) = SERVER.get() else { return };
    let job = nothing_is_lost(&server.http, || server.http.finished(&server.http.submit("windows", "{}")));
    told("a program with Windows line ends").is(&ending(&job));
}

#[test]
fn bad_json_in_a_job() {
    let Some(server) = SERVER.get() else { return };
    let http = &server.http;
    let job = nothing_is_lost(http, || http.finished(&http.submit("greet", r#"{"name": }"#)));
    told("bad JSON in a job").is(&ending(&job));
    assert_eq!(job["attempt"], 1, "it is not tried again: {job}");
    assert_eq!(http.get(&format!("/v1/jobs/{}/input", word(&job, "id"))).text(), r#"{"name": }"#);
}

#[test]
fn bad_json_in_a_job_for_node() {
    if !has("node") {
        return;
    }
    let manifest = format!("{GOOD}[functions.greet]\nhandler = \"greet.mjs\"\n");
    let server = Server::start(&[("kvern.toml", &manifest), ("greet.mjs", "export default (event) => event.name;\n")]);
    let http = &server.http;
    let job = nothing_is_lost(http, || http.finished(&http.submit("greet", r#"{"name": }"#)));
    told("bad JSON in a job for Node").is(&ending(&job));
    assert_eq!(job["attempt"], 1, "it is not tried again: {job}");
}

#[test]
fn broken_version_beside_a_running_one() {
    let Some(server) = SERVER.get() else { return };
    // A server of its own: the manifest of the shared one stays as it is.
    let manifest = format!("{GOOD}[functions.greet]\nhandler = \"greet.py:greet\"\n");
    let files = [("kvern.toml", manifest.as_str()), ("greet.py", "def greet(name: str):\n    return name\n")];
    drop(server);
    let server = Server::start(&files);
    let call = || server.http.post("/v1/functions/greet", r#"{"name": "Ada"}"#).text();
    assert_eq!(call(), "Ada");
    kvern_e2e::files::write(&server.home, "greet.py", "def greet(name: str):\n    return (name\n");
    nothing_is_lost(&server.http, || {
        let run = server.cli(&["reload", "--data", server.data.to_str().expect("a path in UTF-8")]);
        told("a broken version at a reload").is(&run_of(&run));
        assert_eq!(call(), "Ada", "the version before goes on");
    });
    let described = server.http.get("/v1/functions/greet").json();
    assert!(word(&described, "error").contains("SyntaxError"), "{described}");
    kvern_e2e::files::write(&server.home, "greet.py", "def greet(name: str):\n    return name.upper()\n");
    let (code, _, said) = server.cli(&["reload", "--data", server.data.to_str().expect("a path in UTF-8")]);
    assert_eq!(
        (code, said.as_str(), call().as_str()),
        (0, "reloaded: good, greet\n", "ADA"),
        "what it waited for is there"
    );
}
