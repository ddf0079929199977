//! The two processes as a person looks after them: ready, listed, reloaded.

use kvern_e2e::{Server, Worker, socket_of, until};

use super::{ROLE, all_ready, pair};

const MANIFEST: &str = "[functions.say]\nexec = [\"sh\", \"say.sh\"]\n";

fn say(words: &str) -> String {
    format!("echo {words}\n")
}

#[test]
fn a_gateway_without_a_worker_says_so_and_keeps_jobs() {
    let gateway = Server::start_with(&[("kvern.toml", MANIFEST), ("say.sh", &say("one"))], &ROLE);
    let ready = gateway.http.get("/readyz");
    assert_eq!(
        (ready.status, ready.text().starts_with("ready; no worker is connected")),
        (200, true),
        "{}",
        ready.text()
    );
    let verbose = gateway.http.get("/readyz?verbose").json();
    assert_eq!((verbose["ready"].as_bool(), verbose["workers"].as_array().map(Vec::len)), (Some(true), Some(0)));
    let id = gateway.http.submit("say", "");
    let (code, listed, said) = gateway.cli(&["functions", "list"]);
    assert!(code == 0 && listed.contains("no worker is connected"), "{listed}{said}");

    let worker = Worker::beside(&gateway);
    assert_eq!(gateway.http.finished(&id)["state"], "succeeded");
    all_ready(&gateway);
    assert_eq!(gateway.http.get("/readyz").text(), "ready\n");
    let verbose = gateway.http.get("/readyz?verbose").json();
    assert_eq!(verbose["workers"].as_array().map(Vec::len), Some(1), "{verbose}");
    let (code, described, said) = gateway.cli(&["functions", "describe", "say", "-o", "json"]);
    assert!(code == 0 && described.contains("\"state\": \"ready\""), "{described}{said}");
    drop(worker);
    until("the gateway to see it go", || gateway.http.get("/readyz").text().contains("no worker").then_some(()));
}

#[test]
fn a_worker_waits_for_its_gateway() {
    let mut gateway = Server::start_with(&[("kvern.toml", MANIFEST), ("say.sh", &say("one"))], &ROLE);
    gateway.kill();
    std::fs::remove_file(socket_of(&gateway)).expect("a kill leaves it");
    let worker = Worker::beside(&gateway);
    until("it to say so", || {
        let log = worker.log();
        (log.contains("the queue does not answer; trying again") && log.contains("nobody listens on")).then_some(())
    });
    gateway.restart();
    all_ready(&gateway);
    let id = gateway.http.submit("say", "");
    assert_eq!(gateway.http.finished(&id)["state"], "succeeded");
}

#[test]
fn each_process_is_reloaded_by_its_own_directory() {
    let (gateway, worker) = pair(&[("kvern.toml", MANIFEST), ("say.sh", &say("one"))]);
    let result = |function: &str| {
        let id = gateway.http.submit(function, "");
        assert_eq!(gateway.http.finished(&id)["state"], "succeeded");
        gateway.http.get(&format!("/v1/jobs/{id}/result")).text()
    };
    assert_eq!(result("say"), "one\n");
    std::fs::write(gateway.home.join("say.sh"), say("two")).expect("written");
    std::fs::write(
        gateway.home.join("kvern.toml"),
        format!("{MANIFEST}[functions.more]\nexec = [\"echo\", \"more\"]\n"),
    )
    .expect("written");
    for data in [&worker.data, &gateway.data] {
        let (code, _, said) = gateway.cli(&["reload", "--data", &data.display().to_string()]);
        assert!(code == 0 && said.contains("reloaded: ") && said.contains("more"), "{said}");
    }
    assert_eq!((result("say").as_str(), result("more").as_str()), ("two\n", "more\n"));
}
