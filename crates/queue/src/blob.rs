//! Reading the file of a large payload: its length is compared when it is opened, its checksum before the last bytes are
//! given out. So whoever got all of it got what was stored.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use crate::payload::Blob;

/// The pieces in which a file is verified when nobody wants them.
const VERIFY_BYTES: usize = 64 << 10;

/// A file that is being read.
#[derive(Debug)]
pub struct BlobReader {
    file: File,
    blob: Blob,
    read: u64,
    crc32c: u32,
}

/// Why the bytes of a blob cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// They are not those that were stored.
    #[error("the file {path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: String,
        /// How that shows.
        what: &'static str,
    },
    /// They may well be there: the system cannot read them now.
    #[error("a stored file cannot be read")]
    Io(#[source] io::Error),
}

impl Blob {
    /// Opens the file.
    ///
    /// # Errors
    /// [`Unreadable::Damaged`] if it is not there or has another length.
    pub async fn open(&self) -> Result<BlobReader, Unreadable> {
        let file = File::open(&self.path).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => self.damaged("it is not there"),
            _ => Unreadable::Io(error),
        })?;
        if file.metadata().await.map_err(Unreadable::Io)?.len() != self.bytes {
            return Err(self.damaged("its length is not what was stored"));
        }
        Ok(BlobReader { file, blob: self.clone(), read: 0, crc32c: 0 })
    }

    /// Reads all of it and gives nothing out.
    ///
    /// # Errors
    /// As [`Blob::open`] and [`BlobReader::next`].
    pub async fn verify(&self) -> Result<(), Unreadable> {
        let mut reader = self.open().await?;
        while !reader.next(VERIFY_BYTES).await?.is_empty() {}
        Ok(())
    }

    fn damaged(&self, what: &'static str) -> Unreadable {
        Unreadable::Damaged { path: self.path.display().to_string(), what }
    }
}

impl BlobReader {
    /// The next bytes, at most so many; none at the end.
    ///
    /// # Errors
    /// [`Unreadable::Damaged`] in place of the last bytes, if the checksum of all is not the stored one.
    pub async fn next(&mut self, bytes_max: usize) -> Result<Bytes, Unreadable> {
        let left = self.blob.bytes - self.read;
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(bytes_max);
        if wanted == 0 {
            return Ok(Bytes::new());
        }
        let mut piece = BytesMut::with_capacity(wanted);
        while piece.len() < wanted {
            if self.file.read_buf(&mut piece).await.map_err(Unreadable::Io)? == 0 {
                return Err(self.blob.damaged("it became shorter while it was read"));
            }
        }
        piece.truncate(wanted);
        self.read += wanted as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, &piece);
        if self.read == self.blob.bytes && self.crc32c != self.blob.crc32c {
            return Err(self.blob.damaged("its bytes do not match their checksum"));
        }
        Ok(piece.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(name: &str, stored: &[u8], is: &[u8]) -> Blob {
        let path = std::env::temp_dir().join(format!("kvern-blob-{}-{name}", std::process::id()));
        std::fs::write(&path, is).expect("a file");
        Blob::new(path, stored.len() as u64, crc32c::crc32c(stored))
    }

    async fn read(blob: &Blob) -> Result<Vec<u8>, (Vec<u8>, Unreadable)> {
        let mut all = Vec::new();
        let mut reader = blob.open().await.map_err(|error| (Vec::new(), error))?;
        loop {
            match reader.next(7).await {
                Ok(piece) if piece.is_empty() => return Ok(all),
                Ok(piece) => all.extend_from_slice(&piece),
                Err(error) => return Err((all, error)),
            }
        }
    }

    #[tokio::test]
    async fn what_was_stored_is_read() {
        let blob = blob("whole", &[7; 100], &[7; 100]);
        assert_eq!(read(&blob).await.expect("whole"), [7; 100]);
        blob.verify().await.expect("whole");
        std::fs::remove_file(&blob.path).expect("there");
        assert!(matches!(read(&blob).await, Err((_, Unreadable::Damaged { .. }))), "it is gone");
    }

    #[tokio::test]
    async fn damaged_bytes_are_never_given_out_whole() {
        let mut flipped = [7; 100];
        flipped[3] ^= 1;
        for (name, is) in [("flipped", &flipped[..]), ("short", &[7; 99]), ("long", &[7; 101])] {
            let blob = blob(name, &[7; 100], is);
            let (given, error) = read(&blob).await.expect_err(name);
            assert!(given.len() < 100 && matches!(error, Unreadable::Damaged { .. }), "{name}: {error}");
            assert!(blob.verify().await.is_err(), "{name}");
            std::fs::remove_file(&blob.path).expect("there");
        }
    }
}
