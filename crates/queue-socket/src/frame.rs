//! A frame: four bytes of length, most significant first, then so many bytes of MessagePack.
//!
//! Invalid: a length above [`FRAME_BYTES_MAX`], and bytes that are no word of [`crate::words`]. Either ends the
//! connection: whoever sends them is no process of ours, or of another release that the hello should have told.

use bytes::Bytes;
use kvern_queue::Error;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::codec::LengthDelimitedCodec;

/// The longest frame. The largest word is a settlement: a result in memory, the rest of a log and a record.
pub(crate) const FRAME_BYTES_MAX: usize = 4 << 20;
/// What goes in pieces (large results, logs, leases, lists) goes in pieces of about this size.
pub(crate) const PIECE_BYTES: usize = 256 << 10;

const _: () = {
    use kvern_core::limits::{INLINE_BYTES_MAX, LOG_HEAD_BYTES_MAX, LOG_TAIL_BYTES_MAX};
    assert!(2 * (INLINE_BYTES_MAX + LOG_HEAD_BYTES_MAX + LOG_TAIL_BYTES_MAX) < FRAME_BYTES_MAX, "a settlement fits");
};

/// What finds the frames in a stream of bytes.
pub(crate) fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(FRAME_BYTES_MAX).new_codec()
}

/// The frame of a word, without its length.
///
/// # Errors
/// [`Error::TooLarge`] above [`FRAME_BYTES_MAX`].
pub(crate) fn encode(word: &impl Serialize) -> Result<Bytes, Error> {
    // By names: records leave out fields that are empty.
    let frame = rmp_serde::to_vec_named(word).map_err(|error| Error::Broken(error.to_string()))?;
    if frame.len() > FRAME_BYTES_MAX {
        return Err(Error::TooLarge { bytes: frame.len() as u64, limit: FRAME_BYTES_MAX as u64 });
    }
    Ok(frame.into())
}

/// The word in a frame; none if there is none.
pub(crate) fn decode<T: DeserializeOwned>(frame: &[u8]) -> Option<T> {
    rmp_serde::from_slice(frame).ok()
}
