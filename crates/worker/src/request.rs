//! The input of a call: in memory while it is small, in a scratch file if it comes as a large stream.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use kvern_core::limits::INLINE_BYTES_MAX;
use kvern_queue::{Error, Queue};
use kvern_runtime::{Body, CallError, Input};
use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt;

/// The whole input of a call.
pub(crate) struct Request {
    pub(crate) content_type: Option<String>,
    pub(crate) input: Input,
    /// Removed with the request.
    _scratch: Option<Scratch>,
}

/// Where large inputs go.
#[derive(Clone, Copy)]
pub(crate) struct ScratchDir<'a> {
    pub(crate) path: &'a Path,
    /// It knows whether the disk has room. What a call keeps there for a while must not take what jobs need.
    pub(crate) queue: &'a dyn Queue,
}

/// A file that is removed when it is no longer needed.
struct Scratch(PathBuf);

type Pieces = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Reads the body to its end. No slot is held meanwhile.
pub(crate) async fn gather(
    scratch_dir: ScratchDir<'_>,
    body: Body,
    content_type: Option<String>,
    max_bytes: u64,
) -> Result<Request, CallError> {
    let (input, scratch) = match body {
        Body::Bytes(bytes) => (Input::Bytes(bytes), None),
        Body::File(path, len) => (Input::File(path, len), None),
        Body::Stream(pieces) => read(scratch_dir, pieces, max_bytes).await?,
    };
    if input.len() > max_bytes {
        return Err(CallError::too_large(max_bytes));
    }
    Ok(Request { content_type, input, _scratch: scratch })
}

async fn read(
    scratch_dir: ScratchDir<'_>,
    mut pieces: Pieces,
    max_bytes: u64,
) -> Result<(Input, Option<Scratch>), CallError> {
    let mut head = BytesMut::new();
    while let Some(piece) = pieces.next().await {
        head.extend_from_slice(&piece.map_err(|error| CallError::unreadable(&error))?);
        if head.len() as u64 > max_bytes {
            return Err(CallError::too_large(max_bytes));
        }
        if head.len() > INLINE_BYTES_MAX {
            return spill(scratch_dir, head.freeze(), pieces, max_bytes).await;
        }
    }
    Ok((Input::Bytes(head.freeze()), None))
}

async fn spill(
    scratch_dir: ScratchDir<'_>,
    head: Bytes,
    mut pieces: Pieces,
    max_bytes: u64,
) -> Result<(Input, Option<Scratch>), CallError> {
    scratch_dir.queue.room().map_err(not_kept)?;
    let (mut file, scratch) = create(scratch_dir.path).await.map_err(|error| no_scratch(&error))?;
    let mut len = head.len() as u64;
    file.write_all(&head).await.map_err(|error| no_scratch(&error))?;
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| CallError::unreadable(&error))?;
        len += piece.len() as u64;
        if len > max_bytes {
            return Err(CallError::too_large(max_bytes));
        }
        scratch_dir.queue.room().map_err(not_kept)?;
        file.write_all(&piece).await.map_err(|error| no_scratch(&error))?;
    }
    file.flush().await.map_err(|error| no_scratch(&error))?;
    Ok((Input::File(scratch.0.clone(), len), Some(scratch)))
}

async fn create(scratch_dir: &Path) -> io::Result<(File, Scratch)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    tokio::fs::create_dir_all(scratch_dir).await?;
    let name = format!("call-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = scratch_dir.join(name);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).await?;
    Ok((file, Scratch(path)))
}

fn no_scratch(error: &io::Error) -> CallError {
    not_kept(Error::of_io("the input of a call could not be kept", error))
}

/// What the queue said of a call whose function never ran, so this is no failure of the function. Also for calls that are
/// jobs.
#[must_use]
pub fn not_kept(error: Error) -> CallError {
    match error {
        Error::NoSpace(inner) => CallError::NoSpace(inner),
        Error::Disk(inner) => CallError::Disk(inner),
        Error::Busy(inner) => CallError::Scarce(inner),
        Error::Closed(_) => CallError::Stopping,
        error => CallError::Broken(error.to_string()),
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may be gone already; a leftover costs space until the next start.
        kvern_queue::remove_soon(std::mem::take(&mut self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_lacks_for_now_is_told_apart_from_what_is_broken() {
        const EMFILE: i32 = 24;
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge] {
            assert!(matches!(no_scratch(&kind.into()), CallError::NoSpace(_)), "{kind}");
        }
        assert!(matches!(no_scratch(&io::Error::from_raw_os_error(EMFILE)), CallError::Scarce(_)));
        assert!(matches!(no_scratch(&io::ErrorKind::PermissionDenied.into()), CallError::Broken(_)));
    }
}
