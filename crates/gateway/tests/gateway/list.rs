//! Lists of jobs: filters, pages, and what is refused.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::server::Server;

fn ids(page: &serde_json::Value) -> Vec<String> {
    let jobs = page["jobs"].as_array().expect("a page has jobs");
    jobs.iter().map(|job| job["id"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test]
async fn pages_together_give_each_job_once() {
    let server = Server::start().await;
    let mut made = BTreeSet::new();
    for _ in 0..7 {
        made.insert(server.submit().await);
    }
    let mut seen = Vec::new();
    let mut path = "/v1/jobs?function=hello&state=queued&limit=3".to_owned();
    loop {
        let page = server.get(&path).await.json();
        seen.extend(ids(&page));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/v1/jobs?function=hello&state=queued&limit=3&cursor={next}");
    }
    assert_eq!(seen.len(), 7);
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), made);
}

#[tokio::test]
async fn filters_hold_together() {
    let server = Server::start().await;
    let done = server.finished(Ok("x")).await;
    let queued = server.submit().await;
    assert_eq!(ids(&server.get("/v1/jobs?state=succeeded").await.json()), [done.as_str()]);
    assert_eq!(ids(&server.get("/v1/jobs?state=queued,running").await.json()), [queued.as_str()]);
    assert_eq!(ids(&server.get("/v1/jobs").await.json()).len(), 2);
    assert!(ids(&server.get("/v1/jobs?function=small").await.json()).is_empty());
    server.clock.advance(Duration::from_secs(7200));
    assert!(ids(&server.get("/v1/jobs?since=1h").await.json()).is_empty());
    assert_eq!(ids(&server.get("/v1/jobs?since=3h").await.json()).len(), 2);
    assert_eq!(ids(&server.get("/v1/jobs?since=2027-01-15T08:00:00Z").await.json()).len(), 2);
    assert!(ids(&server.get("/v1/jobs?since=2027-01-15T11:00:01%2B02:00").await.json()).is_empty());
}

#[tokio::test]
async fn what_is_not_understood_is_refused() {
    let server = Server::start().await;
    for (query, hint) in [
        ("stat=queued", "did you mean `state`?"),
        ("state=runing", "did you mean `running`?"),
        ("state=lost", "the states are scheduled, queued, running, succeeded, failed, cancelled"),
        ("order=asc", "the parameters are function, state, since, cursor, limit"),
    ] {
        let problem = server.get(&format!("/v1/jobs?{query}")).await.problem(400, "bad_query");
        assert_eq!(problem["hint"], hint);
    }
    for query in
        ["limit=0", "limit=501", "limit=x", "since=yesterday", "function=No%20name", "state=a&state=b", "limit=%zz"]
    {
        server.get(&format!("/v1/jobs?{query}")).await.problem(400, "bad_query");
    }
}

#[tokio::test]
async fn a_cursor_of_another_list_is_refused() {
    let server = Server::start().await;
    for _ in 0..2 {
        server.submit().await;
    }
    let page = server.get("/v1/jobs?function=hello&limit=1").await.json();
    let next = page["next"].as_str().expect("there is more");
    server.get(&format!("/v1/jobs?state=queued&cursor={next}")).await.problem(400, "bad_cursor");
    server.get("/v1/jobs?cursor=garbage").await.problem(400, "bad_cursor");
}
