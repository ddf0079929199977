//! `-o json`: one document on stdout, whatever the verb says to a person on stderr.

use kvern_e2e::Server;
use serde_json::Value;

const MANIFEST: &str = "\
[functions.good]
exec = [\"cat\"]

[functions.bad]
exec = [\"sh\", \"-c\", \"echo no >&2; exit 65\"]
";

/// Runs a verb with `-o json` and gives its one document.
#[track_caller]
fn json(server: &Server, arguments: &[&str]) -> Value {
    let (code, stdout, said) = server.cli(&[arguments, &["-o", "json"]].concat());
    assert_eq!(code, 0, "{arguments:?}: {said}");
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {stdout}"))
}

fn id(job: &Value) -> String {
    job["id"].as_str().expect("an id").to_owned()
}

#[test]
fn every_verb_prints_one_document() {
    let server = Server::start(&[("kvern.toml", MANIFEST)]);
    let good = id(&json(&server, &["invoke", "good", "--async", "-d", "{\"a\": 1}"]));
    let done = json(&server, &["jobs", "get", &good, "--wait", "30s"]);
    assert_eq!((&done["id"], &done["state"]), (&good.as_str().into(), &"succeeded".into()));
    assert_eq!(
        json(&server, &["invoke", "good", "-d", "{\"a\": 1}"]),
        serde_json::json!({ "a": 1 }),
        "the function's own"
    );
    let list = json(&server, &["jobs", "list", "--function", "good", "--state", "succeeded", "--since", "1h"]);
    assert_eq!(list["jobs"][0]["id"], good.as_str());
    let bad = id(&json(&server, &["invoke", "bad", "--async"]));
    assert_eq!(json(&server, &["jobs", "get", &bad, "--wait", "30s"])["error"]["code"], "bad_input");
    assert_eq!(json(&server, &["jobs", "retry", &bad])["id"], bad.as_str());
    let _ = server.http.finished(&bad);
    assert_eq!(json(&server, &["jobs", "retry", "--all-failed", "bad"])["retried"], 1);
    assert_eq!(json(&server, &["functions", "list"])["functions"][1]["name"], "good");
    assert_eq!(json(&server, &["functions", "describe", "good"])["runs"], "cat");
    assert_eq!(json(&server, &["functions", "pause", "good"])["paused"], true);
    let waiting = id(&json(&server, &["invoke", "good", "--async"]));
    assert_eq!(json(&server, &["jobs", "cancel", &waiting])["state"], "cancelled");
    assert_eq!(json(&server, &["functions", "resume", "good"])["paused"], false);
    assert_eq!(json(&server, &["check"])["functions"], serde_json::json!(["good", "bad"]));
    assert_eq!(json(&server, &["check", "--schema"])["type"], "object");
}

/// Several jobs are still one document.
#[test]
fn several_jobs_are_one_document() {
    let server = Server::start(&[("kvern.toml", MANIFEST)]);
    let ids = [server.http.submit("bad", ""), server.http.submit("bad", "")];
    for id in &ids {
        let _ = server.http.finished(id);
    }
    assert!(!json(&server, &["jobs", "retry", &ids[0], &ids[1]]).is_null());
}

#[test]
fn a_token_is_a_document_too() {
    let server = Server::start(&[("kvern.toml", MANIFEST)]);
    assert!(!json(&server, &["token"]).is_null());
}

/// What only tells a person something is no data; for a program it is.
#[test]
fn what_is_for_people_is_not_on_stdout() {
    let server = Server::start(&[("kvern.toml", MANIFEST)]);
    let data = server.data.display().to_string();
    let verbs: [(&[&str], &str, Value); 4] = [
        (&["healthcheck"], "/state", "alive".into()),
        (&["healthcheck", "--ready"], "/state", "ready".into()),
        (&["reload", "--data", &data], "/functions/1/error", Value::Null),
        (&["new", "other"], "/function", "other".into()),
    ];
    for (arguments, place, expected) in verbs {
        let (code, stdout, said) = server.cli(arguments);
        assert_eq!((code, stdout.as_str()), (0, ""), "{arguments:?}: {said}");
        assert!(!said.is_empty(), "{arguments:?}");
        if arguments[0] == "new" {
            std::fs::remove_file(server.home.join("kvern.toml")).expect("it was written");
            std::fs::remove_file(server.home.join("other.py")).expect("it was written");
        }
        assert_eq!(json(&server, arguments).pointer(place), Some(&expected), "{arguments:?}");
    }
    // A failure says nothing on stdout either.
    let (code, stdout, said) = server.cli(&["functions", "describe", "never-was", "-o", "json"]);
    assert_eq!((code, stdout.as_str()), (3, ""), "{said}");
    assert!(said.starts_with("error: "), "{said}");
}

/// Logs have no end while they are followed, so each line is a document.
#[test]
fn each_line_of_a_log_is_a_document() {
    let server = Server::start(&[("kvern.toml", MANIFEST)]);
    let bad = server.http.submit("bad", "");
    let _ = server.http.finished(&bad);
    let line = |arguments: &[&str]| {
        let (code, stdout, said) = server.cli(&[arguments, &["-o", "json"]].concat());
        assert_eq!((code, stdout.lines().count()), (0, 1), "{arguments:?}: {stdout}{said}");
        serde_json::from_str::<Value>(&stdout).expect("a document")
    };
    assert_eq!(line(&["jobs", "logs", &bad]), serde_json::json!({ "job": bad, "line": "no" }));
    assert_eq!(line(&["jobs", "logs", &bad, "-f"]), serde_json::json!({ "job": bad, "line": "no" }));
    assert_eq!(line(&["logs", "bad"]), serde_json::json!({ "function": "bad", "job": bad, "line": "no" }));
}

#[test]
fn bytes_are_printed_as_they_are() {
    let server = Server::start(&[("kvern.toml", MANIFEST)]);
    let job = server.http.submit("good", "no JSON\nat all");
    let _ = server.http.finished(&job);
    assert_eq!(server.cli(&["jobs", "result", &job, "-o", "json"]).1, "no JSON\nat all");
    let bad = server.http.submit("bad", "");
    let _ = server.http.finished(&bad);
    assert_eq!(server.cli(&["jobs", "logs", &bad]).1, "no\n");
    assert!(server.cli(&["logs", "bad"]).1.contains("no\n"));
    let (_, id, said) = server.cli(&["invoke", "good", "--async", "-d", "x"]);
    assert!(id.trim().parse::<String>().is_ok_and(|id| id.len() == 36) && said.is_empty(), "the id alone: {id} {said}");
}
