//! The result of a handler, on its way from the shim to the output.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use kvern_core::{Failure, FailureCode, Outcome};
use rustix::fs::{Mode, OFlags};
use tokio::io::AsyncReadExt;

use super::frame::{Head, RESULT_FILE, ResultBody};
use crate::contract::{Output, OutputRefused};
use crate::jail::leash::is_shortage;

/// One read of a result's file.
const READ_BYTES: usize = 64 << 10;

/// Hands the result to `output`.
pub(super) async fn deliver(head: &Head, body: ResultBody, scratch: &Path, output: &mut dyn Output) -> Outcome {
    output.head(&head.content_type, head.status);
    let delivered = match body {
        ResultBody::Inline(bytes) if bytes.is_empty() => Ok(()),
        ResultBody::Inline(bytes) => output.write(bytes).await,
        ResultBody::File => match open(scratch.join(RESULT_FILE)).await {
            Ok(file) => stream(file, output).await,
            Err(error) if is_shortage(&error) => Err(OutputRefused::NoRoom(error.to_string())),
            Err(error) => {
                let message = format!("the result's file in TMPDIR cannot be read: {error}");
                return Outcome::Crashed(Failure::new(FailureCode::ProtocolError, message));
            }
        },
    };
    match delivered {
        Ok(()) => Outcome::Succeeded,
        Err(refused) => refused.outcome(),
    }
}

/// [`open_now`] on a thread that may wait for the disk.
async fn open(path: PathBuf) -> std::io::Result<tokio::fs::File> {
    let opened = tokio::task::spawn_blocking(move || open_now(&path)).await;
    opened.unwrap_or_else(|panicked| Err(std::io::Error::other(panicked)))
}

/// Opens the file and removes its name: what is open stays readable, and the next result has a clean place.
fn open_now(path: &Path) -> std::io::Result<tokio::fs::File> {
    // Not through a link, and no pipe that would never end: the function can write to this folder too.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = std::fs::File::from(rustix::fs::open(path, flags, Mode::empty())?);
    std::fs::remove_file(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "it is no file"));
    }
    Ok(tokio::fs::File::from_std(file))
}

async fn stream(mut file: tokio::fs::File, output: &mut dyn Output) -> Result<(), OutputRefused> {
    let mut buffer = Vec::with_capacity(READ_BYTES);
    loop {
        match file.read_buf(&mut buffer).await {
            Ok(0) => return Ok(()),
            Ok(_) => output.write(Bytes::copy_from_slice(&buffer)).await?,
            Err(error) => return Err(OutputRefused::Failed(error.to_string())),
        }
        buffer.clear();
    }
}
