//! Lists of jobs: filters, and pages that follow each other without a gap.

use std::collections::BTreeSet;

use kvern_e2e::{Http, Server};
use serde_json::Value;

const MANIFEST: &str = "\
[functions.good]
exec = [\"cat\"]

[functions.bad]
exec = [\"sh\", \"-c\", \"exit 65\"]
";

fn ids(page: &Value) -> Vec<String> {
    let jobs = page["jobs"].as_array().expect("jobs");
    jobs.iter().map(|job| job["id"].as_str().expect("an id").to_owned()).collect()
}

/// All pages under these filters, following the cursor.
fn pages(http: &Http, filters: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut path = format!("/v1/jobs?{filters}");
    loop {
        let page = http.get(&path).json();
        found.push(ids(&page));
        let Some(next) = page["next"].as_str() else { return found };
        assert!(found.len() < 100, "the pages do not end");
        path = format!("/v1/jobs?{filters}&cursor={next}");
    }
}

#[test]
fn filters_tell_jobs_apart() {
    let server = Server::start(&[("kvern.toml", MANIFEST)]);
    let http = &server.http;
    let good = [http.submit("good", "1"), http.submit("good", "2")];
    let bad = http.submit("bad", "3");
    let later = http.post("/v1/functions/good/jobs?delay=1h", "4").json()["id"].as_str().expect("an id").to_owned();
    for id in good.iter().chain([&bad]) {
        let _ = http.finished(id);
    }
    let listed =
        |filters: &str| ids(&http.get(&format!("/v1/jobs?{filters}")).json()).into_iter().collect::<BTreeSet<_>>();
    let set = |ids: &[&String]| ids.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    assert_eq!(listed("function=bad"), set(&[&bad]));
    assert_eq!(listed("state=succeeded"), set(&[&good[0], &good[1]]));
    assert_eq!(listed("state=failed,scheduled"), set(&[&bad, &later]));
    assert_eq!(listed("function=good&state=scheduled"), set(&[&later]));
    assert_eq!(listed("since=1h"), set(&[&good[0], &good[1], &bad, &later]));
    assert_eq!(listed("since=2999-01-01T00:00:00Z"), set(&[]));
    assert_eq!(listed("function=never-was"), set(&[]));
}

#[test]
fn pages_follow_each_other_without_a_gap_while_jobs_come() {
    let server = Server::start(&[("kvern.toml", MANIFEST)]);
    let http = &server.http;
    let mut submitted: Vec<String> = (0..11).map(|n| http.submit("good", &n.to_string())).collect();
    for id in &submitted {
        let _ = http.finished(id);
    }
    let found = pages(http, "limit=3");
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 3, 2]);
    let all: Vec<String> = found.concat();
    assert_eq!(all.iter().collect::<BTreeSet<_>>(), submitted.iter().collect(), "each once");

    let first = http.get("/v1/jobs?limit=3").json();
    submitted.push(http.submit("good", "new"));
    let _ = http.finished(submitted.last().expect("one"));
    let cursor = first["next"].as_str().expect("a cursor");
    let second = http.get(&format!("/v1/jobs?limit=3&cursor={cursor}")).json();
    assert_eq!(ids(&second), all[3..6], "a newer job moves no page");
}

/// A slip in the manifest must not make jobs disappear from sight.
#[test]
fn jobs_of_a_removed_function_are_seen() {
    let mut server = Server::start(&[("kvern.toml", MANIFEST)]);
    let data = server.data.display().to_string();
    let _ = server.http.finished(&server.http.submit("bad", ""));
    let _ = server.http.post("/v1/functions/good/pause", "");
    let waits = server.http.submit("good", "kept");
    let alone = "[functions.other]\nexec = [\"cat\"]\n";
    kvern_e2e::files::write(&server.home, "kvern.toml", alone);
    let told = "jobs wait for a function that is not in kvern.toml";
    assert_eq!(server.cli(&["reload", "--data", &data]).0, 0);
    let is_told = |line: &&str| line.contains(told) && line.contains("\"function\":\"good\",\"jobs\":1");
    assert_eq!(server.log().lines().filter(is_told).count(), 1, "{}", server.log());
    server.kill();
    server.restart();
    let log = server.log();
    assert_eq!((log.lines().filter(is_told).count(), log.matches(told).count()), (2, 2), "none waits for `bad`: {log}");
    let removed = server.http.get("/v1/functions").json()["removed"].clone();
    assert_eq!((&removed[0]["name"], &removed[0]["jobs"]["failed"]), (&"bad".into(), &1.into()), "{removed}");
    assert_eq!((&removed[1]["name"], &removed[1]["jobs"]["queued"]), (&"good".into(), &1.into()), "{removed}");
    assert_eq!((&removed[1]["state"], &removed[2]), (&"removed".into(), &Value::Null));
    let (_, table, _) = server.cli(&["functions", "list"]);
    assert!(table.lines().any(|line| line.starts_with("good ") && line.ends_with("paused, removed")), "{table}");

    kvern_e2e::files::write(&server.home, "kvern.toml", MANIFEST);
    assert_eq!(server.cli(&["reload", "--data", &data]).0, 0);
    let _ = server.http.post("/v1/functions/good/resume", "");
    assert_eq!(server.http.finished(&waits)["state"], "succeeded", "it waited for its function");
    assert_eq!(server.http.get("/v1/functions").json()["removed"], serde_json::json!([]));
}
