//! From TOML to the as-written types, noting every mistake and going on.
//!
//! Not serde: a `Deserialize` ends at the first mistake, and this must report them all, each in its place. A table
//! names its keys once, in [`Table::read`]; what it asks for is what is accepted and what "did you mean" chooses from.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::mistake::{Report, Span, shorten};

/// One key of a table as written.
#[derive(Debug, Default)]
pub(crate) enum Field<T> {
    /// It is not there.
    #[default]
    Absent,
    /// It is there and unreadable, which has been reported.
    Bad { span: Span },
    /// It is there.
    Good(Given<T>),
}

/// A value that is there, with its place.
#[derive(Debug)]
pub(crate) struct Given<T> {
    /// The key from the top of the file: `functions.hello.timeout`.
    pub(crate) path: String,
    pub(crate) span: Span,
    pub(crate) value: T,
}

/// A table whose keys the user chooses, in the order of the file.
#[derive(Debug, Default)]
pub(crate) struct Entries<T>(pub(crate) Vec<Entry<T>>);

/// One of [`Entries`].
#[derive(Debug)]
pub(crate) struct Entry<T> {
    pub(crate) name: String,
    /// Where the name stands.
    pub(crate) name_span: Span,
    pub(crate) value: T,
}

/// A type that a TOML value can be.
pub(crate) trait FromToml: Sized {
    /// What must stand there, for `must be …`.
    const EXPECTED: &'static str;

    /// None if the value has another form; the caller reports it.
    fn from_toml(value: &DeValue<'_>, path: &str, report: &mut Report<'_>) -> Option<Self>;

    /// What to write instead, for the value that is not it.
    fn hint(_value: &DeValue<'_>) -> Option<String> {
        None
    }
}

/// A table with keys of ours.
pub(crate) trait Table: Sized {
    /// What must stand there, for `must be …`.
    const EXPECTED: &'static str;

    /// Takes each key once.
    fn read(keys: &mut Keys<'_, '_, '_>) -> Self;
}

/// The keys of one table, while it is read.
pub(crate) struct Keys<'v, 'r, 't> {
    table: &'v DeTable<'v>,
    path: &'v str,
    known: Vec<&'static str>,
    report: &'r mut Report<'t>,
}

/// Reads the whole document.
pub(crate) fn document<T: Table>(table: &DeTable<'_>, report: &mut Report<'_>) -> T {
    read_table(table, "", report).0
}

/// The keys that a table accepts, in the order in which it documents them.
pub(crate) fn keys_of<T: Table>() -> Vec<&'static str> {
    read_table::<T>(&DeTable::new(), "", &mut Report::new("")).1
}

// === impl Field ===

impl<T> Field<T> {
    /// The value with its place, if it is there and readable.
    pub(crate) fn given(&self) -> Option<&Given<T>> {
        if let Self::Good(given) = self { Some(given) } else { None }
    }

    /// The value, if it is there and readable.
    pub(crate) fn value(&self) -> Option<&T> {
        self.given().map(|given| &given.value)
    }

    /// Where it stands, readable or not.
    pub(crate) fn span(&self) -> Option<&Span> {
        match self {
            Self::Absent => None,
            Self::Bad { span } => Some(span),
            Self::Good(given) => Some(&given.span),
        }
    }
}

// A field's schema is that of its value: TOML has no null, so `Option` would promise too much.
impl<T: JsonSchema> JsonSchema for Field<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl<T: JsonSchema> JsonSchema for Entries<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Entries_of_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "additionalProperties": T::json_schema(generator) })
    }
}

// === impl Keys ===

impl Keys<'_, '_, '_> {
    /// Reads the value of `key`, and makes `key` a known one.
    pub(crate) fn take<T: FromToml>(&mut self, key: &'static str) -> Field<T> {
        self.known.push(key);
        let Some((name, value)) = self.table.get_key_value(key) else { return Field::Absent };
        let path = join(self.path, key);
        match read_value(&name.span(), value, &path, self.report) {
            Some(read) => Field::Good(Given { path, span: shown_span(&name.span(), value), value: read }),
            None => Field::Bad { span: value.span() },
        }
    }

    /// Reports the keys that nobody took, and returns those that somebody did.
    fn finish(self) -> Vec<&'static str> {
        let Self { table, path, known, report } = self;
        for (name, value) in table {
            let key = name.get_ref();
            if known.contains(&key.as_ref()) {
                continue;
            }
            let hint = match nearest(key, &known) {
                Some(near) => format!("did you mean `{near}`?"),
                None if path.is_empty() && value.get_ref().is_table() => {
                    format!("a function is written as `[functions.{}]`", shorten(key))
                }
                None => format!("known here are {}", list(&known)),
            };
            report.add(&name.span(), format!("unknown key `{}`", join(path, key))).hint(hint);
        }
        known
    }
}

// === impl FromToml ===

impl<T: Table> FromToml for T {
    const EXPECTED: &'static str = <T as Table>::EXPECTED;

    fn from_toml(value: &DeValue<'_>, path: &str, report: &mut Report<'_>) -> Option<Self> {
        Some(read_table(value.as_table()?, path, report).0)
    }
}

impl<T: FromToml> FromToml for Entries<T> {
    const EXPECTED: &'static str = "a table";

    fn hint(_: &DeValue<'_>) -> Option<String> {
        Some(format!("each entry of it is {}", T::EXPECTED))
    }

    fn from_toml(value: &DeValue<'_>, path: &str, report: &mut Report<'_>) -> Option<Self> {
        let mut entries = Vec::new();
        for (name, value) in value.as_table()? {
            let path = join(path, name.get_ref());
            if let Some(value) = read_value(&name.span(), value, &path, report) {
                entries.push(Entry { name: name.get_ref().to_string(), name_span: name.span(), value });
            }
        }
        entries.sort_by_key(|entry| entry.name_span.start);
        Some(Self(entries))
    }
}

// === helpers ===

fn read_table<T: Table>(table: &DeTable<'_>, path: &str, report: &mut Report<'_>) -> (T, Vec<&'static str>) {
    let mut keys = Keys { table, path, known: Vec::new(), report };
    let read = T::read(&mut keys);
    (read, keys.finish())
}

/// Reads one value, or reports that it is none.
pub(crate) fn read_value<T: FromToml>(
    name: &Span,
    value: &Spanned<DeValue<'_>>,
    path: &str,
    report: &mut Report<'_>,
) -> Option<T> {
    let read = T::from_toml(value.get_ref(), path, report);
    if read.is_none() {
        let found = found(name, value, report);
        let mistake =
            report.add(&shown_span(name, value), format!("`{}` must be {}, not {found}", shorten(path), T::EXPECTED));
        mistake.hint = T::hint(value.get_ref());
    }
    read
}

/// What stands there instead: its type, and the text itself where that is short by nature.
fn found(name: &Span, value: &Spanned<DeValue<'_>>, report: &Report<'_>) -> String {
    let kind = value.get_ref().type_str();
    let article = if kind.starts_with(['a', 'i']) { "an" } else { "a" };
    match value.get_ref() {
        DeValue::Array(items) if items.iter().all(|item| item.get_ref().is_table()) => "an array of tables".to_owned(),
        DeValue::Array(_) | DeValue::Table(_) => format!("{article} {kind}"),
        _ => format!("the {kind} {}", report.excerpt(&shown_span(name, value))),
    }
}

/// Where the caret goes: under the value; for a table under its name, since tables under `[headers]` have no one place.
fn shown_span(name: &Span, value: &Spanned<DeValue<'_>>) -> Span {
    if value.get_ref().is_table() { name.clone() } else { value.span() }
}

fn join(path: &str, key: &str) -> String {
    let key = shorten(key);
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// The known word that a reader most likely meant.
pub(crate) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    // From here on names differ by a slip (`timout`, `retries`), below it they share letters by chance.
    const LIKENESS_MIN: f64 = 0.83;
    let word: String = word.chars().take(64).flat_map(char::to_lowercase).collect();
    let likeness = |candidate: &str| strsim::jaro_winkler(&word, candidate);
    let best = known.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) >= LIKENESS_MIN).then_some(best)
}

/// `a`, `b` and `c`.
pub(crate) fn list(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.as_slice() {
        [rest @ .., last] if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}
