//! `/openapi.json`, made from the route table, and `/v1/errors`.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde_json::{Map, Value, json};

use crate::error::{Code, Problem};
use crate::job_json::FIELDS;
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
    let document = DOCUMENT.get_or_init(|| serde_json::to_vec(&describe()).unwrap_or_default().into());
    Ok(reply::whole(StatusCode::OK, reply::JSON, document.clone()))
}

fn describe() -> Value {
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
            "schemas": { "Problem": problem(), "Job": job() },
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut parameters: Vec<Value> = Vec::new();
    if let Some(name) = placeholder(route.path) {
        parameters.push(json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
    }
    parameters
        .extend(route.query.iter().map(|name| json!({ "name": name, "in": "query", "schema": { "type": "string" } })));
    let mut operation = json!({
        "operationId": format!("{:?}", route.what),
        "summary": route.about,
        "parameters": parameters,
        "responses": {
            "default": {
                "description": "What went wrong",
                "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
            },
        },
        "security": if route.guarded { json!([{ "token": [] }]) } else { json!([]) },
    });
    for (status, description) in successes(route.what) {
        operation["responses"][status] = json!({ "description": description });
    }
    if matches!(route.what, What::Job | What::Cancel | What::Retry) {
        let schema = json!({ "$ref": "#/components/schemas/Job" });
        operation["responses"]["200"]["content"] = json!({ "application/json": { "schema": schema } });
    }
    if matches!(route.what, What::Submit | What::Call) {
        operation["requestBody"] = json!({ "content": { "*/*": {} } });
    }
    operation
}

fn successes(what: What) -> &'static [(&'static str, &'static str)] {
    match what {
        What::Submit => &[("202", "The job is accepted")],
        What::Call => &[("200", "The function's own bytes"), ("202", "The job is accepted")],
        What::Job | What::Cancel | What::Retry => &[("200", "The record of the job")],
        What::Jobs => &[("200", "A page of records")],
        What::Result | What::Input | What::Logs => &[("200", "The bytes")],
        What::Functions => &[("200", "The functions")],
        What::Function | What::Pause | What::Resume => &[("200", "The function")],
        What::Errors | What::Healthz | What::Readyz | What::Metrics | What::OpenApi => &[("200", "As it says")],
    }
}

fn placeholder(path: &str) -> Option<&str> {
    path.split_once('{')?.1.split_once('}').map(|(name, _)| name)
}

fn job() -> Value {
    let properties: Map<String, Value> =
        FIELDS.iter().map(|(name, types)| ((*name).to_owned(), json!({ "type": types }))).collect();
    let required: Vec<&str> = FIELDS.iter().map(|(name, _)| *name).collect();
    json!({ "type": "object", "required": required, "properties": properties })
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
