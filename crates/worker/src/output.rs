//! The result of a job as it comes from the function: in memory while it is small, then in a file of the queue.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use kvern_core::limits::INLINE_BYTES_MAX;
use kvern_queue::{Error, Payload, Queue, Stage};
use kvern_runtime::{Output, OutputRefused};

/// The content type of a function that names none.
pub(crate) const CONTENT_TYPE_DEFAULT: &str = "application/octet-stream";

/// Takes the result of one attempt.
pub(crate) struct JobOutput {
    queue: Arc<dyn Queue>,
    max_bytes: u64,
    bytes: u64,
    content_type: Option<String>,
    kept: Kept,
}

enum Kept {
    /// What came in one piece stays as it came: most results do.
    One(Bytes),
    Joined(BytesMut),
    Staged(Box<dyn Stage>),
}

// === impl JobOutput ===

impl JobOutput {
    /// Takes up to `max_bytes`.
    pub(crate) fn new(queue: Arc<dyn Queue>, max_bytes: u64) -> Self {
        Self { queue, max_bytes, bytes: 0, content_type: None, kept: Kept::One(Bytes::new()) }
    }

    /// Content type and bytes, on disk if they are many.
    pub(crate) async fn finish(self) -> Result<(String, Payload), OutputRefused> {
        let payload = match self.kept {
            Kept::One(bytes) => Payload::Inline(bytes),
            Kept::Joined(bytes) => Payload::Inline(bytes.freeze()),
            Kept::Staged(stage) => stage.finish().await.map_err(|error| refused(&error))?,
        };
        Ok((self.content_type.unwrap_or_else(|| CONTENT_TYPE_DEFAULT.to_owned()), payload))
    }

    async fn keep(&mut self, bytes: Bytes) -> Result<(), Error> {
        if let Kept::Staged(stage) = &mut self.kept {
            return stage.write(bytes).await;
        }
        if self.bytes > INLINE_BYTES_MAX as u64 {
            let mut stage = self.queue.stage().await?;
            let before = match std::mem::replace(&mut self.kept, Kept::One(Bytes::new())) {
                Kept::One(before) => before,
                Kept::Joined(before) => before.freeze(),
                Kept::Staged(_) => Bytes::new(),
            };
            stage.write(before).await?;
            stage.write(bytes).await?;
            self.kept = Kept::Staged(stage);
            return Ok(());
        }
        match &mut self.kept {
            Kept::One(first) if first.is_empty() => *first = bytes,
            Kept::One(first) => {
                let mut joined = BytesMut::with_capacity(first.len() + bytes.len());
                joined.extend_from_slice(first);
                joined.extend_from_slice(&bytes);
                self.kept = Kept::Joined(joined);
            }
            Kept::Joined(joined) => joined.extend_from_slice(&bytes),
            Kept::Staged(_) => {}
        }
        Ok(())
    }
}

#[async_trait]
impl Output for JobOutput {
    fn head(&mut self, content_type: &str, _status: Option<u16>) {
        self.content_type = Some(content_type.to_owned());
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), OutputRefused> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.max_bytes {
            return Err(OutputRefused::TooLarge(self.max_bytes));
        }
        self.keep(bytes).await.map_err(|error| refused(&error))
    }
}

fn refused(error: &Error) -> OutputRefused {
    match error {
        Error::TooLarge { limit, .. } => OutputRefused::TooLarge(*limit),
        // Another attempt may find room.
        Error::Busy(_) | Error::NoSpace(_) | Error::Disk(_) => OutputRefused::NoRoom(error.to_string()),
        error => OutputRefused::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use kvern_core::UnixMs;
    use kvern_queue::{Clock, MemoryQueue};

    use super::*;

    async fn written(pieces: &[usize], max_bytes: u64) -> Result<(String, Payload), OutputRefused> {
        let queue = Arc::new(MemoryQueue::new(Clock::manual(UnixMs(1))));
        let mut output = JobOutput::new(queue, max_bytes);
        for (number, len) in pieces.iter().enumerate() {
            output.write(Bytes::from(vec![u8::try_from(number).unwrap_or(0); *len])).await?;
        }
        output.finish().await
    }

    #[tokio::test]
    async fn pieces_come_together_in_order_on_every_way() {
        for pieces in [vec![], vec![7], vec![0, 7], vec![3, 4, 5], vec![40_000; 3], vec![100_000], vec![1, 100_000, 1]]
        {
            let expected: Vec<u8> = pieces.iter().zip(0u8..).flat_map(|(len, n)| vec![n; *len]).collect();
            let (content_type, payload) = written(&pieces, 1 << 20).await.expect("small enough");
            assert_eq!(payload, Payload::Inline(expected.into()), "{pieces:?}");
            assert_eq!(content_type, CONTENT_TYPE_DEFAULT);
        }
    }

    #[tokio::test]
    async fn the_bound_is_the_last_byte_that_fits() {
        assert!(written(&[5, 5], 10).await.is_ok());
        assert_eq!(written(&[5, 6], 10).await, Err(OutputRefused::TooLarge(10)));
    }
}
