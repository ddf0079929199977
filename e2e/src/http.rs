//! A plain HTTP/1.1 client on a blocking socket: what it sends is what the test says, byte for byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

const READ_TIMEOUT: Duration = Duration::from_secs(70);

/// A way to a server; each request has its own connection.
#[derive(Debug, Clone)]
pub struct Http {
    /// Where the server listens.
    pub address: SocketAddr,
}

/// What a server answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body, whole.
    pub body: Vec<u8>,
}

impl Http {
    /// GETs a path.
    #[must_use]
    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"")
    }

    /// POSTs JSON to a path.
    #[must_use]
    pub fn post(&self, path: &str, json: &str) -> Answer {
        self.ask("POST", path, &[("content-type", "application/json")], json.as_bytes())
    }

    /// Submits a job and gives its id.
    ///
    /// # Panics
    /// If it is not accepted.
    #[must_use]
    pub fn submit(&self, function: &str, json: &str) -> String {
        let answer = self.post(&format!("/v1/functions/{function}/jobs"), json);
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.json()["id"].as_str().expect("an id").to_owned()
    }

    /// The record of a job once it has finished.
    ///
    /// # Panics
    /// If it does not finish in time.
    #[must_use]
    pub fn finished(&self, id: &str) -> Value {
        let job = self.get(&format!("/v1/jobs/{id}?wait=60s")).json();
        let state = job["state"].as_str().unwrap_or_default();
        assert!(matches!(state, "succeeded" | "failed" | "cancelled"), "not finished: {job}");
        job
    }

    /// Sends a request on a connection of its own.
    ///
    /// # Panics
    /// If there is no answer.
    #[must_use]
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.try_ask(method, path, headers, body).expect("an answer")
    }

    /// [`Http::ask`], for servers that may be gone.
    ///
    /// # Errors
    /// When the connection cannot be made or breaks.
    pub fn try_ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> std::io::Result<Answer> {
        let mut stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.address);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        stream.write_all(head.as_bytes())?;
        // A server may answer (413, say) before it has read everything: what it said still counts.
        let _ = stream.write_all(body);
        read_answer(BufReader::new(stream))
    }
}

impl Answer {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is not.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {} {}", self.status, self.text()))
    }

    /// The value of a header, if it is there.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

fn read_answer(mut stream: BufReader<TcpStream>) -> std::io::Result<Answer> {
    let broken = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(|| broken("no status line"))?;
    let mut headers = Vec::new();
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let chunked = headers.iter().any(|(n, v)| n == "transfer-encoding" && v == "chunked");
    let mut body = Vec::new();
    if chunked {
        read_chunks(&mut stream, &mut body)?;
    } else {
        stream.read_to_end(&mut body)?;
    }
    Ok(Answer { status, headers, body })
}

fn read_chunks(stream: &mut BufReader<TcpStream>, body: &mut Vec<u8>) -> std::io::Result<()> {
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let bytes = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
        if bytes == 0 {
            return Ok(());
        }
        let from = body.len();
        body.resize(from + bytes, 0);
        stream.read_exact(&mut body[from..])?;
        stream.read_line(&mut line)?;
    }
}
