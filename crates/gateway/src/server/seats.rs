//! Seats: how many connections there are at once, and a few beyond them that are told to come again.
//!
//! A client beyond the bound must not wait in the kernel without a word: it gets its 503 with `Retry-After`, and a probe
//! its answer. Only when these seats are taken too, each for a few seconds at most, does a connection wait.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::settings::SPARE_SEATS;

/// Time for a whole request on a spare seat: many clients share the few.
pub(super) const SPARE_HEAD: Duration = Duration::from_secs(2);

/// The seats of a listener.
pub(super) struct Seats {
    own: Arc<Semaphore>,
    spare: Arc<Semaphore>,
}

/// A seat, given back when dropped.
pub(super) struct Seat {
    is_spare: bool,
    _permit: OwnedSemaphorePermit,
}

// === impl Seats ===

impl Seats {
    pub(super) fn new(connections: usize) -> Self {
        Self { own: Arc::new(Semaphore::new(connections)), spare: Arc::new(Semaphore::new(SPARE_SEATS)) }
    }

    /// Accepts a connection once there is a seat for it. May be dropped: a seat goes back, and a connection is accepted
    /// whole or not at all.
    pub(super) async fn accept(&self, listener: &TcpListener) -> io::Result<(TcpStream, Seat)> {
        let seat = tokio::select! {
            biased;
            permit = Arc::clone(&self.own).acquire_owned() => Seat::new(false, permit)?,
            permit = Arc::clone(&self.spare).acquire_owned() => Seat::new(true, permit)?,
        };
        let (stream, _) = listener.accept().await?;
        // While nobody came, a connection may have ended.
        match Arc::clone(&self.own).try_acquire_owned() {
            Ok(permit) if seat.is_spare => Ok((stream, Seat { is_spare: false, _permit: permit })),
            _ => Ok((stream, seat)),
        }
    }
}

// === impl Seat ===

impl Seat {
    fn new(is_spare: bool, permit: Result<OwnedSemaphorePermit, tokio::sync::AcquireError>) -> io::Result<Self> {
        permit.map(|permit| Self { is_spare, _permit: permit }).map_err(io::Error::other)
    }

    /// Whether it is beyond the bound.
    pub(super) fn is_spare(&self) -> bool {
        self.is_spare
    }
}
