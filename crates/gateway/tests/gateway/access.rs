//! Token, Host and Origin on every route.

use kvern_gateway::routes::ROUTES;
use kvern_gateway::{Settings, Token};

use crate::server::Server;

const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

fn filled(path: &str) -> String {
    path.replace("{name}", "hello").replace("{id}", "01890a5d-ac96-774b-bcce-b302099a8057")
}

async fn guarded() -> Server {
    Server::with(Settings { token: Some(Token::new("s3cret")), ..Settings::default() }).await
}

#[tokio::test]
async fn every_method_on_every_path_needs_the_token_but_the_probes() {
    let server = guarded().await;
    let own = ["/ui", "/submit-job", "/report", "/nothing"].map(str::to_owned);
    let paths = ROUTES.iter().filter(|route| route.guarded).map(|route| filled(route.path));
    for path in paths.chain(own) {
        for method in METHODS {
            server.send(method, &path, &[], "").await.problem(401, "unauthorized");
        }
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(server.get(path).await.status, 200);
    }
    server.get("/readyz?verbose").await.problem(401, "unauthorized");
    let wrong = [("authorization", "Bearer wrong")];
    assert_eq!(
        server.send("GET", "/v1/jobs", &wrong, "").await.problem(401, "unauthorized")["detail"],
        "the token is wrong"
    );
    assert_eq!(server.jobs(), 0);
}

#[tokio::test]
async fn the_token_opens_every_route_by_any_name() {
    let server = guarded().await;
    let headers =
        [("authorization", "Bearer s3cret"), ("host", "kvern.example"), ("origin", "https://elsewhere.example")];
    for route in &ROUTES {
        let answer = server.send(route.method.as_str(), &filled(route.path), &headers, "").await;
        assert!(![401, 403].contains(&answer.status), "{} {}", route.path, answer.text());
    }
    let missing = server.get("/v1/jobs").await;
    assert_eq!(missing.header("www-authenticate"), "Bearer realm=\"kvern\"");
    assert!(server.get("/ui").await.header("www-authenticate").starts_with("Basic "));
}

#[tokio::test]
async fn a_foreign_name_or_page_is_refused_on_every_path() {
    let server = Server::start().await;
    for route in &ROUTES {
        let path = filled(route.path);
        for header in [("host", "evil.example"), ("origin", "https://evil.example"), ("origin", "null")] {
            let answer = server.send(route.method.as_str(), &path, &[header], "").await;
            answer.problem(403, "forbidden_host");
        }
    }
    server.send("GET", "/ui", &[("host", "evil.example")], "").await.problem(403, "forbidden_host");
    let own = [("host", "localhost:8080"), ("origin", "http://localhost:8080")];
    assert_eq!(server.send("POST", "/v1/functions/hello/jobs", &own, "").await.status, 202);
    assert_eq!(server.jobs(), 1);
}
