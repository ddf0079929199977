//! A payload on its way to the server: kept here while it is small, then sent in pieces, one after the other.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use kvern_core::limits::INLINE_BYTES_MAX;
use kvern_queue::{Blob, Error, Payload, Stage, Staged};
use tokio::time::timeout;

use crate::claim::Claim;
use crate::frame::PIECE_BYTES;
use crate::link::Link;
use crate::live::Unanswered;
use crate::queue::{ANSWER_WITHIN, CONNECT_WITHIN};
use crate::words::{Answer, Question};

/// A payload of unknown size.
pub(crate) struct SocketStage {
    link: Arc<Link>,
    bytes: u64,
    held: Held,
}

enum Held {
    Here(BytesMut),
    There(Claim),
    /// Some of its bytes did not arrive.
    Lost,
}

// === impl SocketStage ===

impl SocketStage {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        Self { link, bytes: 0, held: Held::Here(BytesMut::new()) }
    }

    async fn ask(&self, claim: &Claim, question: Question) -> Result<Answer, Error> {
        let answer = timeout(ANSWER_WITHIN, claim.live.ask(&question)).await;
        match answer.map_err(|_| Error::Busy(self.link.silent()))? {
            Ok(Answer::Refused(error)) | Err(Unanswered::Unsayable(error)) => Err(error),
            Ok(answer) => Ok(answer),
            Err(Unanswered::NotAsked | Unanswered::CutOff) => Err(lost()),
        }
    }

    async fn send(&self, claim: &Claim, mut bytes: Bytes) -> Result<(), Error> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE_BYTES));
            self.ask(claim, Question::Write(claim.stage, piece)).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Stage for SocketStage {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.bytes += bytes.len() as u64;
        // Whoever is dropped or refused in the middle has lost the rest.
        let (claim, begin) = match std::mem::replace(&mut self.held, Held::Lost) {
            Held::Here(mut held) if self.bytes <= INLINE_BYTES_MAX as u64 => {
                held.extend_from_slice(&bytes);
                self.held = Held::Here(held);
                return Ok(());
            }
            Held::Here(held) => {
                let live = timeout(CONNECT_WITHIN, self.link.live_for_work()).await;
                (Claim::new(live.map_err(|_| Error::Busy(self.link.silent()))??), held.freeze())
            }
            Held::There(claim) => (claim, Bytes::new()),
            Held::Lost => return Err(lost()),
        };
        self.send(&claim, begin).await?;
        self.send(&claim, bytes).await?;
        self.held = Held::There(claim);
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    async fn finish(mut self: Box<Self>) -> Result<Payload, Error> {
        let claim = match std::mem::replace(&mut self.held, Held::Lost) {
            Held::Here(held) => return Ok(Payload::Inline(held.freeze())),
            Held::There(claim) => claim,
            Held::Lost => return Err(lost()),
        };
        let Answer::Finished(file) = self.ask(&claim, Question::Finish(claim.stage)).await? else {
            return Err(Error::Broken("the queue gave another answer".to_owned()));
        };
        // A queue without files has none; nobody opens a payload that is only handed on.
        let blob = file.map_or_else(|| Blob::new(std::path::PathBuf::new(), self.bytes, 0), |file| file.into_blob());
        Ok(Payload::Blob(Blob { staged: Staged::elsewhere(claim), ..blob }))
    }
}

fn lost() -> Error {
    Error::Broken("the connection to the queue ended while a payload was handed over".to_owned())
}
