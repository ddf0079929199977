//! The main path: submit, and what stands in the answer and in the queue.

use kvern_core::State;
use kvern_queue::{Payload, Queue};

use crate::server::Server;

#[tokio::test]
async fn an_accepted_job_keeps_its_202_when_the_wait_for_it_fails() {
    let server = Server::start().await;
    let prefer = [("prefer", "respond-async, wait=30")];
    let asking = server.send("POST", "/v1/functions/hello", &prefer, "hi");
    let failing = async {
        crate::client::within(async {
            while server.jobs() == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        server.queue.fail_next(kvern_queue::Error::Closed("it stops".to_owned()));
        // The move makes the waiting request read the record again.
        server.lease().await;
    };
    let (answer, ()) = tokio::join!(asking, failing);
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(answer.header("location"), format!("/v1/jobs/{}", answer.id()));
}

#[tokio::test]
async fn a_submit_is_answered_with_its_job() {
    let server = Server::start().await;
    let headers = [("content-type", "image/jpeg")];
    let answer = server.send("POST", "/v1/functions/hello/jobs", &headers, &b"\xff\xd8raw"[..]).await;
    assert_eq!(answer.status, 202);
    let id = answer.id();
    assert_eq!(answer.header("location"), format!("/v1/jobs/{id}"));
    assert_eq!(answer.header("kvern-durability"), "memory");
    assert_eq!(answer.header("content-type"), "application/json");
    let json = answer.json();
    assert_eq!(json["state"], "queued");
    assert_eq!(json["function"], "hello");
    assert_eq!(json["created_at"], "2027-01-15T08:00:00.123Z");
    assert_eq!(json.get("duplicate"), None);
    assert_eq!(json["links"]["result"], format!("/v1/jobs/{id}/result"));

    let leased = server.lease().await;
    assert_eq!(leased.job.id.to_string(), id);
    assert_eq!(leased.job.content_type.as_deref(), Some("image/jpeg"));
    assert_eq!(leased.input, Payload::Inline(b"\xff\xd8raw"[..].into()));
    let input = server.get(&format!("/v1/jobs/{id}/input")).await;
    assert_eq!((input.header("content-type"), &input.body[..]), ("image/jpeg", &b"\xff\xd8raw"[..]));
}

#[tokio::test]
async fn two_content_types_are_refused() {
    let server = Server::start().await;
    let headers = [("content-type", "image/jpeg"), ("content-type", "application/json")];
    for path in ["/v1/functions/hello/jobs", "/v1/functions/hello"] {
        let answer = server.send("POST", path, &headers, "1").await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert_eq!(answer.json()["detail"], "the request has two Content-Type headers");
    }
    assert_eq!(server.jobs(), 0);
}

#[tokio::test]
async fn options_reach_the_queue() {
    let server = Server::start().await;
    let path = "/v1/functions/hello/jobs?delay=30s&expires_in=1h&priority=9&tag=customer%3A77&tag=a:b";
    let answer = server.post(path, "").await;
    assert_eq!(answer.json()["state"], "scheduled");
    let job = server.get(answer.header("location")).await.json();
    assert_eq!(job["due_at"], "2027-01-15T08:00:30.123Z");
    assert_eq!(job["expires_at"], "2027-01-15T09:00:00.123Z");
    assert_eq!(job["priority"], 9);
    assert_eq!(job["tags"]["customer"], "77");
    assert_eq!(job["tags"]["a"], "b");
}

#[tokio::test]
async fn an_empty_body_is_a_job_too() {
    let server = Server::start().await;
    let answer = server.post("/v1/functions/hello/jobs", "").await;
    assert_eq!(answer.status, 202);
    let job = server.get(answer.header("location")).await.json();
    assert_eq!((&job["input_bytes"], &job["content_type"]), (&0.into(), &serde_json::Value::Null));
}

#[tokio::test]
async fn a_route_of_the_manifest_submits_and_leaves_its_query_alone() {
    let server = Server::start().await;
    let answer = server.post("/submit-job?hub.mode=subscribe&delay=never", "photo").await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.json()["function"], "upload");
    assert_eq!(answer.json()["state"], "queued");
    server.get("/submit-job").await.problem(405, "method_not_allowed");
}

#[tokio::test]
async fn a_reload_changes_the_functions_at_once() {
    let server = Server::start().await;
    server.post("/v1/functions/later/jobs", "").await.problem(404, "unknown_function");
    let functions = kvern_gateway::Functions::new([crate::server::function("later")], &server.metrics);
    server.functions.send_replace(functions.into());
    assert_eq!(server.post("/v1/functions/later/jobs", "").await.status, 202);
    server.post("/v1/functions/hello/jobs", "").await.problem(404, "unknown_function");
    server.post("/submit-job", "").await.problem(404, "not_found");
}

#[tokio::test]
async fn prefer_makes_a_call_a_job() {
    let server = Server::start().await;
    let answer = server.send("POST", "/v1/functions/hello", &[("prefer", "respond-async")], "hi").await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.header("preference-applied"), "respond-async");
    assert!(answer.header("location").starts_with("/v1/jobs/"));
    assert_eq!(server.lease().await.job.state, State::Running);
}

#[tokio::test]
async fn prefer_wait_gives_the_result_if_it_comes_in_time() {
    let server = Server::start().await;
    let work = async {
        let leased = server.lease().await;
        let id = leased.job.id;
        server.settle(leased, Ok("thumbnails")).await;
        id
    };
    let prefer = [("prefer", "respond-async, wait=30")];
    let (answer, id) = tokio::join!(server.send("POST", "/v1/functions/hello", &prefer, "hi"), work);
    assert_eq!((answer.status, answer.text()), (200, "thumbnails"));
    assert_eq!(answer.header("preference-applied"), "respond-async, wait=30");
    assert_eq!(answer.header("location"), format!("/v1/jobs/{id}"));
    assert_eq!(answer.header("content-type"), "text/plain");
}

#[tokio::test]
async fn prefer_wait_gives_the_job_if_the_result_does_not_come() {
    let server = Server::start().await;
    let answer = server.send("POST", "/v1/functions/hello", &[("prefer", "respond-async, wait=0")], "hi").await;
    assert_eq!(answer.status, 202);
    let id = answer.id().parse().expect("an id");
    assert_eq!(server.queue.get(id).await.expect("it is there").state, State::Queued);
}

#[tokio::test]
async fn prefer_wait_tells_a_failure_as_a_call_does() {
    let server = Server::start().await;
    let work = async {
        let leased = server.lease().await;
        server
            .settle(leased, Err(kvern_core::Failure::new(kvern_core::FailureCode::Permanent, "no such customer")))
            .await;
    };
    let prefer = [("prefer", "respond-async, wait=30")];
    let (answer, ()) = tokio::join!(server.send("POST", "/v1/functions/hello", &prefer, "hi"), work);
    let problem = answer.problem(502, "function_failed");
    assert_eq!(problem["error"]["message"], "no such customer");
    assert_eq!(problem["error"]["code"], "permanent");
    assert!(problem["job"].is_string());
    assert_eq!(answer.header("kvern-error"), "function");
}
