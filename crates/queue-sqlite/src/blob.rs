//! Blobs: payloads too large for a row, as files beside the database.
//!
//! A file is whole and on disk, and so is its name, before a row that names it commits; it is removed after the row's
//! removal has committed, and not while a backup copies (see [`crate::hold`]). What a crash leaves behind in between has
//! no row and is removed at the next start. The name begins with the life of the queue in which it was made, so that this
//! never touches a file of the present life.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use kvern_core::limits::INLINE_BYTES_MAX;
use kvern_queue::{Blob, Error, Payload, Stage, Staged};
use rusqlite::Connection;
use tokio::io::AsyncWriteExt;

use crate::hold::Removal;

/// What tokio's file keeps of a write. By default it grows to the largest one and stays, for each upload.
const FILE_BUFFER_BYTES_MAX: usize = 16 << 10;
/// Files that are removed at once: the writer does it between two commits, and after a backup there may be many.
const FILES_AT_ONCE: usize = 256;

/// The folder of the files.
#[derive(Debug, Clone)]
pub(crate) struct BlobDir {
    dir: Arc<Path>,
    epoch: u64,
    made: Arc<AtomicU64>,
    /// Files that are to go once no backup copies any more.
    held_up: Arc<Mutex<Vec<PathBuf>>>,
}

/// A payload on its way.
#[derive(Debug)]
pub(crate) struct FileStage {
    dir: BlobDir,
    bytes: u64,
    crc32c: u32,
    held: Held,
}

#[derive(Debug)]
enum Held {
    Inline(BytesMut),
    File(tokio::fs::File, PathBuf, Staged),
}

// === impl BlobDir ===

impl BlobDir {
    /// The folder in this data directory, in this life of the queue.
    pub(crate) fn new(data: &Path, epoch: u64) -> Self {
        Self { dir: data.join("blobs").into(), epoch, made: Arc::default(), held_up: Arc::default() }
    }

    /// Where the files are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a file is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A stored file as a payload.
    pub(crate) fn blob(&self, name: &str, bytes: u64, crc32c: u32) -> Blob {
        Blob::new(self.path(name), bytes, crc32c)
    }

    /// Checksum of a payload, and the name of its file if it has one.
    pub(crate) fn card(&self, payload: &Payload) -> Result<(u32, Option<String>), Error> {
        match payload {
            Payload::Inline(bytes) if bytes.len() > INLINE_BYTES_MAX => {
                Err(Error::TooLarge { bytes: bytes.len() as u64, limit: INLINE_BYTES_MAX as u64 })
            }
            Payload::Inline(bytes) => Ok((crc32c::crc32c(bytes), None)),
            Payload::Blob(blob) => {
                let is_ours = blob.path.parent() == Some(self.dir());
                let name = blob.path.file_name().and_then(|name| name.to_str()).filter(|_| is_ours);
                let name = name.ok_or_else(|| Error::Broken("a blob of another queue".to_owned()))?;
                Ok((blob.crc32c, Some(name.to_owned())))
            }
        }
    }

    /// A payload of unknown size.
    pub(crate) fn stage(&self) -> FileStage {
        FileStage { dir: self.clone(), bytes: 0, crc32c: 0, held: Held::Inline(BytesMut::new()) }
    }

    /// Removes files that no row names, now or once no backup copies any more. What stays for now goes at the next start.
    pub(crate) fn remove(&self, files: impl IntoIterator<Item = PathBuf>) {
        // A list of paths is whole at any time.
        let mut going = self.held_up.lock().unwrap_or_else(PoisonError::into_inner);
        going.extend(files.into_iter().filter(|path| path.parent() == Some(self.dir())));
        if going.is_empty() {
            return;
        }
        let Some(_removal) = Removal::now(self.dir()) else { return };
        let now = going.len().min(FILES_AT_ONCE);
        for path in going.drain(..now) {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(%error, path = %path.display(), "a file that is no longer needed cannot be removed");
                }
                _ => {}
            }
        }
    }

    /// Removes the files of earlier lives that no row names. How many those were.
    pub(crate) fn remove_orphans(&self, connection: &Connection) -> std::io::Result<usize> {
        let mut removed = 0;
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if life_of(name).is_none_or(|epoch| epoch >= self.epoch) {
                continue;
            }
            let is_named = connection
                .prepare_cached("SELECT 1 FROM blobs WHERE name = ?1")
                .and_then(|mut statement| statement.exists([name]))
                .map_err(std::io::Error::other)?;
            if !is_named {
                let _removal = Removal::wait(&self.dir)?;
                std::fs::remove_file(entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    async fn create(&self) -> Result<Held, Error> {
        let count = self.made.fetch_add(1, Ordering::Relaxed);
        let path = self.path(&format!("{:x}-{count:x}", self.epoch));
        let staged = Staged::new(path.clone());
        let file = tokio::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).await;
        let mut file = file.map_err(|error| failed(&error))?;
        file.set_max_buf_size(FILE_BUFFER_BYTES_MAX);
        Ok(Held::File(file, path, staged))
    }
}

// === impl FileStage ===

impl FileStage {
    async fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Held::File(file, ..) = &mut self.held else { return Ok(()) };
        file.write_all(bytes).await.map_err(|error| failed(&error))
    }
}

#[async_trait]
impl Stage for FileStage {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.bytes += bytes.len() as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, &bytes);
        if let Held::Inline(held) = &mut self.held {
            if self.bytes <= INLINE_BYTES_MAX as u64 {
                // The first bytes are often all that were gathered before: they are taken over, not doubled.
                match bytes.try_into_mut() {
                    Ok(bytes) if held.is_empty() => *held = bytes,
                    Ok(bytes) => held.extend_from_slice(&bytes),
                    Err(bytes) => held.extend_from_slice(&bytes),
                }
                return Ok(());
            }
            let held = std::mem::take(held);
            let begin = held.freeze();
            self.held = self.dir.create().await?;
            self.append(&begin).await?;
        }
        self.append(&bytes).await
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    async fn finish(self: Box<Self>) -> Result<Payload, Error> {
        let Self { dir, bytes, crc32c, held } = *self;
        let (mut file, path, staged) = match held {
            Held::Inline(held) => return Ok(Payload::Inline(held.freeze())),
            Held::File(file, path, staged) => (file, path, staged),
        };
        file.flush().await.map_err(|error| failed(&error))?;
        file.sync_all().await.map_err(|error| failed(&error))?;
        let folder = dir.dir().to_owned();
        let synced = tokio::task::spawn_blocking(move || File::open(folder)?.sync_all()).await;
        synced.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(|error| failed(&error))?;
        Ok(Payload::Blob(Blob { path, bytes, crc32c, staged }))
    }
}

/// The life of the queue in which a file was made; none if it is not a file of ours.
pub(crate) fn life_of(name: &str) -> Option<u64> {
    let (epoch, _) = name.split_once('-')?;
    u64::from_str_radix(epoch, 16).ok()
}

fn failed(error: &std::io::Error) -> Error {
    match Error::of_io("a payload cannot be stored", error) {
        Error::Broken(why) => Error::Disk(why),
        error => error,
    }
}
