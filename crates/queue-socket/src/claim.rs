//! The claim on a payload that was staged on the server's side. It goes with the last payload that names it, and the server
//! is told.

use std::sync::Arc;

use bytes::Bytes;
use kvern_queue::{Blob, Error, Payload};

use crate::frame::encode;
use crate::live::Live;
use crate::words::{Number, Question, WirePayload};

/// A stage of the server, over the connection that it belongs to.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) live: Arc<Live>,
    pub(crate) stage: Number,
}

// === impl Claim ===

impl Claim {
    /// A stage with a number of its own. The server makes it with its first bytes.
    pub(crate) fn new(live: Arc<Live>) -> Self {
        let stage = live.number();
        Self { live, stage }
    }

    /// How a payload travels over a connection.
    ///
    /// # Errors
    /// [`Error::Broken`] if it was staged over another one, or is no payload of this queue.
    pub(crate) fn travels(payload: &Payload, live: &Arc<Live>) -> Result<WirePayload, Error> {
        let blob: &Blob = match payload {
            Payload::Inline(bytes) => return Ok(WirePayload::Inline(Bytes::clone(bytes))),
            Payload::Blob(blob) => blob,
        };
        match blob.staged.claim::<Self>() {
            Some(claim) if Arc::ptr_eq(&claim.live, live) => Ok(WirePayload::Staged(claim.stage)),
            Some(_) => {
                Err(Error::Broken("the payload went with the connection over which it was handed over".to_owned()))
            }
            None => Err(Error::Broken("a payload of another queue".to_owned())),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // A connection that has ended took its stages with it.
        if let Ok(frame) = encode(&(Number::MAX, Question::Drop(self.stage))) {
            self.live.outbox.push(frame);
        }
    }
}
