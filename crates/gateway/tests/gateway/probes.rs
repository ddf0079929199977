//! Health, readiness, metrics.

use kvern_queue::Error;

use crate::server::Server;

#[tokio::test]
async fn a_healthy_server_is_ready() {
    let server = Server::start().await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    let verbose = server.get("/readyz?verbose").await.json();
    assert_eq!((&verbose["ready"], &verbose["queue"]["ok"]), (&true.into(), &true.into()));
    assert_eq!(verbose["queue"]["durability"], "memory");
    let small = &verbose["functions"][2];
    assert_eq!(
        (&small["name"], &small["ok"], &small["error"]),
        (&"small".into(), &false.into(), &"no such file".into())
    );
}

#[tokio::test]
async fn a_queue_that_failed_makes_it_unready_but_not_dead() {
    let server = Server::start().await;
    *server.queue.illness.lock().expect("no panic in here") = Some(Error::Closed("fsync: EIO".to_owned()));
    let answer = server.get("/readyz").await;
    answer.problem(503, "store_closed");
    assert!(!answer.text().contains("EIO"), "the inner message is for the log");
    let verbose = server.get("/readyz?verbose").await;
    assert_eq!((verbose.status, &verbose.json()["ready"]), (503, &false.into()));
    assert!(verbose.json()["queue"]["error"].as_str().is_some_and(|error| error.contains("EIO")));
    assert_eq!(server.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn a_queue_without_room_makes_it_unready() {
    let server = Server::start().await;
    *server.queue.tightness.lock().expect("no panic in here") = Some(Error::NoSpace("1 MiB free".to_owned()));
    let answer = server.get("/readyz").await;
    answer.problem(503, "no_space");
    assert!(answer.text().contains("64 MiB"), "the bound is said: {}", answer.text());
    let verbose = server.get("/readyz?verbose").await;
    assert_eq!((verbose.status, &verbose.json()["ready"]), (503, &false.into()));
    assert_eq!(verbose.json()["queue"]["ok"], false);
    assert!(verbose.json()["queue"]["error"].as_str().is_some_and(|error| error.contains("1 MiB free")));
    *server.queue.tightness.lock().expect("no panic in here") = None;
    assert_eq!(server.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn metrics_count_what_happens() {
    let server = Server::start().await;
    server.submit().await;
    server.send("POST", "/v1/functions/hello/jobs", &[("idempotency-key", "k")], "").await.id();
    server.send("POST", "/v1/functions/hello/jobs", &[("idempotency-key", "k")], "").await.id();
    let _running = server.lease().await;
    let name = "hello".parse().expect("a name");
    server.metrics.finished(&name, &kvern_core::Outcome::Succeeded);
    server.metrics.observe_wait(&name, std::time::Duration::from_millis(3));
    server.metrics.observe_run(&name, std::time::Duration::from_millis(20));
    let answer = server.get("/metrics").await;
    assert!(answer.header("content-type").starts_with("application/openmetrics-text"));
    let text = answer.text();
    for line in [
        "kvern_jobs_accepted_total{function=\"hello\"} 2",
        "kvern_jobs_accepted_total{function=\"small\"} 0",
        "kvern_jobs_finished_total{function=\"hello\",outcome=\"succeeded\"} 1",
        "kvern_jobs_running{function=\"hello\"} 1",
        "kvern_queue_depth{function=\"hello\",state=\"queued\"} 1",
        "kvern_finished_bytes{function=\"hello\"} 0",
        "kvern_queue_depth{function=\"hello\",state=\"running\"} 1",
        "kvern_fsync_seconds_count 3",
        "kvern_fsync_seconds_bucket{le=\"0.001\"} 2",
        "kvern_fsync_seconds_bucket{le=\"+Inf\"} 3",
        "kvern_accept_seconds_count 3",
        "kvern_wait_seconds_bucket{le=\"0.005\",function=\"hello\"} 1",
        "kvern_run_seconds_count{function=\"hello\"} 1",
        "kvern_http_connections 1",
        "process_resident_memory_bytes ",
        "# EOF",
    ] {
        assert!(text.lines().any(|have| have.starts_with(line)), "{line:?} is not in\n{text}");
    }
}
