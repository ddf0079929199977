//! What a client may ask of a job: once, later, first, not after.

use std::collections::BTreeSet;

use kvern_e2e::{Answer, Http, Server, until};

/// Notes each run in a file beside the manifest.
const MANIFEST: &str = "\
[functions.note]
exec = [\"sh\", \"-c\", \"read -r word; echo $word >> notes\"]
concurrency = 1
";

fn server() -> Server {
    Server::start(&[("kvern.toml", MANIFEST)])
}

fn notes(server: &Server) -> Vec<String> {
    let text = std::fs::read_to_string(server.home.join("notes")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn with_key(http: &Http, key: &str, body: &str) -> Answer {
    http.ask("POST", "/v1/functions/note/jobs", &[("idempotency-key", key)], body.as_bytes())
}

#[test]
fn the_same_key_makes_one_job() {
    let mut server = server();
    let first = with_key(&server.http, "order-7", "one\n");
    let id = first.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!((first.status, first.json().get("duplicate")), (202, None));
    let again = with_key(&server.http, "\"order-7\"", "one\n");
    assert_eq!(
        (again.status, &again.json()["id"], &again.json()["duplicate"]),
        (202, &id.as_str().into(), &true.into())
    );
    let other_body = with_key(&server.http, "order-7", "two\n");
    assert_eq!((other_body.status, &other_body.json()["code"]), (422, &"idempotency_key_reused".into()));
    assert_eq!(server.http.finished(&id)["state"], "succeeded");

    server.kill();
    server.restart();
    let after = with_key(&server.http, "order-7", "one\n").json();
    assert_eq!(
        (&after["id"], &after["state"]),
        (&id.as_str().into(), &"succeeded".into()),
        "the key outlives the server"
    );
    assert_eq!(notes(&server), ["one"]);
}

#[test]
fn concurrent_twins_get_the_same_job() {
    let server = server();
    for round in 0..20 {
        let key = format!("round-{round}");
        let ids: BTreeSet<String> = std::thread::scope(|scope| {
            let twin = || with_key(&server.http, &key, "twin\n").json()["id"].as_str().expect("an id").to_owned();
            let twins: Vec<_> = (0..6).map(|_| scope.spawn(twin)).collect();
            twins.into_iter().map(|twin| twin.join().expect("an id")).collect()
        });
        assert_eq!(ids.len(), 1, "{ids:?}");
        assert_eq!(server.http.finished(ids.first().expect("one"))["state"], "succeeded");
    }
    assert_eq!(notes(&server).len(), 20);
}

#[test]
fn a_delayed_job_waits_its_time() {
    let server = server();
    let accepted = server.http.ask("POST", "/v1/functions/note/jobs?delay=1200ms", &[], b"late\n").json();
    assert_eq!(accepted["state"], "scheduled");
    let id = accepted["id"].as_str().expect("an id");
    let job = server.http.get(&format!("/v1/jobs/{id}")).json();
    let due = ms(job["due_at"].as_str().expect("a time"));
    // The delay counts from the request, which came before the job was made.
    let delay = due - ms(job["created_at"].as_str().expect("a time"));
    assert!((200..=1200).contains(&delay), "{job}");
    let job = server.http.finished(id);
    assert!(ms(job["started_at"].as_str().expect("a time")) >= due, "{job}");
    assert_eq!(notes(&server), ["late"]);
}

#[test]
fn the_first_in_rank_runs_first() {
    let server = server();
    assert_eq!(server.http.post("/v1/functions/note/pause", "").json()["paused"], true);
    let submit = |rank: u8, word: &str| {
        let path = format!("/v1/functions/note/jobs?priority={rank}");
        server.http.ask("POST", &path, &[], format!("{word}\n").as_bytes()).json()["id"]
            .as_str()
            .expect("an id")
            .to_owned()
    };
    let ids = [submit(0, "last"), submit(4, "second"), submit(4, "third"), submit(9, "first")];
    assert_eq!(notes(&server), [""; 0], "nothing runs while the function is paused");
    assert_eq!(server.http.post("/v1/functions/note/resume", "").json()["paused"], false);
    for id in &ids {
        assert_eq!(server.http.finished(id)["state"], "succeeded");
    }
    assert_eq!(notes(&server), ["first", "second", "third", "last"]);
}

#[test]
fn a_job_that_came_too_late_is_a_dead_letter() {
    let server = server();
    let _ = server.http.post("/v1/functions/note/pause", "");
    let accepted =
        server.http.ask("POST", "/v1/functions/note/jobs?expires_in=300ms&tag=order:7", &[], b"never\n").json();
    let id = accepted["id"].as_str().expect("an id");
    let job = until("the job to expire", || {
        let job = server.http.get(&format!("/v1/jobs/{id}")).json();
        (job["state"] == "failed").then_some(job)
    });
    assert_eq!((&job["error"]["code"], &job["tags"]), (&"expired".into(), &serde_json::json!({ "order": "7" })));
    assert_eq!(notes(&server), [""; 0]);
}

/// Milliseconds of a time as the API writes it, within its day.
fn ms(time: &str) -> u64 {
    let clock = time.split(['T', 'Z']).nth(1).expect("a time of day");
    let number =
        |at: std::ops::Range<usize>| clock.get(at).and_then(|digits| digits.parse::<u64>().ok()).expect("digits");
    ((number(0..2) * 60 + number(3..5)) * 60 + number(6..8)) * 1000 + number(9..12)
}
