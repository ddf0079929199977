//! The JSON Schema agrees with the checker, as far as a schema can say it.

use serde_json::Value;

/// A manifest as JSON.
fn json(text: &str) -> Value {
    toml::from_str(text).expect(text)
}

/// What `schema` has against `value`. Patterns are not looked at: that takes a library of its own. A word that this
/// does not know fails the test, so that the schema cannot outgrow it unnoticed.
fn objections(path: &str, schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (word, rule) in schema.as_object().expect("a schema") {
        let holds = match word.as_str() {
            "$schema" | "title" | "description" | "default" | "format" | "pattern" => true,
            "type" => has_type(rule, value),
            "enum" => rule.as_array().expect("a list").contains(value),
            "minimum" => value.as_i64().is_none_or(|number| number >= rule.as_i64().expect("a number")),
            "maximum" => value.as_i64().is_none_or(|number| number <= rule.as_i64().expect("a number")),
            "minItems" => value.as_array().is_none_or(|items| items.len() as u64 >= rule.as_u64().expect("a number")),
            "required" => {
                rule.as_array().expect("a list").iter().all(|key| value.get(key.as_str().expect("key")).is_some())
            }
            "oneOf" => {
                let ways = rule.as_array().expect("a list").iter();
                ways.filter(|schema| objections(path, schema, value).is_empty()).count() == 1
            }
            "items" => {
                let items = value.as_array().into_iter().flatten();
                found.extend(items.flat_map(|item| objections(path, rule, item)));
                true
            }
            "properties" | "additionalProperties" | "propertyNames" => true,
            other => panic!("`{path}`: the schema says `{other}`"),
        };
        if !holds {
            found.push(format!("{path}: {word}"));
        }
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        let path = format!("{path}.{key}");
        match (&schema["properties"][key], &schema["additionalProperties"]) {
            (known @ Value::Object(_), _) => found.extend(objections(&path, known, value)),
            (_, rest @ Value::Object(_)) => found.extend(objections(&path, rest, value)),
            (_, Value::Bool(false)) => found.push(format!("{path}: unknown")),
            _ => {}
        }
    }
    found
}

fn has_type(rule: &Value, value: &Value) -> bool {
    let is = |name: &Value| match name.as_str().expect("a type") {
        "string" => value.is_string(),
        "integer" => value.is_i64(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the schema has the type `{other}`"),
    };
    rule.as_array().map_or_else(|| is(rule), |names| names.iter().any(is))
}

#[test]
fn it_accepts_what_the_checker_accepts() {
    for text in crate::good::EXAMPLES {
        crate::good(text);
        assert_eq!(objections("", &kvern_manifest::schema(), &json(text)), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn it_refuses_what_an_editor_should_underline() {
    for (lines, objection) in [
        ("timout = \"3s\"", ".functions.a.timout: unknown"),
        ("timeout = 3", ".functions.a.timeout: type"),
        ("retry = { attempts = 101 }", ".functions.a.retry.attempts: maximum"),
        ("mode = \"later\"", ".functions.a.mode: enum"),
        ("exec = [\"./a\"]", ".functions.a: oneOf"),
        ("env = { PORT = 80 }", ".functions.a.env.PORT: type"),
    ] {
        let text = format!("[functions.a]\nhandler = \"a.py:f\"\n{lines}\n");
        assert!(crate::check_text(&text).is_err(), "{text}");
        assert_eq!(objections("", &kvern_manifest::schema(), &json(&text)), [objection], "{text}");
    }
}

#[test]
fn its_text_is_the_same_schema() {
    let text = kvern_manifest::schema_text();
    assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), kvern_manifest::schema());
    assert!(text.ends_with("}\n"));
}

#[test]
fn the_reference_page_has_a_row_for_every_key() {
    let page = kvern_manifest::reference_markdown();
    for key in ["handler", "retry", "retry.max_backoff", "scale.idle", "keep.failed", "max_queued", "listen", "queue"] {
        assert_eq!(page.matches(&format!("\n| `{key}` | ")).count(), 1, "{key}");
    }
    let columns = |line: &str| line.matches(" | ").count();
    assert!(page.lines().filter(|line| line.starts_with("| `")).all(|line| columns(line) == 3), "{page}");
    assert!(page.contains("| `timeout` | duration | `\"60s\"` | "));
}
