//! Answers: bodies whole or in pieces, and the few headers that they share.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response as HttpResponse, StatusCode};
use kvern_runtime::body::Body as RuntimeBody;
use serde::Serialize;
use tokio_util::io::ReaderStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::error::Problem;
use crate::settings::PIECE_BYTES;

/// An answer.
pub(crate) type Response = HttpResponse<ReplyBody>;
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer.
pub(crate) enum ReplyBody {
    /// All of it; none once it was taken.
    Whole(Option<Bytes>),
    /// As it comes; the size if it is known.
    Pieces(Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>, Option<u64>),
    /// From the pages that the binary mounted.
    Page(Page),
}

/// A page, or a stream of events: whatever it is, it ends when the server stops, because a stream that waits for the next
/// event would hold the drain up to its deadline.
pub(crate) struct Page {
    body: axum::body::Body,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// Says whether an error is the function's or ours.
pub(crate) const KVERN_ERROR: HeaderName = HeaderName::from_static("kvern-error");
/// What an accepted job survives.
pub(crate) const KVERN_DURABILITY: HeaderName = HeaderName::from_static("kvern-durability");
/// Which preferences were followed.
pub(crate) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// JSON.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
/// Stored bytes are shown in the origin of the console. Whatever they are, a browser must not run them there.
const SANDBOX: HeaderValue = HeaderValue::from_static("sandbox; default-src 'none'");

/// A function's page may do all that a page does, but in an origin of its own: in the server's it could act as the person
/// who has the console open.
const OWN_ORIGIN: HeaderValue =
    HeaderValue::from_static("sandbox allow-scripts allow-forms allow-popups allow-modals allow-downloads");

/// An answer with all of its body.
pub(crate) fn whole(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Response {
    let mut response = HttpResponse::new(ReplyBody::Whole(Some(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// A JSON answer that nobody may keep: records change.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Result<Response, Problem> {
    let body = serde_json::to_vec(value).map_err(|error| crate::refuse::internal(&error))?;
    let mut response = whole(status, JSON, body);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// An answer whose body comes in pieces.
pub(crate) fn pieces(
    content_type: HeaderValue,
    stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    size: Option<u64>,
) -> Response {
    let mut response = HttpResponse::new(ReplyBody::Pieces(Box::pin(stream), size));
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// A function's own answer, untouched.
pub(crate) async fn from_function(status: u16, content_type: &str, body: RuntimeBody) -> Result<Response, Problem> {
    let status = StatusCode::from_u16(status).ok().filter(|status| status.as_u16() >= 200);
    let content_type = content_type_of(Some(content_type));
    let mut response = match body {
        RuntimeBody::Bytes(bytes) => whole(StatusCode::OK, content_type, bytes),
        RuntimeBody::File(path, size) => file(content_type, &path, size).await?,
        RuntimeBody::Stream(stream) => pieces(content_type, stream, None),
    };
    *response.status_mut() = status.unwrap_or(StatusCode::BAD_GATEWAY);
    if response.status().is_client_error() || response.status().is_server_error() {
        response.headers_mut().insert(KVERN_ERROR, HeaderValue::from_static("function"));
    }
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, OWN_ORIGIN);
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    Ok(response)
}

/// Takes from a browser the means to run what it shows.
pub(crate) fn inert(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, SANDBOX);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// A header value from text that we made; control characters cannot be in it.
pub(crate) fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

async fn file(content_type: HeaderValue, path: &Path, size: u64) -> Result<Response, Problem> {
    let file = tokio::fs::File::open(path).await.map_err(|error| crate::refuse::unreadable(&error))?;
    Ok(pieces(content_type, ReaderStream::with_capacity(file, PIECE_BYTES), Some(size)))
}

/// A content type as a header; bytes where there is none.
pub(crate) fn content_type_of(text: Option<&str>) -> HeaderValue {
    let given = text.filter(|text| !text.is_empty()).and_then(|text| HeaderValue::from_str(text).ok());
    given.unwrap_or(HeaderValue::from_static("application/octet-stream"))
}

// === impl ReplyBody ===

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Pieces(stream, _) => {
                stream.poll_next_unpin(cx).map(|piece| piece.map(|piece| piece.map(Frame::data).map_err(Into::into)))
            }
            Self::Page(page) => page.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Pieces(..) => false,
            Self::Page(page) => page.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Pieces(_, Some(size)) => SizeHint::with_exact(*size),
            Self::Pieces(_, None) => SizeHint::default(),
            Self::Page(page) => page.body.size_hint(),
        }
    }
}

// === impl Page ===

impl Page {
    pub(crate) fn new(body: axum::body::Body, stop: CancellationToken) -> Self {
        Self { body, stopped: Box::pin(stop.cancelled_owned()) }
    }

    /// The next frame. What is ready is sent in any case, so only what waits is cut short.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(Into::into))),
            Poll::Pending => self.stopped.as_mut().poll(cx).map(|()| None),
        }
    }
}

// === impl Problem ===

impl Problem {
    /// The answer that tells it.
    pub(crate) fn into_response(self) -> Response {
        let content_type = HeaderValue::from_static("application/problem+json");
        let facts = self.facts();
        let mut response = whole(facts.code.status(), content_type, facts.to_json());
        let headers = response.headers_mut();
        let whose = if facts.code.is_of_function() { "function" } else { "platform" };
        headers.insert(KVERN_ERROR, HeaderValue::from_static(whose));
        if let Some(seconds) = facts.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(allow) = &facts.allow {
            headers.insert(header::ALLOW, value(allow));
        }
        if let Some(challenge) = facts.challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}
