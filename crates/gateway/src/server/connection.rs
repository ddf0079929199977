//! One connection, from accept to close.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::seats::{SPARE_HEAD, Seat};
use super::stream::Guarded;
use crate::dispatch::Gateway;
use crate::settings::{HEAD_BYTES_MAX, HEADERS_MAX};

/// How long a connection on which nothing has come yet is listened to after the stop. Its client came in good faith, and
/// hyper would close it without a word.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// Serves requests until the client leaves, a bound is passed, or `stop`: then the open request is finished. On a spare
/// seat there is one request, and little more than a refusal.
pub(super) async fn serve(stream: TcpStream, seat: &Seat, gateway: &Gateway, stop: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let _counted = gateway.count_connection();
    let head = if seat.is_spare() { SPARE_HEAD } else { gateway.limits().head };
    let io = TokioIo::new(Guarded::new(stream, head, gateway.limits().write));
    let begun = Notify::new();
    let service = service_fn(async |request| {
        begun.notify_one();
        let mut response = gateway.handle(request, seat.is_spare()).await;
        if stop.is_cancelled() {
            // hyper says so itself only if it was told before the request came.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok::<_, Infallible>(response)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .keep_alive(!seat.is_spare())
        .header_read_timeout(gateway.limits().idle)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        // A client that closes its side has left: a call that nobody waits for is stopped. (Nginx does the same.)
        .half_close(false);
    let mut connection = pin!(http.serve_connection(io, service));
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        // Nothing is dropped, here and below: the connection is told, and then finished.
        () = stop.cancelled() => {
            let patience = FIRST_REQUEST.min(gateway.limits().drain / 4);
            tokio::select! {
                biased;
                ended = connection.as_mut() => ended,
                () = either(begun.notified(), sleep(patience)) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
    };
    if let Err(error) = ended {
        // The client's doing, nearly always: it left, stalled or spoke no HTTP.
        tracing::debug!(%error, "a connection broke");
    }
}

async fn either(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    tokio::select! {
        () = one => {}
        () = other => {}
    }
}
