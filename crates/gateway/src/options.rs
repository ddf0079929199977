//! What a client may ask of a job beside its input: options in the query, `Idempotency-Key` and `Prefer` in the headers.

use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::HeaderName;
use kvern_core::UnixMs;
use kvern_core::limits::{IDEMPOTENCY_KEY_BYTES_MAX, PRIORITY_DEFAULT, PRIORITY_MAX, TAGS_MAX, WAIT_MAX};

use crate::error::{Code, Problem};
use crate::query::Query;
use crate::refuse::bad_query;
use crate::times;

/// The options of a job, in the order of the documentation.
pub(crate) const JOB_OPTIONS: &[&str] = &["delay", "expires_in", "priority", "tag"];

/// The longest `delay` and `expires_in`: a year. What lies further ahead is a mistake in the unit.
const AHEAD_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// Longest key or value of a tag, in bytes.
const TAG_BYTES_MAX: usize = 128;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// Options of one job, checked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct JobOptions {
    pub(crate) delay: Option<Duration>,
    pub(crate) expires_in: Option<Duration>,
    pub(crate) priority: u8,
    pub(crate) tags: Vec<(String, String)>,
}

/// What `Prefer` (RFC 7240) asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Prefer {
    /// `respond-async`: a job instead of a call.
    pub(crate) respond_async: bool,
    /// `wait=SECONDS`: how long to wait for the job, at most [`WAIT_MAX`].
    pub(crate) wait: Option<Duration>,
}

// === impl JobOptions ===

impl Default for JobOptions {
    fn default() -> Self {
        Self { delay: None, expires_in: None, priority: PRIORITY_DEFAULT, tags: Vec::new() }
    }
}

impl JobOptions {
    /// The options in a query.
    pub(crate) fn parse(query: Option<&str>) -> Result<Self, Problem> {
        if query.is_none() {
            return Ok(Self::default());
        }
        let query = Query::parse(query, JOB_OPTIONS)?;
        let this = Self {
            delay: ahead(&query, "delay")?,
            expires_in: ahead(&query, "expires_in")?,
            priority: priority(&query)?,
            tags: query.all("tag").map(tag).collect::<Result<_, _>>()?,
        };
        if let Some((key, _)) = twice(&this.tags) {
            return Err(Problem::new(Code::BadQuery, format!("the tag `{key}` is given twice")));
        }
        if this.tags.len() > TAGS_MAX {
            return Err(Problem::new(
                Code::BadQuery,
                format!("{} tags are given; a job has at most {TAGS_MAX}", this.tags.len()),
            ));
        }
        if let (Some(delay), Some(expires_in)) = (this.delay, this.expires_in)
            && expires_in <= delay
        {
            return Err(Problem::new(Code::BadQuery, "the job would expire before its delay is over")
                .hint("both count from now: make `expires_in` longer than `delay`"));
        }
        Ok(this)
    }

    pub(crate) fn not_before(&self, now: UnixMs) -> Option<UnixMs> {
        self.delay.filter(|delay| !delay.is_zero()).map(|delay| now.after(delay))
    }

    pub(crate) fn expires_at(&self, now: UnixMs) -> Option<UnixMs> {
        self.expires_in.map(|expires_in| now.after(expires_in))
    }
}

fn ahead(query: &Query, key: &str) -> Result<Option<Duration>, Problem> {
    let Some(text) = query.get(key) else { return Ok(None) };
    match times::duration(text) {
        Some(ahead) if ahead <= AHEAD_MAX => Ok(Some(ahead)),
        Some(_) => Err(bad_query(key, text, "at most 366 days")),
        None => Err(bad_query(key, text, "a duration has a unit, as in `30s`, `5m` or `1h 30m`")),
    }
}

fn priority(query: &Query) -> Result<u8, Problem> {
    let Some(text) = query.get("priority") else { return Ok(PRIORITY_DEFAULT) };
    let priority = Query::number(text).filter(|priority| *priority <= PRIORITY_MAX);
    priority.ok_or_else(|| bad_query("priority", text, "a number from 0 (last) to 9 (first)"))
}

fn tag(text: &str) -> Result<(String, String), Problem> {
    let fits = |part: &str| part.len() <= TAG_BYTES_MAX && !part.chars().any(char::is_control);
    match text.split_once(':') {
        Some((key, value)) if !key.is_empty() && fits(key) && fits(value) => Ok((key.to_owned(), value.to_owned())),
        _ => Err(bad_query("tag", text, "a tag is `key:value`, each at most 128 bytes without control characters")),
    }
}

/// A tag whose key an earlier one has.
fn twice(tags: &[(String, String)]) -> Option<&(String, String)> {
    tags.iter().enumerate().find(|(at, (key, _))| tags[..*at].iter().any(|(other, _)| other == key)).map(|(_, tag)| tag)
}

/// The wait that a query asks for, capped at [`WAIT_MAX`].
pub(crate) fn wait(query: &Query) -> Result<Option<Duration>, Problem> {
    let Some(text) = query.get("wait") else { return Ok(None) };
    let wait = times::duration(text);
    let wait = wait.ok_or_else(|| bad_query("wait", text, "a duration has a unit, as in `5s` or `500ms`"))?;
    Ok(Some(wait.min(WAIT_MAX)))
}

/// The idempotency key of a request. `k` and `"k"` are the same key.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&[u8]>, Problem> {
    let mut values = headers.get_all(&IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::new(Code::BadIdempotencyKey, "there are two Idempotency-Key headers"));
    }
    let text = value.as_bytes();
    let quoted = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\""));
    let key = quoted.unwrap_or(text);
    let is_visible = key.iter().all(|byte| byte.is_ascii_graphic());
    if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX || !is_visible {
        let detail = format!(
            "an Idempotency-Key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters and no blanks; this one has {} bytes",
            key.len()
        );
        return Err(Problem::new(Code::BadIdempotencyKey, detail)
            .hint("make one per request that must happen once, such as a UUID, and keep it for every retry"));
    }
    Ok(Some(key))
}

/// Refuses a key on a call. Nothing of a call is stored, so a client that counts on its key would run the function twice.
pub(crate) fn no_idempotency_key(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.contains_key(&IDEMPOTENCY_KEY) {
        return Err(Problem::new(
            Code::BadIdempotencyKey,
            "a call takes no Idempotency-Key: each one runs the function",
        )
        .hint("POST to the same path with /jobs, or send `Prefer: respond-async`"));
    }
    Ok(())
}

// === impl Prefer ===

impl Prefer {
    /// The preferences in the headers. What is not understood is ignored, as RFC 7240 wants.
    pub(crate) fn parse(headers: &HeaderMap) -> Self {
        let mut this = Self::default();
        let values = headers.get_all(&PREFER).iter().filter_map(|value| value.to_str().ok());
        for preference in values.flat_map(|value| value.split(',')) {
            // Parameters after `;` belong to preferences that we do not have.
            let preference = preference.split(';').next().unwrap_or_default();
            let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
            let (name, value) = (name.trim(), value.trim().trim_matches('"'));
            if name.eq_ignore_ascii_case("respond-async") {
                this.respond_async = true;
            } else if name.eq_ignore_ascii_case("wait") && this.wait.is_none() {
                this.wait = Query::number(value).map(|seconds| Duration::from_secs(seconds).min(WAIT_MAX));
            }
        }
        this
    }

    /// The value of `Preference-Applied`.
    pub(crate) fn applied(self) -> String {
        match self.wait {
            Some(wait) => format!("respond-async, wait={}", wait.as_secs()),
            None => "respond-async".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn headers(name: &HeaderName, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_str(value).expect("a value"))).collect()
    }

    #[test]
    fn options_are_read_and_checked() {
        let options = JobOptions::parse(Some("delay=30s&expires_in=1h&priority=9&tag=a:b&tag=c:")).expect("valid");
        assert_eq!(options.not_before(UnixMs(1)), Some(UnixMs(30_001)));
        assert_eq!(options.expires_at(UnixMs(1)), Some(UnixMs(3_600_001)));
        assert_eq!(options.priority, 9);
        assert_eq!(options.tags, [("a".to_owned(), "b".to_owned()), ("c".to_owned(), String::new())]);
        assert_eq!(JobOptions::parse(None).expect("valid"), JobOptions::default());
        assert_eq!(JobOptions::parse(Some("delay=0s")).expect("valid").not_before(UnixMs(1)), None);
        for bad in [
            "delay=30",
            "delay=2y",
            "priority=10",
            "priority=-1",
            "priority=%2B5",
            "priority=",
            "tag=x",
            "tag=:x",
            "tag=a:%01",
            "later=1s",
        ] {
            assert_eq!(JobOptions::parse(Some(bad)).expect_err(bad).facts().code, Code::BadQuery);
        }
        assert!(JobOptions::parse(Some("delay=1h&expires_in=1m")).is_err());
        assert!(JobOptions::parse(Some("tag=a:1&tag=a:2")).is_err());
        let many: Vec<String> = (0..=TAGS_MAX).map(|at| format!("tag=k{at}:")).collect();
        assert!(JobOptions::parse(Some(&many.join("&"))).is_err());
        assert!(JobOptions::parse(Some(&many[1..].join("&"))).is_ok());
    }

    #[test]
    fn a_key_is_the_same_with_and_without_quotes() {
        for text in ["k-1", "\"k-1\""] {
            let headers = headers(&IDEMPOTENCY_KEY, &[text]);
            assert_eq!(idempotency_key(&headers).expect("valid"), Some(&b"k-1"[..]));
        }
        assert_eq!(idempotency_key(&HeaderMap::new()).expect("valid"), None);
        let longest = "k".repeat(255);
        assert!(idempotency_key(&headers(&IDEMPOTENCY_KEY, &[&longest])).is_ok());
        let too_long = "k".repeat(256);
        for bad in [&["a b"][..], &[""], &["\"\""], &["é"], &[&too_long], &["a", "a"]] {
            let problem = idempotency_key(&headers(&IDEMPOTENCY_KEY, bad)).expect_err("malformed");
            assert_eq!(problem.facts().code, Code::BadIdempotencyKey, "{bad:?}");
        }
    }

    #[test]
    fn preferences_are_read_and_unknown_ones_ignored() {
        let read = |values: &[&str]| Prefer::parse(&headers(&PREFER, values));
        let both = Prefer { respond_async: true, wait: Some(Duration::from_secs(5)) };
        assert_eq!(read(&["respond-async, wait=5"]), both);
        assert_eq!(read(&["Respond-Async", "return=minimal, wait=\"5\"; x=y"]), both);
        assert_eq!(read(&["wait=5000"]).wait, Some(WAIT_MAX));
        assert_eq!(read(&["wait=soon, handling=lenient"]), Prefer::default());
        assert_eq!(both.applied(), "respond-async, wait=5");
    }
}
