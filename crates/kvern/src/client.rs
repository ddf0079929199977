//! The client verbs' way to a server: one HTTP/1.1 request at a time over the public API.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::cli::Global;
use crate::exit::{Code, Stop};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A server and the right to talk to it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    authority: String,
    token: Option<String>,
}

/// What the server answered, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: String,
    pub(crate) body: Bytes,
}

// === impl Client ===

impl Client {
    /// A client for the server that the flags name.
    pub(crate) fn new(global: &Global) -> Result<Self, Stop> {
        Ok(Self { authority: authority(&global.server)?, token: crate::config::token(global.token.clone())? })
    }

    /// GETs a path and gives what the server answered, if that was a success.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer, Stop> {
        self.ask("GET", path, &[], Bytes::new()).await?.checked()
    }

    /// POSTs to a path and gives what the server answered, if that was a success.
    pub(crate) async fn post(&self, path: &str) -> Result<Answer, Stop> {
        self.ask("POST", path, &[], Bytes::new()).await?.checked()
    }

    /// Sends a request and collects the answer, whatever its status.
    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, String)],
        body: Bytes,
    ) -> Result<Answer, Stop> {
        let response = self.send(method, path, headers, body).await?;
        let status = response.status();
        let content_type =
            response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let body = response.into_body().collect().await.map_err(|e| self.broken(&e))?.to_bytes();
        Ok(Answer { status, content_type, body })
    }

    /// Sends a request and hands each piece of a successful answer to `piece`, as it comes.
    pub(crate) async fn stream(&self, path: &str, mut piece: impl FnMut(Bytes)) -> Result<(), Stop> {
        let response = self.send("GET", path, &[], Bytes::new()).await?;
        let status = response.status();
        let mut body = response.into_body();
        if !status.is_success() {
            let body = body.collect().await.map_err(|e| self.broken(&e))?.to_bytes();
            return Answer { status, content_type: String::new(), body }.checked().map(|_| ());
        }
        while let Some(frame) = body.frame().await {
            if let Ok(bytes) = frame.map_err(|e| self.broken(&e))?.into_data() {
                piece(bytes);
            }
        }
        Ok(())
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, String)],
        body: Bytes,
    ) -> Result<Response<Incoming>, Stop> {
        let connect = tokio::time::timeout(CONNECT_TIMEOUT, connect(&self.authority)).await;
        let stream = connect
            .map_err(|_| Stop::new(Code::TimedOut, format!("no answer from {}", self.authority)))?
            .map_err(|error| self.unreachable(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.broken(&e))?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.authority);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(body)).map_err(|e| Stop::usage(format!("cannot ask for {path}: {e}")))?;
        sender.send_request(request).await.map_err(|e| self.broken(&e))
    }

    fn unreachable(&self, error: &io::Error) -> Stop {
        Stop::new(Code::CannotReach, format!("no Kvern server answers at {}: {error}", self.authority))
            .hint("start one with `kvern dev` or `kvern serve`, or name another with --server URL or KVERN_SERVER")
    }

    fn broken(&self, error: &hyper::Error) -> Stop {
        Stop::new(Code::CannotReach, format!("the connection to {} broke: {error}", self.authority))
    }
}

// === impl Answer ===

impl Answer {
    /// The answer, if it is a success; else the server's own words with the exit code for them.
    pub(crate) fn checked(self) -> Result<Self, Stop> {
        if self.status.is_success() { Ok(self) } else { Err(self.problem()) }
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Result<Value, Stop> {
        serde_json::from_slice(&self.body).map_err(|_| Stop::failed("the server answered something that is not JSON"))
    }

    /// What a problem document (RFC 9457) says.
    pub(crate) fn problem(&self) -> Stop {
        let code = match self.status.as_u16() {
            400 | 405 | 413 | 415 | 422 => Code::Usage,
            401 | 403 => Code::NotAllowed,
            404 => Code::NotFound,
            409 => Code::Conflict,
            504 => Code::TimedOut,
            _ => Code::Failed,
        };
        let problem: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let text = |key: &str| problem.get(key).and_then(Value::as_str);
        let what = text("detail").or_else(|| text("title")).map_or_else(
            || format!("the server answered {}: {}", self.status, String::from_utf8_lossy(&self.body)),
            str::to_owned,
        );
        let stop = Stop::new(code, what);
        match text("hint") {
            Some(hint) => stop.hint(hint),
            None => stop,
        }
    }
}

/// Host and port of a server.
fn authority(server: &str) -> Result<String, Stop> {
    let authority = server.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
    let is_more = |c: char| matches!(c, '/' | '?' | '#' | '@') || c.is_whitespace();
    let Some(authority) = authority.filter(|a| !a.is_empty() && !a.contains(is_more)) else {
        // A password that somebody put there is not said again.
        let shown = server.rsplit_once('@').map_or_else(|| server.to_owned(), |(_, host)| format!("http://...@{host}"));
        return Err(Stop::usage(format!("`{shown}` is not the address of a server"))
            .hint("write it as http://127.0.0.1:8080; for TLS, go through a tunnel or a proxy on this machine"));
    };
    // The last colon of `[::1]` is one of the address.
    let (host, port) = authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).unwrap_or((authority, ""));
    match port.parse::<u16>() {
        Ok(_) => Ok(authority.to_owned()),
        Err(_) => Err(Stop::usage(format!("`{server}` names no port")).hint(format!("write it as http://{host}:8080"))),
    }
}

/// `localhost` is this machine and is not looked up: the released binary is static, and a look-up may load the resolver
/// modules of a C library that it was not built with.
async fn connect(authority: &str) -> io::Result<TcpStream> {
    match authority.strip_prefix("localhost:").map(str::parse) {
        Some(Ok(port)) => {
            let here = [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))];
            TcpStream::connect(&here[..]).await
        }
        _ => TcpStream::connect(authority).await,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn an_address_has_a_port() {
        for (server, expected) in [("http://localhost:1/", "localhost:1"), ("http://[::1]:8080", "[::1]:8080")] {
            assert_eq!(authority(server).expect(server), expected);
        }
        for (server, hint) in [
            ("http://localhost", "write it as http://localhost:8080"),
            ("http://localhost:80x", "write it as http://localhost:8080"),
            ("http://[::1]", "write it as http://[::1]:8080"),
        ] {
            let stop = authority(server).expect_err(server);
            assert_eq!(
                (stop.code, stop.what, stop.hints.join("")),
                (Code::Usage, format!("`{server}` names no port"), hint.into())
            );
        }
        for server in
            ["https://localhost:8080", "http://a:1/b", "http://user:secret@a:1", "http://a:1?b", "http://a b:1"]
        {
            let stop = authority(server).expect_err(server);
            assert!(stop.what.ends_with("is not the address of a server"), "{}", stop.what);
            assert!(!stop.what.contains("secret"), "{}", stop.what);
        }
    }

    #[tokio::test]
    async fn localhost_is_this_machine_in_either_family() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let port = listener.local_addr().expect("bound").port();
            let stream = connect(&format!("localhost:{port}")).await.expect("connected");
            assert_eq!(stream.peer_addr().expect("connected"), listener.local_addr().expect("bound"));
        }
    }
}
