//! `examples/hello/flaky.py` from its first failure to green, as its README tells it.

use kvern_e2e::files::{of_repository, write};
use kvern_e2e::{Server, Start, needs, until};
use rustix::process::Signal;
use serde_json::Value;

fn version(server: &Server) -> Option<String> {
    let function = server.http.get("/v1/functions/flaky").json();
    function["version"].as_str().map(str::to_owned)
}

#[test]
fn a_function_fails_is_retried_becomes_a_dead_letter_is_mended_and_succeeds() {
    if !needs::programs(&["python3"]) {
        return;
    }
    let example = of_repository("examples/hello");
    let server = Server::start_as(Start { copy_of: Some(&example), ..Start::default() });
    let (code, id, _) = server.cli(&["invoke", "flaky", "--async", "-d", "{\"price\": 10}"]);
    assert_eq!(code, 0);
    let id = id.trim();
    let job = server.http.finished(id);
    is_a_dead_letter(&job, &server.home.join("flaky.py").display().to_string());
    let log = server.http.get(&format!("/v1/jobs/{id}/logs")).text();
    assert_eq!(log.matches("computing the price of one of 0").count(), 3, "each attempt's log is kept: {log}");
    let refused = server.http.get(&format!("/v1/jobs/{id}/result"));
    assert_eq!((refused.status, &refused.json()["code"]), (409, &"job_failed".into()));

    let source = std::fs::read_to_string(server.home.join("flaky.py")).expect("the function");
    let before = until("the first version", || version(&server));
    write(&server.home, "flaky.py", &source.replace("price / count", "price / (count or 1)"));
    server.signal(Signal::HUP);
    until("the mended version", || version(&server).filter(|now| *now != before));
    let (code, _, said) = server.cli(&["jobs", "retry", id]);
    assert_eq!(code, 0, "{said}");
    let job = server.http.finished(id);
    assert_eq!((&job["state"], &job["error"]), (&"succeeded".into(), &Value::Null), "{job}");
    assert_eq!((&job["attempt"], &job["attempts_max"]), (&4.into(), &6.into()), "a life of its own: {job}");
    let (_, shown, _) = server.cli(&["jobs", "get", id]);
    assert!(shown.contains("attempt   4/6"), "{shown}");
    let (code, result, _) = server.cli(&["jobs", "result", id]);
    assert_eq!((code, result.as_str()), (0, "{\"each\":10.0}"));
}

fn is_a_dead_letter(job: &Value, file: &str) {
    assert_eq!(
        (&job["state"], &job["failures"], &job["attempts_max"]),
        (&"failed".into(), &3.into(), &3.into()),
        "{job}"
    );
    assert_eq!((&job["error"]["class"], &job["error"]["code"]), (&"ZeroDivisionError".into(), &"exception".into()));
    let trace = job["error"]["trace"].as_str().expect("a trace");
    assert!(trace.contains(&format!("File \"{file}\", line 6, in flaky")), "{trace}");
    assert!(trace.contains("price / count"), "the line itself: {trace}");
    assert!(!trace.contains("shim"), "no frames of ours: {trace}");
    let attempts = job["attempts"].as_array().expect("attempts");
    let numbers: Vec<u64> = attempts.iter().filter_map(|attempt| attempt["number"].as_u64()).collect();
    assert_eq!(numbers, [1, 2, 3]);
    let times: Vec<&str> =
        attempts.iter().flat_map(|a| [a["started_at"].as_str(), a["finished_at"].as_str()]).flatten().collect();
    assert_eq!(times.len(), 6);
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn a_failed_attempt_tells_when_the_next_one_comes() {
    let manifest = "[functions.later]\nexec = [\"sh\", \"-c\", \"exit 75\"]\n\
                    retry = { attempts = 2, backoff = \"1h\", max_backoff = \"2h\", jitter = false }\n";
    let server = Server::start(&[("kvern.toml", manifest)]);
    let id = server.http.submit("later", "");
    let job = until("the first failure", || {
        let job = server.http.get(&format!("/v1/jobs/{id}")).json();
        (job["failures"] == 1).then_some(job)
    });
    assert_eq!((&job["state"], &job["error"]["code"]), (&"scheduled".into(), &"retry".into()), "{job}");
    let hour =
        |time: &Value| time.as_str().and_then(|t| t.get(11..13)).and_then(|h| h.parse::<u32>().ok()).expect("a time");
    assert_eq!(hour(&job["due_at"]), (hour(&job["attempts"][0]["finished_at"]) + 1) % 24, "{job}");
}
