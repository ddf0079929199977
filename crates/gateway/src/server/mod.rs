//! The accept loop, and its end.
//!
//! Not `axum::serve`: it sets no timer and no bound, so a client that sends half a request keeps its connection for ever
//! (measured: `docs/decisions/dep-hyper.md`). Here a seat is taken before a connection is accepted, every wait has an end, and the
//! tasks of the connections belong to the loop, which waits for them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::dispatch::{Gateway, Parts};
use crate::server::seats::Seats;

mod connection;
mod framing;
mod seats;
mod stream;

/// The wait after a failed accept: doubles from the first to the second while they go on failing.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// What a drain left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections whose request was still open at the hard stop, and that were cut off.
    pub cut_off: usize,
}

/// Serves `listener` until `shutdown`, then finishes the open requests within [`crate::Limits::drain`].
///
/// Waits for a job (`?wait=`) and followed logs end at once in a drain: their answers say how far things are.
pub async fn run(listener: TcpListener, parts: Parts, shutdown: CancellationToken) -> Drained {
    let gateway = Arc::new(Gateway::new(parts, shutdown.clone()));
    let seats = Seats::new(gateway.limits().connections);
    let mut connections = JoinSet::new();
    let mut backoff = BACKOFF.0;
    loop {
        // Each may be dropped: see `Seats::accept`.
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                look_at(ended);
                continue;
            }
            accepted = seats.accept(&listener) => accepted,
        };
        match accepted {
            Ok((stream, seat)) => {
                backoff = BACKOFF.0;
                let gateway = Arc::clone(&gateway);
                // A token of its own: thousands of connections asking one token would meet at its lock.
                let stop = shutdown.child_token();
                connections.spawn(async move {
                    connection::serve(stream, &seat, &gateway, stop).await;
                });
            }
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, wait_ms = backoff.as_millis() as u64, "cannot accept connections");
                // Stopping needs no answer while it waits: the wait is at most a second.
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF.1);
            }
        }
    }
    drop(listener);
    drain(connections, gateway.limits().drain).await
}

/// The client went away between its handshake and our accept: nothing is wrong here.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn drain(mut connections: JoinSet<()>, time: Duration) -> Drained {
    let until = Instant::now() + time;
    while let Ok(Some(ended)) = tokio::time::timeout_at(until, connections.join_next()).await {
        look_at(ended);
    }
    let cut_off = connections.len();
    connections.shutdown().await;
    if cut_off > 0 {
        tracing::warn!(cut_off, "requests were cut off at the end of the drain");
    }
    Drained { cut_off }
}

fn look_at(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task panicked");
    }
}
