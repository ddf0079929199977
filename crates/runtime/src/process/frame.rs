//! The frames between server and shim.
//!
//! ```text
//! u32 length of what follows, little endian like every number here
//! u8  kind
//!     HELLO         to the shim: JSON (see `Hello`); the first frame
//!     JOB           to the shim: u32 number, u32 attempt, u32 attempts_max, u64 deadline in Unix ms,
//!                   u8 where (0 the body follows, 1 a path follows), u8 length of the job's id, u16 length of the
//!                   content type, id, content type, body or path
//!     READY         to the server: JSON (see `Ready`); answers HELLO
//!     CANNOT_START  to the server: JSON (see `Failing`); answers HELLO
//!     RESULT        to the server: u32 number, u16 HTTP status or 0, u8 where (0 the body follows, 1 it is in the file
//!                   `result` of the scratch folder; plus 2 if the instance must not be used again), u16 length of the
//!                   content type, content type, body
//!     FAILURE       to the server: u32 number, JSON (see `Failing`)
//! ```
//!
//! One job is under way at a time and each is answered by one frame with its number. A job's id or content type of
//! length 0 means that there is none. Results above [`INLINE_BYTES_MAX`] go by file.
//!
//! Invalid, and the end of the instance: a length of 0 or above [`FRAME_BYTES_MAX`], an unknown kind, a kind that is not
//! due, another number than that of the job under way, lengths that go beyond the frame, JSON that does not parse, a
//! content type that is not visible ASCII, a status outside of 100 to 599, anything after the answer to a job.

use bytes::Bytes;
use kvern_core::limits::INLINE_BYTES_MAX;
use kvern_core::{Failure, FailureCode};
use serde::{Deserialize, Serialize};

use crate::contract::{Context, Input};

/// Changes with every change of the frames. Server and shim are of one binary; the check is for whoever edits them.
pub(super) const PROTOCOL: u32 = 2;
/// Longest frame from a shim: a result by value, or a failure with its texts, escaped.
pub(super) const FRAME_BYTES_MAX: usize = 256 << 10;
/// The file in the scratch folder that a large result stands in.
pub(super) const RESULT_FILE: &str = "result";

const _: () = assert!(INLINE_BYTES_MAX * 2 < FRAME_BYTES_MAX);

const HELLO: u8 = 1;
const JOB: u8 = 2;
const READY: u8 = 0x81;
const CANNOT_START: u8 = 0x82;
const RESULT: u8 = 0x83;
const FAILURE: u8 = 0x84;

/// Added to where a result is by an instance that must not be used again.
const IS_LAST: u8 = 2;

/// What a shim is told first.
#[derive(Debug, Serialize)]
pub(super) struct Hello<'a> {
    pub(super) protocol: u32,
    pub(super) function: &'a str,
    /// The handler's file in the copy.
    pub(super) file: &'a str,
    /// The file as the manifest writes it.
    pub(super) file_shown: &'a str,
    /// The function in the file; none takes the language's default.
    pub(super) entry: Option<&'a str>,
    /// The folder of the copy; in traces it becomes `code_shown`.
    pub(super) code: &'a str,
    /// The user's own folder.
    pub(super) code_shown: &'a str,
    pub(super) packages: Option<&'a str>,
    pub(super) scratch: &'a str,
    pub(super) max_output: u64,
    pub(super) inline_max: usize,
}

/// What a shim answers.
#[derive(Debug, Deserialize)]
pub(super) struct Ready {
    pub(super) protocol: u32,
}

/// A failure as a shim says it.
#[derive(Debug, Deserialize)]
pub(super) struct Failing {
    code: FailureCode,
    message: String,
    class: Option<String>,
    trace: Option<String>,
    retry_after_ms: Option<u64>,
    /// Whether the instance is in a state that nobody knows and must not be used again.
    #[serde(default)]
    pub(super) is_last: bool,
}

/// A frame from a shim.
#[derive(Debug)]
pub(super) enum Frame {
    Ready(Ready),
    CannotStart(Failing),
    Result { number: u32, head: Head, body: ResultBody, is_last: bool },
    Failure { number: u32, failing: Failing },
}

/// What a function says of its result.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) content_type: String,
    pub(super) status: Option<u16>,
}

/// Where a result is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ResultBody {
    Inline(Bytes),
    File,
}

/// Bytes that are no frame: what was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Garbage(pub(super) &'static str);

// === writing ===

/// The first frame.
pub(super) fn write_hello(hello: &Hello<'_>, to: &mut Vec<u8>) -> serde_json::Result<()> {
    let json = serde_json::to_vec(hello)?;
    begin(to, HELLO, json.len());
    to.extend_from_slice(&json);
    Ok(())
}

/// The frame of a job, without the body if there is one: that is written after it.
///
/// None if it does not fit a frame.
pub(super) fn write_job(number: u32, context: &Context, input: &Input, to: &mut Vec<u8>) -> Option<()> {
    let id = context.job.map(|id| id.to_string()).unwrap_or_default();
    let content_type = context.content_type.as_deref().unwrap_or_default();
    let (path, body_len) = match input {
        Input::Bytes(bytes) => (None, bytes.len()),
        Input::File(path, _) => (Some(path.as_os_str().as_encoded_bytes()), 0),
    };
    let head_len = 4 + 4 + 4 + 8 + 1 + 1 + 2;
    let len = head_len + id.len() + content_type.len() + path.map_or(body_len, <[u8]>::len);
    u32::try_from(len + 1).ok()?;
    begin(to, JOB, len);
    to.extend_from_slice(&number.to_le_bytes());
    to.extend_from_slice(&context.attempt.to_le_bytes());
    to.extend_from_slice(&context.attempts_max.to_le_bytes());
    to.extend_from_slice(&context.deadline.0.to_le_bytes());
    to.push(u8::from(path.is_some()));
    to.push(u8::try_from(id.len()).ok()?);
    to.extend_from_slice(&u16::try_from(content_type.len()).ok()?.to_le_bytes());
    to.extend_from_slice(id.as_bytes());
    to.extend_from_slice(content_type.as_bytes());
    to.extend_from_slice(path.unwrap_or_default());
    Some(())
}

fn begin(to: &mut Vec<u8>, kind: u8, payload_len: usize) {
    let len = u32::try_from(payload_len + 1).unwrap_or(u32::MAX);
    to.extend_from_slice(&len.to_le_bytes());
    to.push(kind);
}

// === reading ===

/// Takes the first frame out of `inbox`; none if it has not come whole.
pub(super) fn take(inbox: &mut Vec<u8>) -> Result<Option<Frame>, Garbage> {
    let Some((len, _)) = inbox.split_first_chunk::<4>() else { return Ok(None) };
    let len = u32::from_le_bytes(*len) as usize;
    if len == 0 || len > FRAME_BYTES_MAX {
        return Err(Garbage("a frame of an impossible length"));
    }
    let Some(frame) = inbox.get(4..4 + len) else { return Ok(None) };
    let frame = parse(frame[0], &frame[1..])?;
    inbox.drain(..4 + len);
    Ok(Some(frame))
}

fn parse(kind: u8, payload: &[u8]) -> Result<Frame, Garbage> {
    match kind {
        READY => json(payload).map(Frame::Ready),
        CANNOT_START => json(payload).map(Frame::CannotStart),
        RESULT => parse_result(payload),
        FAILURE => {
            let (number, payload) = split::<4>(payload)?;
            Ok(Frame::Failure { number: u32::from_le_bytes(number), failing: json(payload)? })
        }
        _ => Err(Garbage("a frame of an unknown kind")),
    }
}

fn parse_result(payload: &[u8]) -> Result<Frame, Garbage> {
    let (number, payload) = split::<4>(payload)?;
    let (status, payload) = split::<2>(payload)?;
    let ([place], payload) = split::<1>(payload)?;
    let (type_len, payload) = split::<2>(payload)?;
    let type_len = u16::from_le_bytes(type_len) as usize;
    let (content_type, body) = payload.split_at_checked(type_len).ok_or(SHORT)?;
    let is_visible = !content_type.is_empty() && content_type.iter().all(|b| matches!(b, b' '..=b'~'));
    let content_type = std::str::from_utf8(content_type).ok().filter(|_| is_visible);
    let status = match u16::from_le_bytes(status) {
        0 => None,
        status @ 100..=599 => Some(status),
        _ => return Err(Garbage("an HTTP status that is none")),
    };
    let body = match place & !IS_LAST {
        0 => ResultBody::Inline(Bytes::copy_from_slice(body)),
        1 if body.is_empty() => ResultBody::File,
        _ => return Err(Garbage("a result that is nowhere")),
    };
    let content_type = content_type.ok_or(Garbage("a content type that is not visible ASCII"))?.to_owned();
    let (number, is_last) = (u32::from_le_bytes(number), place & IS_LAST != 0);
    Ok(Frame::Result { number, head: Head { content_type, status }, body, is_last })
}

const SHORT: Garbage = Garbage("a frame that is shorter than what it says");

fn split<const N: usize>(payload: &[u8]) -> Result<([u8; N], &[u8]), Garbage> {
    payload.split_first_chunk::<N>().map(|(head, rest)| (*head, rest)).ok_or(SHORT)
}

fn json<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, Garbage> {
    serde_json::from_slice(payload).map_err(|_| Garbage("JSON that does not parse"))
}

// === impl Failing ===

impl Failing {
    /// The failure that it says.
    pub(super) fn failure(self) -> Failure {
        let mut failure = Failure::new(self.code, self.message);
        if let Some(class) = self.class {
            failure = failure.with_class(class);
        }
        if let Some(trace) = self.trace {
            failure = failure.with_trace(trace);
        }
        failure.retry_after_ms = self.retry_after_ms.filter(|_| self.code == FailureCode::Retry);
        failure
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use kvern_core::UnixMs;
    use proptest::prelude::*;

    use super::*;

    fn result(number: u32, status: u16, place: u8, content_type: &[u8], body: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        begin(&mut frame, RESULT, 9 + content_type.len() + body.len());
        frame.extend(number.to_le_bytes());
        frame.extend(status.to_le_bytes());
        frame.push(place);
        frame.extend((content_type.len() as u16).to_le_bytes());
        frame.extend(content_type);
        frame.extend(body);
        frame
    }

    #[test]
    fn a_result_is_read_when_it_is_whole() {
        let whole = result(7, 201, 0, b"text/plain", b"hi");
        for cut in 0..whole.len() {
            assert!(take(&mut whole[..cut].to_vec()).expect("a beginning is not garbage").is_none(), "{cut}");
        }
        let mut inbox = whole;
        inbox.extend(b"rest");
        let frame = take(&mut inbox).expect("it is valid").expect("it is whole");
        assert_eq!(inbox, b"rest");
        let Frame::Result { number: 7, head, body, is_last: false } = frame else { panic!("{frame:?}") };
        assert_eq!(head, Head { content_type: "text/plain".into(), status: Some(201) });
        assert_eq!(body, ResultBody::Inline(Bytes::from_static(b"hi")));
    }

    #[test]
    fn garbage_is_named() {
        let mut cases = vec![
            b"\0\0\0\0".to_vec(),
            b"print".to_vec(),
            b"\x01\0\0\0\x07".to_vec(),
            b"\x02\0\0\0\x83\0".to_vec(),
            b"\x03\0\0\0\x81{]".to_vec(),
            result(1, 99, 0, b"a/b", b""),
            result(1, 0, 4, b"a/b", b""),
            result(1, 0, 3, b"a/b", b"x"),
            result(1, 0, 1, b"a/b", b"x"),
            result(1, 0, 0, b"", b""),
            result(1, 0, 0, b"a/b\r\nx: y", b""),
        ];
        for case in &mut cases {
            assert!(take(case).is_err(), "{case:?}");
        }
    }

    #[test]
    fn the_frame_of_a_job_says_its_length() {
        let context = Context {
            job: None,
            function: "f".parse().expect("a name"),
            attempt: 1,
            attempts_max: 5,
            content_type: Some("a/b".into()),
            deadline: UnixMs(9),
            timeout: Duration::from_secs(1),
        };
        let mut bytes = Vec::new();
        write_job(1, &context, &Input::Bytes(Bytes::from_static(b"body")), &mut bytes).expect("it fits");
        bytes.extend(b"body");
        assert_eq!(u32::from_le_bytes(bytes[..4].try_into().expect("four bytes")) as usize, bytes.len() - 4);
        let mut bytes = Vec::new();
        write_job(1, &context, &Input::File(PathBuf::from("/x"), 1 << 40), &mut bytes).expect("it fits");
        assert_eq!(u32::from_le_bytes(bytes[..4].try_into().expect("four bytes")) as usize, bytes.len() - 4);
        let long = Context { content_type: Some("x".repeat(1 << 16)), ..context };
        assert_eq!(write_job(1, &long, &Input::Bytes(Bytes::new()), &mut Vec::new()), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0x81u8..0x86) {
            _ = take(&mut bytes.clone());
            if bytes.len() > 5 {
                let len = bytes.len() as u32 - 4;
                bytes[..4].copy_from_slice(&len.to_le_bytes());
                bytes[4] = kind;
                _ = take(&mut bytes);
            }
        }
    }
}
