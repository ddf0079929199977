//! Cancel, retry, pause, resume.

use kvern_core::{Failure, FailureCode};

use crate::server::Server;

#[tokio::test]
async fn a_waiting_job_is_cancelled_and_retried() {
    let server = Server::start().await;
    let id = server.submit().await;
    let cancelled = server.post(&format!("/v1/jobs/{id}/cancel"), "").await;
    assert_eq!((cancelled.status, &cancelled.json()["state"]), (200, &"cancelled".into()));
    server.post(&format!("/v1/jobs/{id}/cancel"), "").await.problem(409, "wrong_state");
    let retried = server.post(&format!("/v1/jobs/{id}/retry"), "").await;
    assert_eq!((retried.status, &retried.json()["state"]), (200, &"queued".into()));
    let problem = server.post(&format!("/v1/jobs/{id}/retry"), "").await.problem(409, "wrong_state");
    assert_eq!(problem["hint"], "only a job that failed or was cancelled can be retried");
}

#[tokio::test]
async fn a_running_job_is_marked() {
    let server = Server::start().await;
    let id = server.submit().await;
    let _leased = server.lease().await;
    let answer = server.post(&format!("/v1/jobs/{id}/cancel"), "").await.json();
    assert_eq!((&answer["state"], &answer["cancel_requested"]), (&"running".into(), &true.into()));
}

#[tokio::test]
async fn a_dead_letter_gets_another_life() {
    let server = Server::start().await;
    let id = server.finished(Err(Failure::new(FailureCode::Permanent, "no"))).await;
    let job = server.post(&format!("/v1/jobs/{id}/retry"), "").await.json();
    assert_eq!(
        (&job["state"], &job["failures"], &job["attempts"][0]["error"]),
        (&"queued".into(), &0.into(), &"no".into())
    );
}

#[tokio::test]
async fn a_wrong_parameter_stops_an_act() {
    let server = Server::start().await;
    let id = server.submit().await;
    server.post(&format!("/v1/jobs/{id}/cancel?force=1"), "").await.problem(400, "bad_query");
    assert_eq!(server.get(&format!("/v1/jobs/{id}")).await.json()["state"], "queued");
}

#[tokio::test]
async fn a_paused_function_says_so_and_still_takes_jobs() {
    let server = Server::start().await;
    assert_eq!(server.get("/v1/functions/hello").await.json()["paused"], false);
    assert_eq!(server.post("/v1/functions/hello/pause", "").await.json()["paused"], true);
    assert_eq!(server.post("/v1/functions/hello", "hi").await.text(), "hi", "calls go on");
    server.submit().await;
    let function = server.get("/v1/functions/hello").await.json();
    assert_eq!((&function["paused"], &function["jobs"]["queued"]), (&true.into(), &1.into()));
    assert_eq!(server.post("/v1/functions/hello/resume", "").await.json()["paused"], false);
    server.post("/v1/functions/nobody/pause", "").await.problem(404, "unknown_function");
}

#[tokio::test]
async fn functions_are_listed_without_their_secrets() {
    let server = Server::start().await;
    let answer = server.get("/v1/functions").await;
    let functions = answer.json();
    let names: Vec<&str> = functions["functions"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|f| f["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(names, ["hello", "report", "small", "upload", "visit"]);
    assert_eq!(functions["functions"][3]["route"], "POST /submit-job");
    assert_eq!(functions["functions"][2]["error"], "no such file");
    assert_eq!(functions["functions"][0]["env"], serde_json::json!(["SECRET"]));
    assert!(!answer.text().contains("hidden"));
}
