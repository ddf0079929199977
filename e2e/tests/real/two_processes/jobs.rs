//! Jobs: submitted to one process, run by the other.

use std::time::{Duration, Instant};

use super::{bytes, job, pair, runs};

const MANIFEST: &str = "\
[functions.hello]
handler = \"hello.py:hello\"

[functions.cat]
exec = [\"cat\"]

[functions.long]
exec = [\"sh\", \"-c\", \"echo begun >&2; exec sleep 1000\"]
";

const HELLO: &str = "\
def hello(name='world'):
    print('greeting', name)
    return {'hello': name}
";

#[test]
fn a_job_goes_through_two_processes() {
    let (gateway, worker) = pair(&[("kvern.toml", MANIFEST), ("hello.py", HELLO)]);
    let id = gateway.http.submit("hello", "{\"name\":\"Ada\"}");
    let record = gateway.http.finished(&id);
    assert_eq!((record["state"].as_str(), record["attempt"].as_u64()), (Some("succeeded"), Some(1)), "{record}");
    assert_eq!(gateway.http.get(&format!("/v1/jobs/{id}/result")).text(), "{\"hello\":\"Ada\"}");
    assert_eq!(gateway.http.get(&format!("/v1/jobs/{id}/logs")).text(), "greeting Ada\n");
    let version = record["attempts"][0]["version"].as_str().expect("it is on record").to_owned();
    let function = gateway.http.get("/v1/functions/hello").json();
    assert_eq!(function["version"], *version, "the gateway shows what the worker runs");

    let metrics = gateway.http.get("/metrics").text();
    for line in [
        "kvern_jobs_finished_total{function=\"hello\",outcome=\"succeeded\"} 1",
        "kvern_run_seconds_count{function=\"hello\"} 1",
        "kvern_wait_seconds_count{function=\"hello\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    assert!(!worker.data.join("queue.db").exists() && !gateway.data.join("versions").exists(), "each has its own");
}

#[test]
fn large_inputs_and_results_go_byte_for_byte() {
    let (gateway, _worker) = pair(&[("kvern.toml", MANIFEST), ("hello.py", HELLO)]);
    for size in [0, 1, 65_536, 65_537, 300_000, 5_000_000] {
        let body = bytes(size);
        let submitted = gateway.http.ask("POST", "/v1/functions/cat/jobs", &[], &body);
        let id = submitted.json()["id"].as_str().expect("an id").to_owned();
        assert_eq!(gateway.http.finished(&id)["state"], "succeeded");
        assert!(gateway.http.get(&format!("/v1/jobs/{id}/result")).body == body, "the result of {size} bytes");
        assert!(gateway.http.get(&format!("/v1/jobs/{id}/input")).body == body, "the input of {size} bytes");
    }
}

#[test]
fn a_running_job_is_cancelled_within_a_second_in_the_other_process() {
    let (gateway, _worker) = pair(&[("kvern.toml", MANIFEST), ("hello.py", HELLO)]);
    let mut took = Vec::new();
    // The other tests run beside this one: the best of three counts.
    for _ in 0..3 {
        let id = gateway.http.submit("long", "");
        runs(&gateway, &id);
        kvern_e2e::until("its log", || {
            (gateway.http.get(&format!("/v1/jobs/{id}/logs")).text() == "begun\n").then_some(())
        });
        let began = Instant::now();
        assert_eq!(gateway.http.post(&format!("/v1/jobs/{id}/cancel"), "").status, 200);
        assert_eq!(gateway.http.finished(&id)["state"], "cancelled");
        took.push(began.elapsed());
        assert_eq!(job(&gateway, &id)["attempts"][0]["outcome"], "cancelled");
    }
    assert!(took.iter().min().expect("three") <= &Duration::from_secs(1), "{took:?}");
}
