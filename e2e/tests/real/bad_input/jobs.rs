//! Questions about jobs that have no good answer.

use kvern_e2e::Server;

use super::stage::{GOOD, Shared, nothing_is_lost, problem};
use super::table::told;

static SERVER: Shared = Shared::new(&[], || {
    let functions = "\
        [functions.held]\nexec = [\"cat\"]\n\n\
        [functions.failing]\nexec = [\"sh\", \"-c\", \"echo 'no such customer' >&2; exit 65\"]\n";
    Server::start(&[("kvern.toml", &format!("{GOOD}{functions}"))])
});

#[test]
fn bad_job_id() {
    let Some(server) = SERVER.get() else { return };
    let answer = nothing_is_lost(&server.http, || server.http.get("/v1/jobs/42"));
    told("a bad job id").is(&problem(&answer));
}

#[test]
fn unknown_job_id() {
    let Some(server) = SERVER.get() else { return };
    let answer = nothing_is_lost(&server.http, || server.http.get("/v1/jobs/01890a5d-ac96-774b-bcce-b302099a8057"));
    told("an unknown job id").is(&problem(&answer));
}

#[test]
fn cursor_from_another_list() {
    let Some(server) = SERVER.get() else { return };
    let http = &server.http;
    for _ in 0..2 {
        let _ = http.submit("good", "{}");
    }
    let page = http.get("/v1/jobs?function=good&limit=1").json();
    let cursor = page["next"].as_str().expect("there is more");
    let answer = nothing_is_lost(http, || http.get(&format!("/v1/jobs?state=failed&cursor={cursor}")));
    told("a cursor from another list").is(&problem(&answer));
    assert_eq!(
        http.get(&format!("/v1/jobs?function=good&limit=1&cursor={cursor}")).status,
        200,
        "it was a good cursor"
    );
}

#[test]
fn unknown_filter() {
    let Some(server) = SERVER.get() else { return };
    let answer = nothing_is_lost(&server.http, || server.http.get("/v1/jobs?status=failed"));
    told("an unknown filter").is(&problem(&answer));
}

#[test]
fn unknown_value_of_a_filter() {
    let Some(server) = SERVER.get() else { return };
    let answer = nothing_is_lost(&server.http, || server.http.get("/v1/jobs?state=queued,runing"));
    told("an unknown value of a filter").is(&problem(&answer));
}

#[test]
fn unknown_query_parameter() {
    let Some(server) = SERVER.get() else { return };
    let answer = nothing_is_lost(&server.http, || server.http.post("/v1/functions/good/jobs?dealy=5m", "{}"));
    told("an unknown query parameter").is(&problem(&answer));
}

#[test]
fn duration_without_a_unit() {
    let Some(server) = SERVER.get() else { return };
    let answer = nothing_is_lost(&server.http, || server.http.post("/v1/functions/good/jobs?delay=5", "{}"));
    told("a duration without a unit").is(&problem(&answer));
}

#[test]
fn result_of_a_job_that_has_not_finished() {
    let Some(server) = SERVER.get() else { return };
    let http = &server.http;
    assert_eq!(http.post("/v1/functions/held/pause", "").status, 200);
    let id = http.submit("held", "{}");
    let answer = nothing_is_lost(http, || http.get(&format!("/v1/jobs/{id}/result")));
    told("the result of a job that has not finished").is(&problem(&answer));
    assert_eq!(http.post("/v1/functions/held/resume", "").status, 200);
    assert_eq!(http.finished(&id)["state"], "succeeded");
    assert_eq!(http.get(&format!("/v1/jobs/{id}/result")).text(), "{}");
}

#[test]
fn result_of_a_failed_job() {
    let Some(server) = SERVER.get() else { return };
    let http = &server.http;
    let id = http.submit("failing", "{}");
    assert_eq!(http.finished(&id)["attempt"], 1, "exit code 65 is not tried again");
    let answer = nothing_is_lost(http, || http.get(&format!("/v1/jobs/{id}/result")));
    told("the result of a failed job").is(&problem(&answer));
    assert_eq!(http.get(&format!("/v1/jobs/{id}/logs")).text(), "no such customer\n");
}

#[test]
fn result_of_a_cancelled_job() {
    let Some(server) = SERVER.get() else { return };
    let http = &server.http;
    let accepted = http.post("/v1/functions/good/jobs?delay=1h", "{}").json();
    let id = accepted["id"].as_str().expect("an id");
    assert_eq!(http.post(&format!("/v1/jobs/{id}/cancel"), "").status, 200);
    let answer = nothing_is_lost(http, || http.get(&format!("/v1/jobs/{id}/result")));
    told("the result of a cancelled job").is(&problem(&answer));
}

#[test]
fn cancel_of_a_finished_job() {
    let Some(server) = SERVER.get() else { return };
    let http = &server.http;
    let id = http.submit("good", "kept");
    assert_eq!(http.finished(&id)["state"], "succeeded");
    let answer = nothing_is_lost(http, || http.post(&format!("/v1/jobs/{id}/cancel"), ""));
    told("cancelling a finished job").is(&problem(&answer));
    assert_eq!(http.get(&format!("/v1/jobs/{id}/result")).text(), "kept");
}

#[test]
fn retry_of_a_succeeded_job() {
    let Some(server) = SERVER.get() else { return };
    let http = &server.http;
    let id = http.submit("good", "kept");
    assert_eq!(http.finished(&id)["state"], "succeeded");
    let answer = nothing_is_lost(http, || http.post(&format!("/v1/jobs/{id}/retry"), ""));
    told("retrying a succeeded job").is(&problem(&answer));
    assert_eq!(http.get(&format!("/v1/jobs/{id}/result")).text(), "kept");
}
