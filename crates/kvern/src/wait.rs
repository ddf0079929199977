//! Waiting for the end of a job for as long as a person likes: the server waits at most a minute at a time.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::Client;
use crate::exit::Stop;
use crate::show;

/// What the server waits at most (docs/http-api.md); it answers with the state as it is then.
const ONE_WAIT_MAX: Duration = Duration::from_secs(60);

/// Longer than anybody waits, and no sum of times overflows.
const WAIT_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// The end of a wait that begins now.
pub(crate) fn deadline(wait: Duration) -> Instant {
    Instant::now() + wait.min(WAIT_MAX)
}

/// The record of a job once it has finished, or as it stands at `until`.
pub(crate) async fn until_final(client: &Client, id: &str, until: Instant) -> Result<Value, Stop> {
    loop {
        let rest = until.saturating_duration_since(Instant::now());
        let job = client.get(&format!("/v1/jobs/{id}?wait={}ms", rest.min(ONE_WAIT_MAX).as_millis())).await?.json()?;
        if is_final(&job) || Instant::now() >= until {
            return Ok(job);
        }
    }
}

/// Whether a job has finished.
pub(crate) fn is_final(job: &Value) -> bool {
    matches!(show::text(job, "state"), "succeeded" | "failed" | "cancelled")
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;

    use super::*;
    use crate::cli::{Format, Global};

    /// Asks a server that gives these states, one after the other, and tells the milliseconds that it was asked to wait.
    async fn wait(states: &'static [&str], until: Instant) -> (String, Vec<u128>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let server = format!("http://{}", listener.local_addr().expect("bound"));
        let serving = tokio::spawn(async move {
            let mut asked = Vec::new();
            for state in states {
                let (mut stream, _) = listener.accept().await.expect("a client");
                let mut line = String::new();
                BufReader::new(&mut stream).read_line(&mut line).await.expect("a request");
                let wait = line.split_once("?wait=").and_then(|(_, rest)| rest.split_once("ms"));
                asked.push(wait.and_then(|(ms, _)| ms.parse().ok()).unwrap_or_else(|| panic!("{line}")));
                let body = format!("{{\"state\":\"{state}\"}}");
                let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all(format!("{head}{body}").as_bytes()).await.expect("sent");
                let _ = stream.read(&mut [0; 1]).await;
            }
            asked
        });
        let global = Global { server, token: None, output: Format::Json };
        let client = Client::new(&global).expect("a client");
        let job = until_final(&client, "01890a5d-ac96-774b-bcce-b302099a8057", until).await.expect("a job");
        (show::text(&job, "state").to_owned(), serving.await.expect("served"))
    }

    #[tokio::test]
    async fn a_wait_goes_on_past_what_the_server_waits_at_a_time() {
        let (state, asked) = wait(&["queued", "running", "succeeded"], deadline(Duration::MAX)).await;
        assert_eq!((state.as_str(), asked), ("succeeded", vec![60_000; 3]));
    }

    #[tokio::test]
    async fn a_short_wait_is_short() {
        let (state, asked) = wait(&["failed"], deadline(Duration::from_millis(300))).await;
        assert!(state == "failed" && asked[0] <= 300, "{asked:?}");
        assert_eq!(wait(&["running"], Instant::now()).await, ("running".to_owned(), vec![0]));
    }
}
