//! A function's own route: `route = "POST /submit-job"`.

use std::collections::HashMap;

use kvern_core::Route;

use crate::mistake::{Report, Span, shorten};
use crate::read::{Given, list};

/// The methods that a route may have. HEAD and OPTIONS are answered by the gateway itself.
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// The paths that belong to the server, with everything below them.
const RESERVED: [&str; 6] = ["/v1", "/ui", "/healthz", "/readyz", "/metrics", "/openapi.json"];

/// What a path may consist of: the characters of RFC 3986 that stand for themselves. `{`, `:` and `*` would be
/// placeholders, `?` and `#` end a path, and `%` would make two spellings of one route.
const PATH_PUNCTUATION: &str = "/-._~!$&'()+,;=@";

/// The routes that are taken: by whom, and where that stands.
pub(crate) type Taken = HashMap<Route, (String, Span)>;

/// The route; none if there is a mistake in it, which is reported then.
pub(crate) fn route(given: &Given<String>, name: &str, taken: &mut Taken, report: &mut Report<'_>) -> Option<Route> {
    let route = parse(given, report)?;
    if let Some((owner, span)) = taken.get(&route) {
        let line = report.line(span);
        let message =
            format!("`{}`: {} {} is already the route of `{owner}`, line {line}", given.path, route.method, route.path);
        report.add(&given.span, message).hint("give one of them another path or another method");
        return None;
    }
    taken.insert(route.clone(), (name.to_owned(), given.span.clone()));
    Some(route)
}

fn parse(given: &Given<String>, report: &mut Report<'_>) -> Option<Route> {
    let text = given.value.trim();
    let (method, path) = match text.split_once(' ') {
        Some((method, path)) => (method, path.trim_start()),
        None if text.starts_with('/') => ("", text),
        None => (text, ""),
    };
    // Both parts are looked at even if the first is wrong; its hint only repeats a path that is right.
    let problem = problem_with(path);
    let method_is_known = METHODS.contains(&method);
    if !method_is_known {
        let found = if method.is_empty() { "the path".to_owned() } else { format!("{:?}", shorten(method)) };
        let message = format!("`{}` must begin with {}, not {found}", given.path, methods());
        let known = METHODS.iter().find(|known| known.eq_ignore_ascii_case(method)).unwrap_or(&"POST");
        let path = if problem.is_some() { "/path" } else { path };
        report.add(&given.span, message).hint(format!("write `\"{known} {}\"`", shorten(path)));
    }
    match problem {
        // A word alone is taken for the method; that its path is missing goes without saying.
        Some(_) if path.is_empty() && !method_is_known => {}
        Some((problem, hint)) => {
            report.add(&given.span, format!("`{}`: the path {problem}", given.path)).hint(hint);
        }
        None if method_is_known => return Some(Route { method: method.to_owned(), path: path.to_owned() }),
        None => {}
    }
    None
}

/// What is wrong with a path, and what helps.
fn problem_with(path: &str) -> Option<(String, &'static str)> {
    if !path.starts_with('/') {
        return Some(("must begin with `/`".to_owned(), "as in `\"POST /submit-job\"`"));
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || PATH_PUNCTUATION.contains(c);
    if let Some(odd) = path.chars().find(|c| !is_plain(*c)) {
        let hint = "a route is a plain path: letters, digits and punctuation, no placeholders, no query";
        return Some((format!("may not contain {odd:?}"), hint));
    }
    // Clients tidy such paths before they send them, so the route would never be met.
    let mut segments = path[1..].split('/').rev().skip(1);
    if segments.any(str::is_empty) || path.split('/').any(|segment| segment == "." || segment == "..") {
        return Some(("has an empty, `.` or `..` segment".to_owned(), "write the path as clients send it"));
    }
    let under = |base: &&&str| path.strip_prefix(**base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let base = RESERVED.iter().find(under)?;
    Some((format!("lies under `{base}`, which belongs to the server"), "choose another first segment"))
}

/// The methods, for a sentence.
fn methods() -> String {
    list(&METHODS).replace(" and ", " or ")
}
