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
