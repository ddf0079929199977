//! What runs: exactly one of `handler` and `exec`.

use std::path::PathBuf;

use kvern_core::{Door, Language};

use crate::mistake::{Report, Span, shorten};
use crate::read::Given;
use crate::written;

/// The endings that decide the language.
const ENDINGS: [(&str, Language); 4] =
    [(".py", Language::Python), (".mjs", Language::Node), (".js", Language::Node), (".cjs", Language::Node)];

/// The door of a function; none if there is a mistake in it, which is reported then.
pub(crate) fn door(name: &str, at: &Span, written: &written::Function, report: &mut Report<'_>) -> Option<Door> {
    match (written.handler.span(), written.exec.span()) {
        (None, None) => {
            let message = format!("`functions.{}` says nothing to run", shorten(name));
            report.missing(at, message, "add `handler = \"file.py:function\"` or `exec = [\"./program\"]`");
        }
        (Some(first), Some(second)) => {
            let later = if first.start > second.start { first } else { second };
            let message = format!("`functions.{}` has both `handler` and `exec`", shorten(name));
            report.add(later, message).hint("a function is entered in one way: remove one of them");
        }
        _ => {}
    }
    // Both are looked at even if there is one too many: the one that stays should be right.
    let handler = written.handler.given().and_then(|given| handler(given, report));
    let exec = written.exec.given().and_then(|given| exec(given, report));
    handler.or(exec)
}

/// `file.py:function`, `file.mjs`.
fn handler(given: &Given<String>, report: &mut Report<'_>) -> Option<Door> {
    let (file, entry) = match given.value.rsplit_once(':') {
        Some((file, entry)) => (file, Some(entry)),
        None => (given.value.as_str(), None),
    };
    let language = ENDINGS.iter().find(|(ending, _)| file.ends_with(ending) && file_has_a_name(file, ending));
    let Some((_, language)) = language else {
        let message =
            format!("`{}` must name a file that ends in .py, .mjs, .js or .cjs, not {:?}", given.path, shorten(file));
        report.add(&given.span, message).hint(better_file(file, entry));
        return None;
    };
    if let Some(entry) = entry.filter(|entry| !is_identifier(entry)) {
        let message = format!("`{}` must name a function after the `:`, not {:?}", given.path, shorten(entry));
        report.add(&given.span, message).hint("write `file:function`, or the file alone");
        return None;
    }
    if file.contains('\0') {
        report.add(&given.span, format!("`{}` contains a zero byte", given.path));
        return None;
    }
    Some(Door::Handler { language: *language, file: PathBuf::from(file), entry: entry.map(str::to_owned) })
}

/// Whether something stands before the ending: `.py` and `src/.py` are hidden files, not handlers.
fn file_has_a_name(file: &str, ending: &str) -> bool {
    file.strip_suffix(ending).is_some_and(|stem| !stem.is_empty() && !stem.ends_with('/'))
}

/// What to write instead of a file without one of our endings.
fn better_file(file: &str, entry: Option<&str>) -> String {
    // `tasks:resize` (as gunicorn writes it) and `tasks.resize` (as AWS Lambda does) are names of modules. Up to
    // three letters behind a dot are rather the ending of a file.
    let guess = match (entry, file.split_once('.')) {
        (Some(entry), None) if is_identifier(file) => Some((file, entry)),
        (None, Some((module, entry))) if is_identifier(module) && is_identifier(entry) && entry.len() > 3 => {
            Some((module, entry))
        }
        _ => None,
    };
    match guess {
        Some((module, entry)) => format!("did you mean `{}`?", shorten(&format!("{module}.py:{entry}"))),
        None => "other programs run with `exec = [\"./program\"]`".to_owned(),
    }
}

/// An identifier in Python or JavaScript, as far as an entry needs it.
fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    let starts_well = chars.next().is_some_and(|c| c.is_alphabetic() || c == '_' || c == '$');
    starts_well && chars.all(|c| c.is_alphanumeric() || c == '_' || c == '$')
}

/// Program and arguments.
fn exec(given: &Given<Vec<String>>, report: &mut Report<'_>) -> Option<Door> {
    let problem = match given.value.first() {
        None => "must name a program, not be empty",
        Some(program) if program.trim().is_empty() => "must begin with the name of a program",
        _ if given.value.iter().any(|word| word.contains('\0')) => "contains a zero byte",
        _ => return Some(Door::Exec { argv: given.value.clone() }),
    };
    report.add(&given.span, format!("`{}` {problem}", given.path));
    None
}
