//! Leases on their way to the caller who asked for them: if that one has gone, they go back (rule 11 of the contract).

use kvern_queue::{LeaseToken, Leased};

use crate::frame::encode;
use crate::outbox::Outbox;
use crate::words::{Number, Question, WireLeased};

/// Leases that nobody has taken yet. Dropped, it gives them back.
#[derive(Debug)]
pub(crate) struct Grant {
    leases: Vec<Leased>,
    outbox: Outbox,
}

// === impl Grant ===

impl Grant {
    /// Leases that came over this connection; none yet.
    pub(crate) fn new(outbox: Outbox) -> Self {
        Self { leases: Vec::new(), outbox }
    }

    /// Another part.
    pub(crate) fn add(&mut self, part: Vec<WireLeased>) {
        self.leases.extend(part.into_iter().map(WireLeased::into_leased));
    }

    /// The caller has them.
    pub(crate) fn take(mut self) -> Vec<Leased> {
        std::mem::take(&mut self.leases)
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        for leased in &self.leases {
            let token: LeaseToken = leased.lease.token();
            // With the connection goes the server, or we do: then they end by themselves.
            if let Ok(frame) = encode(&(Number::MAX, Question::GiveBack(token))) {
                self.outbox.push(frame);
            }
        }
    }
}
