//! `docs/kvern-toml.md`, from the schema: one row per key.

use std::fmt::Write as _;

use serde_json::Value;

use crate::read::{Table, keys_of};
use crate::schema::{schema, split_default};
use crate::written::{Function, Keep, Retry, Scale, Server};

const INTRODUCTION: &str = "\
# kvern.toml

One file says what runs and with which limits. `kvern check` checks it and reports every mistake with its line;
`kvern check --schema` prints the JSON Schema. This page is generated from that schema: change the comments in
`crates/manifest/src/written.rs`, not this page.

```toml
[functions.resize]
handler = \"resize.py:resize\"
route = \"POST /submit-job\"
timeout = \"2m\"
retry = { attempts = 3, backoff = \"5s\" }
```

**Durations** are strings with a unit: `\"500ms\"`, `\"30s\"`, `\"2m\"`, `\"1h 30m\"`, `\"14d\"`. **Sizes** are strings in
powers of 1024, `\"64k\"`, `\"256M\"`, `\"2G\"` (`M`, `MB` and `MiB` are the same, 1,048,576 bytes), or a whole number of
bytes. **Relative paths** begin at the folder of `kvern.toml`. Unknown keys are mistakes.
";

/// The reference page of `kvern.toml`, in Markdown.
#[must_use]
pub fn reference_markdown() -> String {
    let schema = schema();
    let manifest = &schema["properties"];
    let mut page = INTRODUCTION.to_owned();
    let functions = &manifest["functions"];
    let function = &functions["additionalProperties"];
    let meaning = [description(function), description(functions)].concat();
    section(&mut page, "[functions.NAME]", &meaning);
    rows::<Function>(&mut page, "", function);
    section(&mut page, "[server]", &description(&manifest["server"]));
    rows::<Server>(&mut page, "", &manifest["server"]);
    page
}

fn section(page: &mut String, title: &str, meaning: &[&str]) {
    let meaning = meaning.join("\n\n");
    // Writing to a `String` cannot fail.
    let _ = write!(page, "\n## `{title}`\n\n{meaning}\n\n| key | type | default | meaning |\n|---|---|---|---|\n");
}

fn rows<T: Table>(page: &mut String, prefix: &str, table: &Value) {
    for key in keys_of::<T>() {
        let schema = &table["properties"][key];
        let name = format!("{prefix}{key}");
        row(page, &name, schema);
        match key {
            "retry" => rows::<Retry>(page, "retry.", schema),
            "scale" => rows::<Scale>(page, "scale.", schema),
            "keep" => rows::<Keep>(page, "keep.", schema),
            _ => {}
        }
    }
}

fn row(page: &mut String, name: &str, schema: &Value) {
    let paragraphs = description(schema);
    let mut meaning = Vec::new();
    let mut default = "see below";
    for paragraph in &paragraphs {
        match split_default(paragraph) {
            Some((value, reason)) => {
                default = value;
                meaning.push(reason);
            }
            None => meaning.push(paragraph),
        }
    }
    let _ = writeln!(page, "| `{name}` | {} | {default} | {} |", kind(schema), meaning.join(" ").replace('|', "\\|"));
}

fn description(schema: &Value) -> Vec<&str> {
    schema["description"].as_str().map_or_else(Vec::new, |text| text.split("\n\n").collect())
}

/// The type of a key, for people.
fn kind(schema: &Value) -> String {
    if let Some(title) = schema["title"].as_str() {
        return title.to_owned();
    }
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
        return words.join(" or ");
    }
    match schema["type"].as_str().unwrap_or_default() {
        "integer" => format!("whole number, {} to {}", schema["minimum"], schema["maximum"]),
        "array" => "array of strings".to_owned(),
        "boolean" => "`true` or `false`".to_owned(),
        "object" if schema["properties"].is_object() => "table".to_owned(),
        "object" => "table of strings".to_owned(),
        other => other.to_owned(),
    }
}
