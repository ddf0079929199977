//! One connection, from accept to close.

use std::convert::Infallible;
use std::pin::pin;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::seats::{SPARE_HEAD, Seat};
use super::stream::Guarded;
use crate::dispatch::Gateway;
use crate::settings::{HEAD_BYTES_MAX, HEADERS_MAX};

/// Serves requests until the client leaves, a bound is passed, or `stop`: then the open request is finished. On a spare
/// seat there is one request, and little more than a refusal.
pub(super) async fn serve(stream: TcpStream, seat: &Seat, gateway: &Gateway, stop: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let _counted = gateway.count_connection();
    let head = if seat.is_spare() { SPARE_HEAD } else { gateway.limits().head };
    let io = TokioIo::new(Guarded::new(stream, head, gateway.limits().write));
    let service = service_fn(async |request| Ok::<_, Infallible>(gateway.handle(request, seat.is_spare()).await));
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
        // Nothing is dropped: the connection is told, and then finished.
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // The client's doing, nearly always: it left, stalled or spoke no HTTP.
        tracing::debug!(%error, "a connection broke");
    }
}
