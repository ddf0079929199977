//! The query of a URL: known parameters only, because a filter that is misspelt and ignored gives a wrong answer.

use crate::error::{Code, Problem};
use crate::percent;
use crate::refuse::nearest;

/// The parameters of one request, decoded, in their order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

// === impl Query ===

impl Query {
    /// Reads a query whose parameters must be among `known`; only `tag` may come twice.
    pub(crate) fn parse(query: Option<&str>, known: &[&str]) -> Result<Self, Problem> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(key), Some(value)) = (decode(key), decode(value)) else {
                return Err(Problem::new(Code::BadQuery, format!("`{}` is not percent-encoded UTF-8", shorten(pair))));
            };
            if !known.contains(&key.as_str()) {
                return Err(unknown(&key, known));
            }
            if key != "tag" && pairs.iter().any(|(other, _)| *other == key) {
                return Err(Problem::new(Code::BadQuery, format!("`{key}` is given twice")));
            }
            pairs.push((key, value));
        }
        Ok(Self(pairs))
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.all(key).next()
    }

    pub(crate) fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(other, _)| other == key).map(|(_, value)| value.as_str())
    }

    /// A number in plain digits, which is more than `parse` asks for: it takes `+5`.
    pub(crate) fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
    }

    /// A parameter that is on when it is there, unless it says otherwise.
    pub(crate) fn flag(&self, key: &str) -> Result<bool, Problem> {
        match self.get(key) {
            None | Some("false" | "0") => Ok(false),
            Some("" | "true" | "1") => Ok(true),
            Some(other) => Err(crate::refuse::bad_query(key, other, "write `true` or `false`")),
        }
    }
}

fn unknown(key: &str, known: &[&str]) -> Problem {
    let problem = Problem::new(Code::BadQuery, format!("there is no parameter `{}` here", shorten(key)));
    match nearest(key, known.iter().copied()) {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None if known.is_empty() => problem.hint("this path takes no parameters"),
        None => problem.hint(format!("the parameters are {}", known.join(", "))),
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Decodes `%41` and `+`; none if the escape or the text is broken.
fn decode(text: &str) -> Option<String> {
    percent::decode(&text.replace('+', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 3] = ["state", "since", "tag"];

    #[test]
    fn parameters_are_decoded() {
        let query = Query::parse(Some("state=a%2Cb&&since=1+h&tag=x:1&tag=y"), &KNOWN).expect("all are known");
        assert_eq!(query.get("state"), Some("a,b"));
        assert_eq!(query.get("since"), Some("1 h"));
        assert_eq!(query.all("tag").collect::<Vec<_>>(), ["x:1", "y"]);
        assert!(Query::parse(None, &KNOWN).is_ok_and(|query| query == Query::default()));
    }

    #[test]
    fn what_is_unknown_or_broken_is_refused() {
        for (text, word) in
            [("stat=1", "did you mean `state`?"), ("order=1", "state, since, tag"), ("state=%f", ""), ("state=%ff", "")]
        {
            let problem = Query::parse(Some(text), &KNOWN).expect_err(text);
            assert_eq!(problem.facts().code, Code::BadQuery);
            assert!(problem.facts().hint.as_deref().unwrap_or_default().contains(word), "{text}");
        }
        let twice = Query::parse(Some("state=a&state=b"), &KNOWN).expect_err("it is ambiguous");
        assert_eq!(twice.facts().detail, "`state` is given twice");
    }
}
