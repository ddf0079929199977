//! The table of routes against the running gateway: every method on every path.

use kvern_gateway::routes::ROUTES;

use crate::server::Server;

/// The path with something that exists in place of its placeholder.
fn filled(path: &str, id: &str) -> String {
    path.replace("{name}", "hello").replace("{id}", id)
}

#[tokio::test]
async fn every_path_answers_its_methods_and_names_them_for_the_others() {
    let server = Server::start().await;
    let id = server.submit().await;
    for route in &ROUTES {
        let path = filled(route.path, &id);
        let own: Vec<&str> =
            ROUTES.iter().filter(|other| other.path == route.path).map(|other| other.method.as_str()).collect();
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE"] {
            let answer = server.send(method, &path, &[], "").await;
            if own.contains(&method) {
                assert_ne!(answer.status, 405, "{method} {path}");
                continue;
            }
            for own in &own {
                assert!(answer.header("allow").contains(own), "{method} {path}: {}", answer.header("allow"));
            }
            if method == "OPTIONS" {
                assert_eq!(answer.status, 204);
            } else {
                let problem = answer.problem(405, "method_not_allowed");
                assert!(problem["hint"].as_str().is_some_and(|hint| hint.contains(own[0])), "{problem}");
            }
        }
    }
}

#[tokio::test]
async fn every_path_refuses_parameters_that_it_does_not_know() {
    let server = Server::start().await;
    let id = server.submit().await;
    for route in &ROUTES {
        let path = format!("{}?nonsense=1", filled(route.path, &id));
        server.send(route.method.as_str(), &path, &[], "").await.problem(400, "bad_query");
    }
}

#[tokio::test]
async fn an_unknown_path_is_a_problem_with_a_hint() {
    let server = Server::start().await;
    for path in ["/", "/v1", "/v1/job", "/v1/functions/hello/jobs/", "/v2/jobs", "/%2e%2e/etc/passwd"] {
        let problem = server.get(path).await.problem(404, "not_found");
        assert!(problem["hint"].as_str().is_some_and(|hint| hint.contains("/openapi.json")));
    }
}

#[tokio::test]
async fn a_name_may_be_percent_encoded() {
    let server = Server::start().await;
    for path in ["/v1/functions/%68ell%6F", "/v1/functions/%68ell%6f/jobs"] {
        assert!(server.post(path, "").await.status < 300, "{path}");
    }
    let problem = server.get("/v1/functions/hell%C3%B6").await.problem(404, "unknown_function");
    assert_eq!(problem["detail"], "there is no function `hellö`");
}

#[tokio::test]
async fn pages_of_the_binary_are_served_beside_the_api() {
    let server = Server::start().await;
    assert_eq!(server.get("/ui").await.text(), "a page");
    server.get("/ui/nothing").await.problem(404, "not_found");
    assert_eq!(server.send("HEAD", "/ui", &[], "").await.status, 200);
    let posted = server.post("/ui", "").await;
    assert_eq!(posted.problem(405, "method_not_allowed")["hint"], "use GET");
    assert_eq!(posted.header("allow"), "GET, HEAD, OPTIONS");
    let options = server.send("OPTIONS", "/ui", &[], "").await;
    assert_eq!((options.status, options.header("allow")), (204, "GET, HEAD, OPTIONS"));
}

#[tokio::test]
async fn the_description_has_every_route_and_no_other() {
    let server = Server::start().await;
    let document = server.get("/openapi.json").await.json();
    let paths = document["paths"].as_object().expect("there are paths");
    for route in &ROUTES {
        let operation = &paths[route.path][route.method.as_str().to_ascii_lowercase()];
        assert_eq!(operation["summary"], route.about);
        let parameters = operation["parameters"].as_array().expect("a list");
        for name in route.query {
            assert!(parameters.iter().any(|p| p["name"] == *name && p["in"] == "query"), "{} {name}", route.path);
        }
    }
    let operation = |path: &str, method: &str| paths[path][method].clone();
    let has_header = |operation: &serde_json::Value, name: &str| {
        let parameters = operation["parameters"].as_array().expect("a list");
        parameters.iter().any(|p| p["name"] == name && p["in"] == "header")
    };
    let submit = operation("/v1/functions/{name}/jobs", "post");
    assert!(has_header(&submit, "Idempotency-Key") && submit["responses"]["422"].is_object(), "{submit}");
    assert!(has_header(&operation("/v1/functions/{name}", "post"), "Prefer"));
    let result = operation("/v1/jobs/{id}/result", "get");
    for status in ["200", "404", "409", "default"] {
        assert!(result["responses"][status].is_object(), "{status}");
    }
    let text = document.to_string();
    for named in text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(document["components"]["schemas"][named].is_object(), "{named} is named and not described");
    }
    assert!(text.contains("schemas/Functions") && text.contains("schemas/Jobs"));
    let operations: usize = paths.values().map(|path| path.as_object().map_or(0, serde_json::Map::len)).sum();
    assert_eq!(operations, ROUTES.len());
    let job = document["components"]["schemas"]["Job"]["properties"].as_object().expect("a job is described");
    assert!(job.contains_key("attempts_max"));
}
