//! What the server tells of itself: metrics with the documented names and the right counts, and its own description.

use std::collections::BTreeSet;

use kvern_e2e::files::of_repository;
use kvern_e2e::{Server, needs, until};

const MANIFEST: &str = "\
[functions.good]
exec = [\"cat\"]

[functions.bad]
exec = [\"sh\", \"-c\", \"exit 65\"]
";

/// The value of a series, by its name and labels as the text has them.
fn series(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in:\n{text}"))
}

#[test]
fn metrics_have_the_names_in_the_documentation_and_no_others() {
    let server = Server::start(&[("kvern.toml", MANIFEST)]);
    let page = std::fs::read_to_string(of_repository("docs/http-api.md")).expect("the page");
    let names = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(name, _)| name));
    let documented: BTreeSet<&str> =
        names.filter(|name| name.starts_with("kvern_") || name.starts_with("process_")).collect();
    assert!(documented.len() >= 10, "{documented:?}");
    let text = server.http.get("/metrics").text();
    // A counter's series ends in `_total`, its family does not (OpenMetrics, section 5.1).
    let told = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let told: BTreeSet<String> =
        told.map(|(name, kind)| if kind == "counter" { format!("{name}_total") } else { name.to_owned() }).collect();
    assert_eq!(told.iter().map(String::as_str).collect::<BTreeSet<_>>(), documented);
}

#[test]
fn metrics_count_right() {
    let server = Server::start(&[("kvern.toml", MANIFEST)]);
    for id in [server.http.submit("good", "1"), server.http.submit("good", "2"), server.http.submit("bad", "3")] {
        let _ = server.http.finished(&id);
    }
    let later = server.http.post("/v1/functions/good/jobs?delay=1h", "4");
    assert_eq!(later.status, 202);
    assert_eq!(server.http.post("/v1/functions/good", "call").status, 200);
    let answer = server.http.get("/metrics");
    assert_eq!(answer.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    let text = answer.text();
    let counts = [
        ("kvern_jobs_accepted_total{function=\"good\"}", 3.0),
        ("kvern_jobs_accepted_total{function=\"bad\"}", 1.0),
        ("kvern_jobs_finished_total{function=\"good\",outcome=\"succeeded\"}", 3.0),
        ("kvern_jobs_finished_total{function=\"bad\",outcome=\"failed\"}", 1.0),
        ("kvern_jobs_running{function=\"good\"}", 0.0),
        ("kvern_queue_depth{function=\"good\",state=\"scheduled\"}", 1.0),
        ("kvern_queue_depth{function=\"good\",state=\"succeeded\"}", 2.0),
        ("kvern_queue_depth{function=\"bad\",state=\"failed\"}", 1.0),
        ("kvern_accept_seconds_count", 4.0),
        ("kvern_wait_seconds_count{function=\"good\"}", 2.0),
        ("kvern_run_seconds_count{function=\"good\"}", 3.0),
    ];
    for (name, expected) in counts {
        assert_eq!(series(&text, name), expected, "{name}");
    }
    assert!(series(&text, "kvern_fsync_seconds_count") >= 2.0);
    assert!(series(&text, "kvern_http_connections") >= 1.0);
    assert!(series(&text, "process_resident_memory_bytes") > 1e6);
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn the_description_is_json_and_its_paths_exist() {
    let server = Server::start(&[("kvern.toml", MANIFEST)]);
    let description = server.http.get("/openapi.json").json();
    assert_eq!(description["openapi"], "3.1.0");
    let paths = description["paths"].as_object().expect("paths");
    assert!(paths.len() > 10);
    let id = server.http.submit("good", "1");
    let _ = server.http.finished(&id);
    for (path, operations) in paths {
        let path = path.replace("{name}", "good").replace("{id}", &id);
        if operations.get("get").is_some() {
            assert_eq!(server.http.get(&path).status, 200, "GET {path}");
        }
    }
}

#[test]
fn functions_tell_their_settings_and_counts() {
    let server = Server::start(&[("kvern.toml", MANIFEST)]);
    let _ = server.http.finished(&server.http.submit("good", "1"));
    let good = until("a version", || {
        let good = server.http.get("/v1/functions/good").json();
        good["version"].is_string().then_some(good)
    });
    assert_eq!((&good["runs"], &good["jobs"]["succeeded"]), (&"cat".into(), &1.into()));
    let names = server.http.get("/v1/functions").json();
    assert_eq!((&names["functions"][0]["name"], &names["functions"][1]["name"]), (&"bad".into(), &"good".into()));
    assert_eq!(server.http.get("/healthz").text(), "ok\n");
    assert_eq!(server.http.get("/readyz?verbose").json()["queue"]["durability"], "fsync");
}

/// Nothing is started before it is needed, so a word that promised more than "prepared" would be a guess.
#[test]
fn a_function_is_called_live_only_once_it_has_started() {
    if !needs::programs(&["python3"]) {
        return;
    }
    let manifest = "[functions.whole]\nhandler = \"whole.py\"\n[functions.torn]\nhandler = \"torn.py\"\n\
                    retry = { attempts = 1 }\n";
    let files = [("kvern.toml", manifest), ("whole.py", "def f():\n    return 1\n"), ("torn.py", "def f(:\n")];
    let server = Server::start(&files);
    let states = || {
        let listed = server.http.get("/v1/functions").json();
        let functions = listed["functions"].as_array().cloned().unwrap_or_default();
        functions.iter().map(|function| function["state"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    until("both to be prepared", || (states() == ["ready", "ready"]).then_some(()));
    let (_, table, _) = server.cli(&["functions", "list"]);
    assert!(table.lines().skip(1).all(|line| line.trim_end().ends_with("ready")), "{table}");
    for function in ["whole", "torn"] {
        let _ = server.http.finished(&server.http.submit(function, "{}"));
    }
    assert_eq!(states(), ["broken", "live"]);
}
