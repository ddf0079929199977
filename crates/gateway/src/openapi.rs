//! `/openapi.json`, made from the route table, and `/v1/errors`.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde_json::{Map, Value, json};

use crate::describe;
use crate::error::{Code, Problem};
use crate::job_json;
use crate::reply::{self, Response};
use crate::routes::{ROUTES, Route, What};

/// The document that explains the codes, as it stands in the repository.
const ERRORS: &str = include_str!("../../../docs/errors.md");

/// `GET /v1/errors`: where the `type` of a problem leads.
pub(crate) fn errors_page() -> Response {
    reply::whole(StatusCode::OK, HeaderValue::from_static("text/markdown; charset=utf-8"), ERRORS)
}

/// `GET /openapi.json`.
pub(crate) fn document() -> Result<Response, Problem> {
    static DOCUMENT: OnceLock<Bytes> = OnceLock::new();
    let document = DOCUMENT.get_or_init(|| serde_json::to_vec(&description()).unwrap_or_default().into());
    Ok(reply::whole(StatusCode::OK, reply::JSON, document.clone()))
}

fn description() -> Value {
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for route in &ROUTES {
        let operations = paths.entry(route.path).or_default();
        operations.insert(route.method.as_str().to_ascii_lowercase(), operation(route));
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Kvern", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": {
            "schemas": {
                "Problem": problem(),
                "Accepted": accepted(),
                "Job": record(&job_json::FIELDS),
                "Jobs": page("jobs", "Job", json!({ "next": { "type": ["string", "null"] } })),
                "Function": record(&describe::FIELDS),
                "Functions": page("functions", "Function", json!({})),
            },
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn operation(route: &Route) -> Value {
    let parameter = |place: &str, name: &str| {
        let is_required = place == "path";
        json!({ "name": name, "in": place, "required": is_required, "schema": { "type": "string" } })
    };
    let mut parameters: Vec<Value> = placeholder(route.path).map(|name| parameter("path", name)).into_iter().collect();
    parameters.extend(route.query.iter().map(|name| parameter("query", name)));
    parameters.extend(headers(route.what).iter().map(|name| parameter("header", name)));
    let mut responses: Map<String, Value> = Map::new();
    for (status, description, schema) in successes(route.what) {
        responses.insert((*status).to_owned(), answer(description, *schema));
    }
    for (status, description) in refusals(route.what) {
        responses.insert((*status).to_owned(), problem_answer(description));
    }
    responses.insert("default".to_owned(), problem_answer("What went wrong"));
    let mut operation = json!({
        "operationId": format!("{:?}", route.what),
        "summary": route.about,
        "parameters": parameters,
        "responses": responses,
        "security": if route.guarded { json!([{ "token": [] }]) } else { json!([]) },
    });
    if matches!(route.what, What::Submit | What::Call) {
        operation["requestBody"] = json!({ "content": { "*/*": {} } });
    }
    operation
}

/// The headers that mean something, beside those of HTTP itself.
fn headers(what: What) -> &'static [&'static str] {
    match what {
        What::Submit => &["Idempotency-Key"],
        What::Call => &["Idempotency-Key", "Prefer"],
        _ => &[],
    }
}

/// Status, meaning and schema of what goes well; bytes of any kind have no schema.
fn successes(what: What) -> &'static [(&'static str, &'static str, Option<&'static str>)] {
    match what {
        What::Submit => &[("202", "The job is accepted", Some("Accepted"))],
        What::Call => &[("200", "The function's own bytes", None), ("202", "The job is accepted", Some("Accepted"))],
        What::Job | What::Cancel | What::Retry => &[("200", "The record of the job", Some("Job"))],
        What::Jobs => &[("200", "A page of records", Some("Jobs"))],
        What::Result | What::Input | What::Logs => &[("200", "The bytes", None)],
        What::Functions => &[("200", "The functions", Some("Functions"))],
        What::Function | What::Pause | What::Resume => &[("200", "The function", Some("Function"))],
        What::Errors | What::Healthz | What::Readyz | What::Metrics | What::OpenApi => &[("200", "As it says", None)],
    }
}

/// Status and meaning of what a client should expect to be told instead.
fn refusals(what: What) -> &'static [(&'static str, &'static str)] {
    match what {
        What::Submit => &[
            ("413", "The input is too large"),
            ("422", "The Idempotency-Key was used with another body"),
            ("429", "The queue of the function is full"),
            ("503", "Nothing was stored; send it again after Retry-After"),
        ],
        What::Call => &[
            ("400", "The function cannot take this input"),
            ("413", "The input is too large"),
            ("502", "The function failed"),
            ("503", "No instance became free in time"),
            ("504", "The function took too long"),
        ],
        What::Result => {
            &[("404", "There is no such job"), ("409", "The job has not finished, failed, or was cancelled")]
        }
        What::Job | What::Logs | What::Input => &[("404", "There is no such job")],
        What::Cancel | What::Retry => {
            &[("404", "There is no such job"), ("409", "The job's state does not allow this")]
        }
        What::Function | What::Pause | What::Resume => &[("404", "There is no such function")],
        What::Readyz => &[("503", "No jobs are accepted")],
        _ => &[],
    }
}

fn answer(description: &str, schema: Option<&str>) -> Value {
    match schema {
        None => json!({ "description": description }),
        Some(name) => {
            let schema = json!({ "$ref": format!("#/components/schemas/{name}") });
            json!({ "description": description, "content": { "application/json": { "schema": schema } } })
        }
    }
}

fn problem_answer(description: &str) -> Value {
    let schema = json!({ "$ref": "#/components/schemas/Problem" });
    json!({ "description": description, "content": { "application/problem+json": { "schema": schema } } })
}

fn placeholder(path: &str) -> Option<&str> {
    path.split_once('{')?.1.split_once('}').map(|(name, _)| name)
}

/// The schema of a record whose fields are all there, always.
fn record(fields: &[(&str, &[&str])]) -> Value {
    let properties: Map<String, Value> =
        fields.iter().map(|(name, types)| ((*name).to_owned(), json!({ "type": types }))).collect();
    let required: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    json!({ "type": "object", "required": required, "properties": properties })
}

/// The schema of a list of records under a name, with what else stands there.
fn page(name: &str, of: &str, mut properties: Value) -> Value {
    properties[name] = json!({ "type": "array", "items": { "$ref": format!("#/components/schemas/{of}") } });
    json!({ "type": "object", "required": [name], "properties": properties })
}

fn accepted() -> Value {
    let text = json!({ "type": "string" });
    json!({
        "type": "object",
        "required": ["id", "state", "function", "created_at", "links"],
        "properties": {
            "id": text,
            "state": text,
            "function": text,
            "created_at": text,
            "duplicate": { "type": "boolean" },
            "links": { "type": "object" },
        },
    })
}

fn problem() -> Value {
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    json!({
        "type": "object",
        "required": ["type", "title", "status", "detail", "code", "retryable"],
        "properties": {
            "type": { "type": "string" },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "detail": { "type": "string" },
            "code": { "type": "string", "enum": codes },
            "hint": { "type": "string" },
            "retryable": { "type": "boolean" },
            "job": { "type": "string" },
            "error": { "type": "object" },
        },
    })
}
