//! The smallest function in each language, called and submitted: `examples/hello` as it stands in the repository.

use std::process::{Command, Stdio};

use kvern_e2e::files::{copy, of_repository};
use kvern_e2e::{Server, Start, kvern, needs, until};

use crate::running_dev::Dev;

/// What each says to `{"name": "Ada"}`, with its content type, and what it prints.
const SAID: [(&str, &str, &str, &str); 3] = [
    ("hello", "{\"hello\":\"Ada\"}", "application/json", "greeting Ada\n"),
    ("hello-node", "{\"hello\":\"Ada\"}", "application/json", "attempt 1\n"),
    ("hello-shell", "hello, {\"name\": \"Ada\"}\n", "application/octet-stream", "attempt 1 of job ID\n"),
];
const ADA: &str = "{\"name\": \"Ada\"}";

/// The fields of a job, as `docs/http-api.md` has them.
const FIELDS: [&str; 22] = [
    "attempt",
    "attempts",
    "attempts_max",
    "cancel_requested",
    "content_type",
    "created_at",
    "due_at",
    "error",
    "expires_at",
    "failures",
    "finished_at",
    "function",
    "id",
    "input_bytes",
    "interruptions",
    "links",
    "priority",
    "result",
    "started_at",
    "state",
    "strikes",
    "tags",
];

fn hello() -> Option<Server> {
    let example = of_repository("examples/hello");
    needs::programs(&["python3", "node"])
        .then(|| Server::start_as(Start { copy_of: Some(&example), ..Start::default() }))
}

#[test]
fn its_readme_can_be_pasted_as_one_block() {
    if !needs::programs(&["bash", "curl", "python3", "node"]) {
        return;
    }
    let folder = tempfile::Builder::new().prefix("kvern-e2e-hello-").tempdir().expect("a folder");
    let app = folder.path().join("app");
    std::fs::create_dir(&app).expect("a folder");
    copy(&of_repository("examples/hello"), &app);
    let readme = std::fs::read_to_string(app.join("README.md")).expect("a text");
    let dev = Dev::start_in(folder, &[]);
    let commands =
        readme.lines().filter_map(|line| line.strip_prefix("$ ")).filter(|line| !line.starts_with("kvern dev"));
    let commands = commands.collect::<Vec<_>>().join("\n").replace("localhost:8080", &dev.http.address.to_string());
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("bash")
        .args(["-e", "-c", &commands])
        .env("PATH", format!("{}:{path}", kvern().parent().expect("a folder").display()))
        .env("KVERN_SERVER", format!("http://{}", dev.http.address))
        .current_dir(app)
        .stdin(Stdio::null())
        .output()
        .expect("bash runs");
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{told}");
    for promised in readme.lines().filter(|line| line.starts_with('{') || line.starts_with("hello, ")) {
        assert!(said.contains(promised), "{promised} in {said}");
    }
    let attempts = dev.http.get("/v1/jobs?function=flaky").json()["jobs"][0]["attempt"].clone();
    assert_eq!(attempts, 4, "the mended code ran at once: {said}\n{told}");
}

#[test]
fn a_call_is_answered_in_each_language() {
    let Some(server) = hello() else { return };
    for (function, body, content_type, _) in SAID {
        let answer = server.http.post(&format!("/v1/functions/{function}"), ADA);
        assert_eq!((answer.status, answer.text().as_str()), (200, body), "{function}");
        assert_eq!(answer.header("content-type"), Some(content_type), "{function}");
    }
    assert_eq!(server.http.get("/v1/jobs").json()["jobs"], serde_json::json!([]), "a call stores nothing");
}

#[test]
fn a_job_is_acknowledged_run_and_told_of_in_each_language() {
    let Some(server) = hello() else { return };
    for (function, body, content_type, log) in SAID {
        let accepted = server.http.post(&format!("/v1/functions/{function}/jobs"), ADA);
        assert_eq!(accepted.status, 202);
        assert_eq!(accepted.header("kvern-durability"), Some("fsync"));
        let path = accepted.header("location").expect("a location").to_owned();
        let id = path.strip_prefix("/v1/jobs/").expect("the path of the job").to_owned();
        let told = accepted.json();
        assert_eq!(
            (&told["id"], &told["state"], &told["function"]),
            (&id.as_str().into(), &"queued".into(), &function.into())
        );
        assert_eq!(told["links"]["result"], format!("{path}/result"));

        let job = server.http.finished(&id);
        let mut fields: Vec<&String> = job.as_object().expect("an object").keys().collect();
        fields.sort();
        assert_eq!(fields, FIELDS);
        assert_eq!(
            (&job["state"], &job["attempt"], &job["failures"]),
            (&"succeeded".into(), &1.into(), &0.into()),
            "{job}"
        );
        assert_eq!(job["attempts"][0]["outcome"], "succeeded");
        assert_eq!(job["input_bytes"], ADA.len());
        assert_eq!(job["created_at"], told["created_at"]);

        let result = server.http.get(&format!("{path}/result"));
        assert_eq!((result.status, result.text().as_str()), (200, body), "{function}");
        assert_eq!(result.header("content-type"), Some(content_type));
        assert_eq!(job["result"]["bytes"], result.body.len());
        assert_eq!(server.http.get(&format!("{path}/logs")).text(), log.replace("ID", &id));
        assert_eq!(server.http.get(&format!("{path}/input")).text(), ADA);
    }
}

#[test]
fn a_wait_ends_with_the_job_or_tells_how_far_it_is() {
    let manifest =
        "[functions.patient]\nexec = [\"sh\", \"-c\", \"until test -e go; do sleep 0.02; done; echo done\"]\n";
    let server = Server::start(&[("kvern.toml", manifest)]);
    let id = server.http.submit("patient", "");
    until("the job to run", || (server.http.get(&format!("/v1/jobs/{id}")).json()["state"] == "running").then_some(()));
    let early = server.http.get(&format!("/v1/jobs/{id}?wait=50ms"));
    assert_eq!((early.status, &early.json()["state"]), (200, &"running".into()));
    let result = server.http.get(&format!("/v1/jobs/{id}/result"));
    assert_eq!((result.status, &result.json()["code"]), (409, &"not_finished".into()));
    assert_eq!(result.header("retry-after"), Some("1"));
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| server.http.get(&format!("/v1/jobs/{id}?wait=60s")).json());
        std::fs::write(server.home.join("go"), "").expect("a file");
        waiting.join().expect("an answer")
    });
    assert_eq!(waiting["state"], "succeeded");
}

#[test]
fn a_route_of_the_manifest_leads_to_a_call_or_a_job() {
    let server = Server::start(&[(
        "kvern.toml",
        "[functions.now]\nexec = [\"cat\"]\nroute = \"PUT /now\"\nmode = \"sync\"\n\n\
         [functions.later]\nexec = [\"cat\"]\nroute = \"POST /submit-job\"\n",
    )]);
    let now = server.http.ask("PUT", "/now?from=webhook", &[("content-type", "text/plain")], b"at once");
    assert_eq!((now.status, now.text().as_str()), (200, "at once"));
    let later = server.http.ask("POST", "/submit-job", &[], b"in the background");
    assert_eq!(later.status, 202);
    let path = later.header("location").expect("a location").to_owned();
    let id = path.trim_start_matches("/v1/jobs/");
    assert_eq!(server.http.finished(id)["function"], "later");
    assert_eq!(server.http.get(&format!("{path}/result")).text(), "in the background");
    let wrong = server.http.get("/now");
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("PUT, OPTIONS")));
}

#[test]
fn a_client_may_prefer_a_job_and_a_wait() {
    let server = Server::start(&[("kvern.toml", "[functions.cat]\nexec = [\"cat\"]\n")]);
    let ask = |prefer: &str| server.http.ask("POST", "/v1/functions/cat", &[("prefer", prefer)], b"x");
    let job = ask("respond-async");
    assert_eq!((job.status, job.header("preference-applied")), (202, Some("respond-async")));
    let waited = ask("respond-async, wait=30");
    assert_eq!((waited.status, waited.text().as_str()), (200, "x"));
    assert_eq!(waited.header("preference-applied"), Some("respond-async, wait=30"));
    let id = waited.header("location").expect("a location").trim_start_matches("/v1/jobs/").to_owned();
    assert_eq!(server.http.finished(&id)["state"], "succeeded");
    let impatient = ask("respond-async, wait=0");
    assert!(matches!(impatient.status, 200 | 202), "{}", impatient.text());
}
