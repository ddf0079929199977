//! Who may ask: the token, and without one the names by which a browser may come.
//!
//! A page on another site can make a browser send requests to `127.0.0.1`. It cannot lie about `Origin`, and after a DNS
//! rebinding its `Host` is still its own name. So without a token only loopback names (and those that the operator gave)
//! are served, and a foreign `Origin` is refused in every case but one: with a Bearer token, which no page has by itself.

use std::net::IpAddr;

use hyper::header::{self, HeaderName, HeaderValue};
use hyper::http::request::Parts as Head;
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Version};

use crate::error::{Code, Problem};
use crate::settings::{Settings, Token};

/// What pages may answer to, so that a browser asks for the token. API paths answer Bearer alone: no pop-up in the middle
/// of somebody's `fetch`.
const CHALLENGE_PAGE: &str = "Basic realm=\"Kvern (any name, the token as password)\"";
const CHALLENGE_API: &str = "Bearer realm=\"kvern\"";

/// Where a browser's request comes from (W3C Fetch Metadata); no page can change it.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Decides who may ask.
#[derive(Debug)]
pub(crate) struct Access {
    token: Option<Token>,
    hosts: Vec<String>,
    insecure: bool,
}

/// What a client showed.
enum Shown {
    Bearer,
    Basic,
    Nothing,
}

// === impl Access ===

impl Access {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self { token: settings.token.clone(), hosts: settings.hosts.clone(), insecure: settings.insecure }
    }

    /// Part of the scope of idempotency keys.
    pub(crate) fn token_hash(&self) -> &[u8] {
        self.token.as_ref().map_or(&[], |token| token.hash())
    }

    /// Lets a request in, or says why not. `needs_token` is false for the probes alone.
    pub(crate) fn check(&self, head: &Head, needs_token: bool) -> Result<(), Problem> {
        let host = host(head)?;
        let is_bearer = match &self.token {
            None => {
                self.check_host(host)?;
                false
            }
            Some(_) if !needs_token => return Ok(()),
            Some(token) => match shown(&head.headers, token) {
                Shown::Bearer => true,
                Shown::Basic => false,
                Shown::Nothing => return Err(unauthorized(head)),
            },
        };
        match head.headers.get(header::ORIGIN) {
            Some(origin) if !is_bearer => self.check_origin(origin, host),
            _ => Ok(()),
        }
    }

    /// Keeps pages of other sites from running a function by a route of its own: an image or a link sends no `Origin`, but
    /// every browser says where it comes from.
    pub(crate) fn check_site(&self, head: &Head) -> Result<(), Problem> {
        let is_foreign = head.headers.get(SEC_FETCH_SITE).is_some_and(|site| site == "cross-site");
        let is_bearer =
            || self.token.as_ref().is_some_and(|token| matches!(shown(&head.headers, token), Shown::Bearer));
        if is_foreign && !is_bearer() {
            return Err(Problem::new(
                Code::ForbiddenHost,
                "a page of another site may not run functions of this server",
            )
            .hint("open the address itself, ask from a program, or send `Authorization: Bearer`"));
        }
        Ok(())
    }

    fn check_host(&self, host: Option<&str>) -> Result<(), Problem> {
        // Only HTTP/1.0 may leave it out, and no browser speaks that.
        let Some(host) = host else { return Ok(()) };
        if self.insecure || self.is_ours(name_of(host)) {
            return Ok(());
        }
        let host: String = host.chars().take(80).collect();
        Err(Problem::new(
            Code::ForbiddenHost,
            format!("this server does not answer to the name `{host}` without a token"),
        )
        .hint("use 127.0.0.1 or localhost, or set a token (KVERN_TOKEN); a name that a proxy on this machine sends is allowed with `kvern serve --host NAME`"))
    }

    fn check_origin(&self, origin: &HeaderValue, host: Option<&str>) -> Result<(), Problem> {
        let authority =
            origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
        let is_own_page = authority.is_some() && authority == host;
        if is_own_page {
            return Ok(());
        }
        let origin: String = String::from_utf8_lossy(origin.as_bytes()).chars().take(80).collect();
        Err(Problem::new(Code::ForbiddenHost, format!("a page of `{origin}` may not use this server"))
            .hint("ask from a program, or with `Authorization: Bearer` from a page that you trust"))
    }

    fn is_ours(&self, name: &str) -> bool {
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        address.is_ok_and(|address| address.is_loopback())
            || name.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|host| name.eq_ignore_ascii_case(host))
    }
}

/// The host that the request names; exactly one, except in HTTP/1.0. A target with a host of its own, which proxies are
/// sent, wins over the header (RFC 9112, 3.2.2).
fn host(head: &Head) -> Result<Option<&str>, Problem> {
    let refused = |detail: &'static str| Problem::new(Code::BadRequest, detail);
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let Some(host) = hosts.next() else {
        let is_old = head.version == Version::HTTP_10;
        let named = head.uri.authority().map(Authority::as_str);
        return if is_old { Ok(named) } else { Err(refused("the request has no Host header")) };
    };
    if hosts.next().is_some() {
        return Err(refused("the request has two Host headers"));
    }
    let host = host.to_str().map_err(|_| refused("the Host header is not ASCII text"))?;
    Ok(Some(head.uri.authority().map_or(host, Authority::as_str)))
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    }
}

fn shown(headers: &HeaderMap, token: &Token) -> Shown {
    let Some(text) = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes) else { return Shown::Nothing };
    let Some(blank) = text.iter().position(|byte| *byte == b' ') else { return Shown::Nothing };
    let (scheme, secret) = (&text[..blank], text[blank..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"bearer") && token.is(secret) {
        return Shown::Bearer;
    }
    let is_basic = scheme.eq_ignore_ascii_case(b"basic");
    let password = base64(secret).and_then(|pair| {
        let colon = pair.iter().position(|byte| *byte == b':')?;
        Some(pair[colon + 1..].to_vec())
    });
    if is_basic && password.is_some_and(|password| token.is(&password)) { Shown::Basic } else { Shown::Nothing }
}

/// Decodes base64 (RFC 4648, section 4) as browsers send it; the padding may be missing.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let mut out = Vec::with_capacity(digits.len());
    let (mut bits, mut count) = (0u32, 0);
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Some(out)
}

fn unauthorized(head: &Head) -> Problem {
    let path = head.uri.path();
    let is_page = path == "/" || path == "/ui" || path.starts_with("/ui/");
    let detail =
        if head.headers.contains_key(header::AUTHORIZATION) { "the token is wrong" } else { "a token is needed" };
    Problem::new(Code::Unauthorized, detail).hint("send `Authorization: Bearer TOKEN`").challenge(if is_page {
        CHALLENGE_PAGE
    } else {
        CHALLENGE_API
    })
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn head(uri: &str, headers: &[(&str, &str)]) -> Head {
        let request = headers.iter().fold(Request::get(uri), |request, (name, value)| request.header(*name, *value));
        request.body(()).expect("a request").into_parts().0
    }

    fn answer(settings: &Settings, headers: &[(&str, &str)]) -> Option<Code> {
        Access::new(settings).check(&head("/v1/jobs", headers), true).err().map(|problem| problem.facts().code)
    }

    #[test]
    fn without_a_token_only_loopback_names_are_served() {
        let settings = Settings { hosts: vec!["kvern.lan".to_owned()], ..Settings::default() };
        for host in ["localhost:8080", "LOCALHOST", "127.0.0.1", "127.0.0.9:1", "[::1]:8080", "[::1]", "Kvern.lan:80"] {
            assert_eq!(answer(&settings, &[("host", host)]), None, "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:80", "10.0.0.1", "127.0.0.1.evil.example", "", ":80"] {
            assert_eq!(answer(&settings, &[("host", host)]), Some(Code::ForbiddenHost), "{host}");
        }
        let insecure = Settings { insecure: true, ..Settings::default() };
        assert_eq!(answer(&insecure, &[("host", "evil.example")]), None);
        assert_eq!(answer(&settings, &[]), Some(Code::BadRequest));
        assert_eq!(answer(&settings, &[("host", "localhost"), ("host", "localhost")]), Some(Code::BadRequest));
    }

    #[test]
    fn the_host_of_the_target_wins() {
        let access = Access::new(&Settings::default());
        let answer = |uri| {
            let checked = access.check(&head(uri, &[("host", "localhost:8080")]), true);
            checked.err().map(|problem| problem.facts().code)
        };
        assert_eq!(answer("http://127.0.0.1:8080/v1/jobs"), None);
        for uri in ["http://evil.example/v1/jobs", "http://localhost:80@evil.example/", "http://evil@localhost/"] {
            assert_eq!(answer(uri), Some(Code::ForbiddenHost), "{uri}");
        }
        let mut old = head("http://evil.example/v1/jobs", &[]);
        old.version = Version::HTTP_10;
        assert!(access.check(&old, true).is_err());
    }

    #[test]
    fn a_foreign_page_is_refused() {
        let settings = Settings::default();
        let from = |origin: &'static str| answer(&settings, &[("host", "localhost:8080"), ("origin", origin)]);
        assert_eq!(from("http://localhost:8080"), None);
        for origin in ["https://evil.example", "http://localhost:3000", "null", ""] {
            assert_eq!(from(origin), Some(Code::ForbiddenHost), "{origin}");
        }
    }

    #[test]
    fn a_token_opens_any_name_and_nothing_else_does() {
        let settings = Settings { token: Some(Token::new("s3cret")), ..Settings::default() };
        let with = |text: &'static str| answer(&settings, &[("host", "kvern.example"), ("authorization", text)]);
        // base64 of `me:s3cret` and of `me:wrong`.
        for right in ["Bearer s3cret", "bearer  s3cret", "Basic bWU6czNjcmV0"] {
            assert_eq!(with(right), None, "{right}");
        }
        for wrong in
            ["Bearer s3cre", "s3cret", "Bearer", "Bearer ", "Basic bWU6d3Jvbmc=", "Basic s3cret", "Digest s3cret"]
        {
            assert_eq!(with(wrong), Some(Code::Unauthorized), "{wrong}");
        }
        assert_eq!(answer(&settings, &[("host", "localhost")]), Some(Code::Unauthorized));
        assert!(Access::new(&settings).check(&head("/readyz", &[("host", "a")]), false).is_ok());
    }

    #[test]
    fn a_password_that_the_browser_keeps_does_not_serve_foreign_pages() {
        let settings = Settings { token: Some(Token::new("s3cret")), ..Settings::default() };
        let page = [("host", "kvern.example"), ("origin", "https://evil.example")];
        let basic = [page[0], page[1], ("authorization", "Basic bWU6czNjcmV0")];
        let bearer = [page[0], page[1], ("authorization", "Bearer s3cret")];
        assert_eq!(answer(&settings, &basic), Some(Code::ForbiddenHost));
        assert_eq!(answer(&settings, &bearer), None);
    }

    #[test]
    fn only_pages_make_a_browser_ask() {
        let settings = Settings { token: Some(Token::new("s3cret")), ..Settings::default() };
        let challenge = |path| {
            Access::new(&settings).check(&head(path, &[("host", "a")]), true).expect_err("no token").facts().challenge
        };
        assert_eq!(challenge("/ui/jobs"), Some(CHALLENGE_PAGE));
        assert_eq!(challenge("/v1/jobs"), Some(CHALLENGE_API));
        assert_eq!(base64(b"TWFu"), Some(b"Man".to_vec()));
        assert_eq!(base64(b"TWE"), Some(b"Ma".to_vec()));
        assert_eq!(base64(b"T*"), None);
    }
}
