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
            Err(Unanswered::NotAsked | Unanswered::CutOff) => {
                Err(Error::Broken("the connection to the queue ended while a payload was handed over".to_owned()))
            }
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
        if let Held::Here(held) = &mut self.held {
            if self.bytes <= INLINE_BYTES_MAX as u64 {
                held.extend_from_slice(&bytes);
                return Ok(());
            }
            let begin = std::mem::take(held).freeze();
            let live = timeout(CONNECT_WITHIN, self.link.live_for_work()).await;
            let claim = Claim::new(live.map_err(|_| Error::Busy(self.link.silent()))??);
            self.send(&claim, begin).await?;
            self.held = Held::There(claim);
        }
        match &self.held {
            Held::There(claim) => self.send(claim, bytes).await,
            Held::Here(_) => Ok(()),
        }
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    async fn finish(mut self: Box<Self>) -> Result<Payload, Error> {
        let claim = match std::mem::replace(&mut self.held, Held::Here(BytesMut::new())) {
            Held::Here(held) => return Ok(Payload::Inline(held.freeze())),
            Held::There(claim) => claim,
        };
        let Answer::Finished(file) = self.ask(&claim, Question::Finish(claim.stage)).await? else {
            return Err(Error::Broken("the queue gave another answer".to_owned()));
        };
        // A queue without files has none; nobody opens a payload that is only handed on.
        let blob = file.map_or_else(|| Blob::new(std::path::PathBuf::new(), self.bytes, 0), |file| file.into_blob());
        Ok(Payload::Blob(Blob { staged: Staged::elsewhere(claim), ..blob }))
    }
}
