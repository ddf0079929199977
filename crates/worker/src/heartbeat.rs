//! Keeps the worker's leases alive, and hears through them that a job is cancelled or its lease is over.
//!
//! One task for all leases. It sleeps while there are none, and goes on until the settlements of a drain are stored.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvern_core::limits::{LEASE_TTL, RENEW_EVERY};
use kvern_queue::{LeaseState, LeaseToken, Queue};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// The leases that this worker holds.
#[derive(Debug, Default)]
pub(crate) struct Heartbeat {
    held: Mutex<Registry>,
    begin: Notify,
}

#[derive(Debug, Default)]
struct Registry {
    /// Hashed without a random seed, so that a simulated run repeats.
    leases: HashMap<LeaseToken, Entry, BuildHasherDefault<DefaultHasher>>,
    /// The task waits for the first lease.
    asleep: bool,
}

#[derive(Debug)]
struct Entry {
    word: Arc<Word>,
    since: Instant,
}

/// What the queue last said of a lease.
#[derive(Debug, Default)]
struct Word {
    code: AtomicU8,
    changed: Notify,
}

/// A lease that is renewed until this is dropped.
#[derive(Debug)]
pub(crate) struct Holding {
    token: LeaseToken,
    word: Arc<Word>,
    heartbeat: Arc<Heartbeat>,
}

/// Why an attempt should not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Somebody cancelled the job.
    Cancelled,
    /// Another attempt owns the job, or may soon.
    Over,
}

const HELD: u8 = 0;
const CANCELLED: u8 = 1;
const OVER: u8 = 2;

// === impl Heartbeat ===

impl Heartbeat {
    /// Renews this lease from now on.
    pub(crate) fn hold(self: &Arc<Self>, token: LeaseToken) -> Holding {
        let word = Arc::new(Word::default());
        let entry = Entry { word: Arc::clone(&word), since: Instant::now() };
        let mut registry = self.lock();
        registry.leases.insert(token, entry);
        let wake = std::mem::take(&mut registry.asleep);
        drop(registry);
        if wake {
            self.begin.notify_one();
        }
        Holding { token, word, heartbeat: Arc::clone(self) }
    }

    /// Renews until `stop`. `on_stop` is called after a renewal ended attempts, for those that do not run yet.
    pub(crate) async fn run(&self, queue: &dyn Queue, stop: &CancellationToken, on_stop: impl Fn()) {
        let mut renewed_at = Instant::now();
        let mut complained = false;
        loop {
            tokio::select! {
                biased;
                // Nothing is under way in a sleep.
                () = self.next_beat() => {}
                () = stop.cancelled() => return,
            }
            let tokens: Vec<LeaseToken> = self.lock().leases.keys().copied().collect();
            if tokens.is_empty() {
                continue;
            }
            // A renewal that hangs is as good as one that failed; dropping it changes nothing that the next would not.
            let answer = timeout(LEASE_TTL / 4, queue.renew(&tokens)).await;
            let ended = match answer {
                Ok(Ok(states)) => {
                    renewed_at = Instant::now();
                    complained = false;
                    self.hear(&tokens, &states)
                }
                failed => {
                    if !complained {
                        complained = true;
                        let error = failed.map_or_else(|_| "no answer".to_owned(), |r| format!("{r:?}"));
                        tracing::warn!(error, "leases could not be renewed");
                    }
                    self.give_up_stale(renewed_at)
                }
            };
            if ended {
                on_stop();
            }
        }
    }

    /// Returns when it is time to renew: one interval from now, and not before some lease is held. Leases come and go
    /// quickly under load, so the first one only ends the sleep; those that are still held an interval later count.
    async fn next_beat(&self) {
        let begun = self.begin.notified();
        let asleep = {
            let mut registry = self.lock();
            registry.asleep = registry.leases.is_empty();
            registry.asleep
        };
        if asleep {
            begun.await;
        }
        sleep(RENEW_EVERY).await;
    }

    fn hear(&self, tokens: &[LeaseToken], states: &[LeaseState]) -> bool {
        let registry = self.lock();
        let mut ended = false;
        for (token, state) in tokens.iter().zip(states) {
            let Some(entry) = registry.leases.get(token) else { continue };
            ended |= match state {
                LeaseState::Held => false,
                LeaseState::CancelRequested => entry.word.say(CANCELLED),
                LeaseState::Over => entry.word.say(OVER),
            };
        }
        ended
    }

    /// Leases that nobody renewed for their whole life are over by the queue's clock: another worker may have the job.
    fn give_up_stale(&self, renewed_at: Instant) -> bool {
        let mut ended = false;
        for entry in self.lock().leases.values() {
            if entry.since.max(renewed_at).elapsed() >= LEASE_TTL {
                ended |= entry.word.say(OVER);
            }
        }
        ended
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        // Nothing here panics midway, so a poisoned lock still guards whole data.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Word ===

impl Word {
    /// Says it if it is news.
    fn say(&self, code: u8) -> bool {
        let news = self.code.fetch_max(code, Ordering::AcqRel) < code;
        if news {
            self.changed.notify_one();
        }
        news
    }

    fn heard(&self) -> Option<Stop> {
        match self.code.load(Ordering::Acquire) {
            HELD => None,
            CANCELLED => Some(Stop::Cancelled),
            _ => Some(Stop::Over),
        }
    }
}

// === impl Holding ===

impl Holding {
    /// Why the attempt should stop, if it should.
    pub(crate) fn stop(&self) -> Option<Stop> {
        self.word.heard()
    }

    /// Returns when the attempt should stop. May be dropped and called again.
    pub(crate) async fn stopped(&self) -> Stop {
        loop {
            if let Some(stop) = self.word.heard() {
                return stop;
            }
            self.word.changed.notified().await;
        }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.heartbeat.lock().leases.remove(&self.token);
    }
}
