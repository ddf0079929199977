//! The documents that are made from the code: the schema of `kvern.toml` and its reference page.

use std::process::Command;

use kvern_e2e::files::of_repository;
use kvern_e2e::kvern;
use serde_json::Value;

/// Writes the page anew instead of comparing: `UPDATE_DOCS=1 cargo test -p kvern-e2e the_reference_page`.
const UPDATE: &str = "UPDATE_DOCS";

#[test]
fn the_reference_page_is_the_one_that_the_code_makes() {
    let path = of_repository("docs").join("kvern-toml.md");
    let made = kvern_manifest::reference_markdown();
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, &made).expect("the page is written");
    }
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        page == made,
        "docs/kvern-toml.md is of another time: {UPDATE}=1 cargo test -p kvern-e2e the_reference_page"
    );
}

#[test]
fn the_schema_accepts_the_manifests_of_the_examples() {
    let output = Command::new(kvern()).args(["check", "--schema"]).output().expect("kvern runs");
    let schema: Value = serde_json::from_slice(&output.stdout).expect("a schema is JSON");
    assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
    let mut manifests = 0;
    for entry in std::fs::read_dir(of_repository("examples")).expect("examples").flatten() {
        let Ok(text) = std::fs::read_to_string(entry.path().join("kvern.toml")) else { continue };
        let manifest: Value = toml::from_str(&text).expect("the manifest of an example is TOML");
        accepts(&schema, &manifest, &entry.path().display().to_string());
        manifests += 1;
    }
    assert!(manifests >= 2);
}

/// What of a schema matters here: types, known keys and required ones.
fn accepts(schema: &Value, value: &Value, place: &str) {
    if let Some(kind) = schema["type"].as_str() {
        let is_right = match kind {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_u64(),
            _ => true,
        };
        assert!(is_right, "{place} is no {kind}: {value}");
    }
    for (key, inner) in value.as_object().into_iter().flatten() {
        let known = &schema["properties"][key];
        let others = &schema["additionalProperties"];
        assert!(!known.is_null() || others.is_object(), "{place}: the schema does not know `{key}`");
        accepts(if known.is_null() { others } else { known }, inner, &format!("{place}.{key}"));
    }
    for required in schema["required"].as_array().into_iter().flatten() {
        assert!(value.get(required.as_str().expect("a name")).is_some(), "{place} needs {required}");
    }
}
