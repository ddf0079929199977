//! From text to a TOML document. What TOML itself refuses becomes mistakes like all others.

use toml::Spanned;
use toml::de::{DeTable, Error};

use crate::mistake::{Report, Span, shorten};

/// Errors after which the parser still knows where it is. They are local, so the rest of the document can be checked;
/// after any other one (a bracket that never closes) what follows may stand in the wrong table.
const LOCAL: [&str; 3] = ["duplicate key", UNQUOTED, "key with no value"];
const UNQUOTED: &str = "string values must be quoted";

/// The document, as far as it was understood; none if reading on would only report what follows from the first mistake.
pub(crate) fn parse<'t>(text: &'t str, report: &mut Report<'t>) -> Option<Spanned<DeTable<'t>>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let Some(lost) = errors.iter().position(|error| !LOCAL.iter().any(|known| error.message().starts_with(known)))
    else {
        for error in &errors {
            note(error, text, report);
        }
        return Some(document);
    };
    // Only the first of these: a bracket that never closes makes an error of every line below it.
    note(&errors[lost], text, report);
    None
}

fn note(error: &Error, text: &str, report: &mut Report<'_>) {
    let span = error.span().unwrap_or(text.len()..text.len());
    match error.message() {
        unquoted if unquoted.starts_with(UNQUOTED) => note_unquoted(&span, text, report),
        "duplicate key" => {
            let key = report.excerpt(&span);
            report.add_syntax(&span, format!("`{key}` is given twice in the same table")).hint("remove one of them");
        }
        other => {
            report.add_syntax(&span, format!("this is not TOML: {other}"));
        }
    }
}

/// `timeout = 30s`, and `timeout =` with nothing behind it.
fn note_unquoted(span: &Span, text: &str, report: &mut Report<'_>) {
    match text.get(span.clone()).unwrap_or_default().trim() {
        "" => report.add_syntax(span, "a value is missing here"),
        bare => {
            let mistake = report.add_syntax(span, format!("text must stand in quotes: {}", shorten(bare)));
            mistake.hint(format!("write `\"{}\"`", shorten(bare)));
            mistake
        }
    };
}
