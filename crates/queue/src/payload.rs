//! The bytes of inputs and results: small ones inline, large ones in a file.

use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::Error;
use crate::staged::Staged;

/// Bytes that a queue stores or gave back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// At most [`kvern_core::limits::INLINE_BYTES_MAX`] bytes.
    Inline(Bytes),
    /// More, in a file of the queue.
    Blob(Blob),
}

/// A file that belongs to a queue. Made by [`Stage::finish`], and stored only when the job or result that names it is: one
/// that is dropped before is removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Where it is; read-only for everyone but the queue.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// CRC-32C (RFC 3720, appendix B.4) of its bytes.
    pub crc32c: u32,
    /// Removes the file if no queue keeps it; of a stored one, nothing.
    pub staged: Staged,
}

/// Takes a payload of unknown size as it comes: inline while it is small, then a file. Dropping it leaves nothing
/// behind.
#[async_trait]
pub trait Stage: Send {
    /// The next bytes.
    ///
    /// # Errors
    /// [`Error::TooLarge`] above what the queue stores, [`Error::NoSpace`] when the disk is full.
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error>;

    /// Bytes so far.
    fn bytes(&self) -> u64;

    /// The payload, on disk (file and directory synced) if it is a file.
    ///
    /// # Errors
    /// As [`Stage::write`].
    async fn finish(self: Box<Self>) -> Result<Payload, Error>;
}

/// A stored result or input, with what is needed to send it on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its content type, if one was given.
    pub content_type: Option<String>,
    /// Its bytes, verified against their checksum when they are inline; [`Blob::open`] verifies a file as it is read.
    pub payload: Payload,
}

impl Blob {
    /// A file that is stored.
    #[must_use]
    pub fn new(path: PathBuf, bytes: u64, crc32c: u32) -> Self {
        Self { path, bytes, crc32c, staged: Staged::default() }
    }
}

impl Payload {
    /// Size in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Blob(blob) => blob.bytes,
        }
    }

    /// What removes its file, if that is nobody's.
    #[must_use]
    pub fn staged(&self) -> Option<&Staged> {
        match self {
            Self::Inline(_) => None,
            Self::Blob(blob) => Some(&blob.staged),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::Inline(bytes)
    }
}
