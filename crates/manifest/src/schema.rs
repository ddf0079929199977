//! The JSON Schema of `kvern.toml`, from the as-written types: editors complete and check with it.

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};
use serde_json::Value;

use crate::written;

/// The JSON Schema of `kvern.toml`.
#[must_use]
pub fn schema() -> Value {
    schema_of::<written::Manifest>()
}

/// The JSON Schema as a file: indented, with a line end.
#[must_use]
pub fn schema_text() -> String {
    format!("{:#}\n", schema())
}

/// Draft 7, without references: the form that the TOML plug-ins of editors understand in full.
pub(crate) fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft07()
        .with(|settings| settings.inline_subschemas = true)
        .with_transform(RecursiveTransform(describe));
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// Joins the lines of each description, and says the default in the schema's own word too where it is one value.
fn describe(schema: &mut Schema) {
    let Some(text) = schema.get("description").and_then(Value::as_str) else { return };
    let paragraphs: Vec<String> = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect();
    let default = paragraphs.iter().find_map(|paragraph| default_value(paragraph));
    schema.insert("description".to_owned(), paragraphs.join("\n\n").into());
    if let Some(default) = default {
        schema.insert("default".to_owned(), default);
    }
}

/// The value in ``Default: `…`.``, if it is one. What stands there is TOML; of that, JSON and an underscore are used.
fn default_value(paragraph: &str) -> Option<Value> {
    let (default, _) = split_default(paragraph)?;
    let literal = default.strip_prefix('`')?.strip_suffix('`')?;
    serde_json::from_str(literal).or_else(|_| serde_json::from_str(&literal.replace('_', ""))).ok()
}

/// `Default: X. Reason.` as X and the reason.
pub(crate) fn split_default(paragraph: &str) -> Option<(&str, &str)> {
    paragraph.strip_prefix("Default: ")?.split_once(". ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::{Table, keys_of, nearest};
    use crate::written::{Function, Keep, Manifest, Retry, Scale, Server};

    /// The keys that a schema documents, and those that the reader accepts.
    fn keys<T: Table + JsonSchema>() -> (Vec<String>, Vec<&'static str>) {
        let schema = schema_of::<T>();
        assert_eq!(schema["additionalProperties"], Value::Bool(false), "unknown keys are mistakes in the schema too");
        let documented = schema["properties"].as_object().expect("a table").keys().cloned().collect();
        (documented, keys_of::<T>())
    }

    #[test]
    fn what_is_documented_is_what_is_accepted_and_what_is_suggested() {
        let tables = [
            keys::<Manifest>(),
            keys::<Function>(),
            keys::<Retry>(),
            keys::<Scale>(),
            keys::<Keep>(),
            keys::<Server>(),
        ];
        for (mut documented, accepted) in tables {
            let mut sorted = accepted.clone();
            sorted.sort_unstable();
            documented.sort_unstable();
            assert_eq!(documented, sorted);
            for key in &accepted {
                assert_eq!(nearest(&format!("{key}x"), &accepted), Some(*key), "a slip in `{key}` leads back to it");
            }
        }
    }

    #[test]
    fn every_key_says_what_it_means_and_every_value_its_default() {
        fn look(path: &str, schema: &Value) {
            let description = schema["description"].as_str().unwrap_or_else(|| panic!("`{path}` has no description"));
            if let Some(keys) = schema["properties"].as_object() {
                keys.iter().for_each(|(key, schema)| look(&format!("{path}.{key}"), schema));
            } else if !schema["additionalProperties"]["properties"].is_object() {
                assert!(description.split("\n\n").any(|part| split_default(part).is_some()), "`{path}` has no default");
            }
        }
        look("", &schema());
        look("functions.NAME", &schema()["properties"]["functions"]["additionalProperties"]);
    }
}
