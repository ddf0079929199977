//! The tasks that serve the whole worker: who they are, when they end, what follows if one of them breaks.
//!
//! There are no others, but for the stations (one per place, counted by their pool and waited for by the drain) and the
//! settlements (waited for by the drain).

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::worker::Shared;
use crate::{announce, leases, scaler, sweeper};

/// The pause before a task that panicked runs again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Every top-level task. A panic in one is logged, and it runs again after a pause: all of them find what they need
/// in what is shared, and a lease that was lost on the way runs out. Errors of the queue are handled within each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TaskKind {
    /// Asks for jobs. Ends when the drain begins.
    Leases,
    /// Starts instances where work waits. Ends when the drain begins.
    Scaler,
    /// Renews leases. Ends after the drain.
    Heartbeat,
    /// Sweeps the queue. Ends after the drain.
    Sweeper,
    /// Announces the worker. Ends after the drain.
    Announcer,
}

/// The running tasks.
pub(crate) struct Tasks {
    shared: Arc<Shared>,
    set: JoinSet<()>,
    kinds: HashMap<Id, TaskKind>,
    stop: CancellationToken,
}

// === impl TaskKind ===

impl TaskKind {
    const ALL: [Self; 5] = [Self::Leases, Self::Scaler, Self::Heartbeat, Self::Sweeper, Self::Announcer];

    async fn run(self, shared: Arc<Shared>, stop: CancellationToken) {
        match self {
            Self::Leases => leases::run(&shared).await,
            Self::Scaler => scaler::run(&shared).await,
            Self::Heartbeat => {
                let refuse_stopped = || shared.refuse_stopped();
                shared.heartbeat.run(&*shared.queue, &stop, refuse_stopped).await;
            }
            Self::Sweeper if !shared.settings.sweeps => {}
            Self::Sweeper => {
                let retention = || shared.floor(|floor, _| floor.retention());
                sweeper::sweep(&*shared.queue, retention, &shared.activity, &stop).await;
            }
            Self::Announcer => announce::run(&shared, &stop).await,
        }
    }
}

// === impl Tasks ===

impl Tasks {
    pub(crate) fn start(shared: &Arc<Shared>) -> Self {
        let mut tasks = Self {
            shared: Arc::clone(shared),
            set: JoinSet::new(),
            kinds: HashMap::new(),
            stop: CancellationToken::new(),
        };
        for kind in TaskKind::ALL {
            tasks.spawn(kind, Duration::ZERO);
        }
        tasks
    }

    /// Runs `work` to its end and restarts tasks that break meanwhile.
    pub(crate) async fn watch_until<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                output = &mut work => return output,
                // Only waits: a task that ended stays in the set until it is taken out.
                Some(joined) = self.set.join_next_with_id() => self.joined(joined),
            }
        }
    }

    /// Ends the tasks that outlive the drain.
    pub(crate) async fn stop(&mut self) {
        self.stop.cancel();
        while let Some(joined) = self.set.join_next_with_id().await {
            self.joined(joined);
        }
    }

    fn joined(&mut self, joined: Result<(Id, ()), JoinError>) {
        match joined {
            // Ended because it was told to.
            Ok((id, ())) => {
                self.kinds.remove(&id);
            }
            Err(error) => {
                let Some(kind) = self.kinds.remove(&error.id()) else { return };
                tracing::error!(task = ?kind, %error, "a task of the worker broke; it is started again");
                self.spawn(kind, RESTART_PAUSE);
            }
        }
    }

    fn spawn(&mut self, kind: TaskKind, pause: Duration) {
        let (shared, stop) = (Arc::clone(&self.shared), self.stop.clone());
        let handle = self.set.spawn(async move {
            // Only after a panic; the drain waits for it.
            sleep(pause).await;
            kind.run(shared, stop).await;
        });
        self.kinds.insert(handle.id(), kind);
    }
}
