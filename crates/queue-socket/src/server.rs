//! The server: takes connections from processes of its own user or of root, and serves the queue to each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kvern_queue::{Queue, WorkerInfo};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::hears::Hears;
use crate::session;
use crate::socket::Socket;

/// Most connections at once; others wait in the socket.
const CONNECTIONS_MAX: usize = 256;
/// The pause after a connection could not be taken, as a rule for want of open files.
const TAKE_AGAIN: Duration = Duration::from_millis(100);
/// The longest wait for answers that are under way at the end.
const END_WITHIN: Duration = Duration::from_secs(2);

/// Serves a queue to other processes of this machine.
pub struct Server {
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) hears: Arc<dyn Hears>,
    /// Another number for each start.
    pub(crate) life: u64,
    /// The workers that are connected, by their connection, as they announced themselves last.
    workers: Mutex<BTreeMap<u64, WorkerInfo>>,
}

/// The two steps of a stop.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// No more leases are given. What runs may go on, and settle.
    pub drain: CancellationToken,
    /// Connections end, once what was asked before is answered.
    pub end: CancellationToken,
}

// === impl Server ===

impl Server {
    /// A server of this queue.
    #[must_use]
    pub fn new(queue: Arc<dyn Queue>, hears: Arc<dyn Hears>) -> Self {
        Self { queue, hears, life: rand::random(), workers: Mutex::default() }
    }

    /// The workers that are connected now. Unlike [`Queue::workers`], one that died is not among them.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerInfo> {
        self.lock().values().cloned().collect()
    }

    /// Serves until [`Stop::end`].
    pub async fn run(self: Arc<Self>, socket: Socket, stop: Stop) {
        let (sessions, seats) = (TaskTracker::new(), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
        for number in 0.. {
            let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { break };
            let taken = tokio::select! {
                biased;
                () = stop.end.cancelled() => break,
                // Dropped, it has taken nothing.
                taken = socket.listener.accept() => taken,
            };
            let stream = match taken {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection to the queue cannot be taken");
                    sleep(TAKE_AGAIN).await;
                    continue;
                }
            };
            if !is_allowed(&stream) {
                continue;
            }
            let (server, stop) = (Arc::clone(&self), stop.clone());
            sessions.spawn(async move {
                session::serve(&server, number, stream, &stop).await;
                drop(seat);
            });
        }
        // Nobody finds the socket any more.
        drop(socket);
        sessions.close();
        if timeout(END_WITHIN, sessions.wait()).await.is_err() {
            tracing::warn!(
                connections = sessions.len(),
                "the queue has not answered everything; its connections are cut"
            );
        }
    }

    pub(crate) fn came(&self, session: u64, worker: WorkerInfo) {
        let name = worker.name.clone();
        if self.lock().insert(session, worker).is_none() {
            tracing::info!(worker = name, "a worker is connected");
        }
    }

    pub(crate) fn went(&self, session: u64) {
        let gone = self.lock().remove(&session);
        if let Some(worker) = gone {
            tracing::info!(worker = worker.name, "a worker is no longer connected");
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, WorkerInfo>> {
        // A map is whole at any time.
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("life", &self.life).finish_non_exhaustive()
    }
}

/// Whether the process at the other end is of our own user, or of root. The mode of the socket says the same; this also
/// holds where somebody changed it.
fn is_allowed(stream: &UnixStream) -> bool {
    let ours = rustix::process::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(peer) if may_come(peer.uid(), ours) => true,
        Ok(peer) => {
            tracing::warn!(uid = peer.uid(), pid = peer.pid(), "refused: the queue is for processes of its own user");
            false
        }
        Err(error) => {
            tracing::warn!(%error, "refused: the system does not say whose process it is");
            false
        }
    }
}

fn may_come(uid: u32, ours: u32) -> bool {
    uid == ours || uid == 0
}

#[cfg(test)]
mod tests {
    use super::may_come;

    #[test]
    fn only_its_own_user_and_root_may_come() {
        assert!(may_come(1000, 1000) && may_come(0, 1000) && may_come(0, 0));
        assert!(!may_come(1001, 1000) && !may_come(1000, 0));
    }
}
