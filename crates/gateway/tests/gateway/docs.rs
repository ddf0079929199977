//! The documents say what the gateway does: codes, fields, paths and parameters are compared.

use std::collections::BTreeSet;

use kvern_core::FailureCode;
use kvern_gateway::error::Code;
use kvern_gateway::routes::ROUTES;

use crate::server::Server;

const ERRORS: &str = include_str!("../../../../docs/errors.md");
const API: &str = include_str!("../../../../docs/http-api.md");

/// The first cells of the table under a heading, without their backquotes.
fn first_cells(document: &'static str, heading: &str) -> BTreeSet<&'static str> {
    let after = document.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading:?}")).1;
    let section = after.split("\n#").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.filter_map(|line| line.split('`').nth(1)).collect()
}

#[test]
fn every_code_has_its_section() {
    for code in Code::ALL {
        let heading = format!("\n### {}\n", code.as_str());
        let section = ERRORS.split_once(&heading).unwrap_or_else(|| panic!("no section for {}", code.as_str())).1;
        let section = section.split("\n##").next().unwrap_or_default();
        let status = format!("`{}`", code.status().as_u16());
        assert!(section.contains(&status), "{}: {status}", code.as_str());
        let again = if code.retryable() { "Send it again: yes" } else { "Send it again: no" };
        assert!(section.contains(again), "{}: {again:?}", code.as_str());
    }
    let sections = ERRORS.matches("\n### ").count();
    assert_eq!(sections, Code::ALL.len(), "a section is of no code");
}

#[test]
fn every_failure_of_a_function_has_its_row() {
    let documented = first_cells(ERRORS, "## Failures of functions");
    let codes = [
        FailureCode::Exception,
        FailureCode::Permanent,
        FailureCode::Retry,
        FailureCode::BadInput,
        FailureCode::Exit,
        FailureCode::Timeout,
        FailureCode::Crash,
        FailureCode::OutOfMemory,
        FailureCode::ResultTooLarge,
        FailureCode::ProtocolError,
        FailureCode::CannotStart,
        FailureCode::NoRoom,
        FailureCode::ResultNotStored,
        FailureCode::Expired,
        FailureCode::Interrupted,
        FailureCode::Damaged,
    ];
    assert_eq!(documented, codes.iter().map(|code| code.as_str()).collect());
}

#[tokio::test]
async fn every_field_of_a_job_is_documented_and_no_other() {
    let server = Server::start().await;
    let failure = kvern_core::Failure::new(FailureCode::Exception, "no").with_class("E").with_trace("t");
    let failed = server.finished(Err(failure)).await;
    let failed = server.get(&format!("/v1/jobs/{failed}")).await.json();
    let done = server.finished(Ok("x")).await;
    let done = server.get(&format!("/v1/jobs/{done}")).await.json();
    for (heading, object) in [
        ("### The record of a job", &done),
        ("### Its attempts", &done["attempts"][0]),
        ("### Its result", &done["result"]),
        ("### Its error", &failed["error"]),
        ("### Its links", &done["links"]),
    ] {
        let fields: BTreeSet<&str> = object.as_object().expect(heading).keys().map(String::as_str).collect();
        assert_eq!(first_cells(API, heading), fields, "{heading}");
    }
    let described = server.get("/openapi.json").await.json();
    let described = described["components"]["schemas"]["Job"]["properties"].as_object().cloned().expect("a schema");
    let described: BTreeSet<&str> = described.keys().map(String::as_str).collect();
    assert_eq!(first_cells(API, "### The record of a job"), described);
}

#[tokio::test]
async fn every_field_of_a_function_is_documented_and_no_other() {
    let server = Server::start().await;
    let function = server.get("/v1/functions/hello").await.json();
    let fields: BTreeSet<&str> = function.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(first_cells(API, "### The record of a function"), fields);
    let document = server.get("/openapi.json").await.json();
    let described = document["components"]["schemas"]["Function"]["properties"].as_object().cloned().expect("a schema");
    assert_eq!(described.keys().map(String::as_str).collect::<BTreeSet<_>>(), fields);
}

#[test]
fn every_route_is_documented_with_its_parameters() {
    let documented = first_cells(API, "## Paths");
    let routes: Vec<String> = ROUTES.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
    assert_eq!(documented, routes.iter().map(String::as_str).collect());
    for name in ROUTES.iter().flat_map(|route| route.query) {
        assert!(API.contains(&format!("| `{name}` |")), "the parameter {name}");
    }
}

#[tokio::test]
async fn the_errors_are_served_where_problems_point() {
    let server = Server::start().await;
    let problem = server.get("/nothing").await.json();
    let path = problem["type"].as_str().expect("a type").split('#').next().expect("a path").to_owned();
    let page = server.get(&path).await;
    assert_eq!((page.status, page.text()), (200, ERRORS));
}
