//! Bytes on their way in or out: whole, in a file, or as they come.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;

/// The bytes of an input or of a reply.
pub enum Body {
    /// All of them, in memory; at most [`kvern_core::limits::INLINE_BYTES_MAX`] by convention.
    Bytes(Bytes),
    /// All of them, in a file of this size.
    File(PathBuf, u64),
    /// As they come. An error ends the stream.
    Stream(Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>),
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Body::Bytes({})", bytes.len()),
            Self::File(path, len) => write!(f, "Body::File({}, {len})", path.display()),
            Self::Stream(_) => f.write_str("Body::Stream"),
        }
    }
}
