//! News of moves: who watches one job, who watches all.
//!
//! Events are hints that carry ids. Whoever hears one reads the record; a watcher that falls behind hears
//! [`Event::Missed`] and reads again what it cares for. Adapters in one process share this hub.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use kvern_core::{FunctionName, JobId, State};
use tokio::sync::{broadcast, watch};

/// Moves kept for a watcher of all that is slow to read.
const BACKLOG_EVENTS: usize = 1024;

/// What to watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// One job.
    Job(JobId),
    /// Every job.
    All,
}

/// A move, or the news that some were missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The job is in this state now.
    Moved {
        /// The job.
        id: JobId,
        /// Its function.
        function: FunctionName,
        /// Where it stands.
        state: State,
    },
    /// Something happened that is not told one by one.
    Missed,
}

/// Where an adapter tells its moves. Cheap while nobody listens.
#[derive(Debug, Default)]
pub struct Hub {
    jobs: Arc<Mutex<Jobs>>,
    all: Mutex<Option<broadcast::Sender<Event>>>,
}

/// One channel per watched job; its value is nothing, its version counts the moves.
type Jobs = HashMap<JobId, watch::Sender<()>>;

/// Hears events until it is dropped.
#[derive(Debug)]
pub struct Watcher(Source);

#[derive(Debug)]
enum Source {
    Job { id: JobId, moves: watch::Receiver<()>, jobs: Arc<Mutex<Jobs>> },
    All(broadcast::Receiver<Event>),
}

// === impl Hub ===

impl Hub {
    /// A watcher from now on.
    pub fn watch(&self, what: Watch) -> Watcher {
        match what {
            Watch::Job(id) => {
                let mut jobs = lock(&self.jobs);
                let moves = jobs.entry(id).or_insert_with(|| watch::channel(()).0).subscribe();
                Watcher(Source::Job { id, moves, jobs: Arc::clone(&self.jobs) })
            }
            Watch::All => {
                let mut all = lock(&self.all);
                let sender = all.get_or_insert_with(|| broadcast::channel(BACKLOG_EVENTS).0);
                Watcher(Source::All(sender.subscribe()))
            }
        }
    }

    /// Tells a move. Call it after the record shows it.
    pub fn tell(&self, id: JobId, function: &FunctionName, state: State) {
        if let Some(moves) = lock(&self.jobs).get(&id) {
            moves.send_replace(());
        }
        self.tell_all(|| Event::Moved { id, function: function.clone(), state });
    }

    /// Tells everyone that something may have been missed.
    pub fn tell_missed(&self) {
        for moves in lock(&self.jobs).values() {
            moves.send_replace(());
        }
        self.tell_all(|| Event::Missed);
    }

    fn tell_all(&self, event: impl FnOnce() -> Event) {
        let mut all = lock(&self.all);
        if let Some(sender) = all.as_ref()
            && sender.send(event()).is_err()
        {
            *all = None;
        }
    }
}

// === impl Watcher ===

impl Watcher {
    /// The next event; none when the queue is gone. May be dropped. A watcher of one job hears [`Event::Missed`] for
    /// every move: the record tells the rest.
    pub async fn next(&mut self) -> Option<Event> {
        match &mut self.0 {
            Source::Job { moves, .. } => moves.changed().await.ok().map(|()| Event::Missed),
            Source::All(receiver) => match receiver.recv().await {
                Ok(event) => Some(event),
                Err(broadcast::error::RecvError::Lagged(_)) => Some(Event::Missed),
                Err(broadcast::error::RecvError::Closed) => None,
            },
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let Source::Job { id, jobs, .. } = &self.0 else { return };
        let mut jobs = lock(jobs);
        // This watcher's own receiver is still counted while it is dropped.
        if jobs.get(id).is_some_and(|moves| moves.receiver_count() <= 1) {
            jobs.remove(id);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing here can panic midway, so a poisoned lock still guards whole data.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
