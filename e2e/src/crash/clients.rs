//! The clients: threads that submit, cancel, retry and look without a pause, and write it all down.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::functions::{BRIEF, Plan};
use super::random::Random;
use crate::history::{Client, Submit, Told};
use crate::http::Http;
use crate::wait::within;

/// Threads that work at once.
pub(super) const CLIENTS: u64 = 4;
/// Jobs among which one is picked to be cancelled or looked at: those that still move.
const RECENT: usize = 150;
/// Large inputs that are kept for the comparison.
const LARGE_MAX: usize = 100;
/// A server that is killed comes back sooner than this.
const AWAY: Duration = Duration::from_secs(60);

/// What the threads share.
#[derive(Debug)]
pub(super) struct Crowd {
    pub(super) client: Client,
    /// Large inputs that were accepted; what is stored is compared with them.
    pub(super) large: Mutex<Vec<(String, Vec<u8>)>>,
    /// The submits whose jobs are soon forgotten.
    pub(super) brief: Mutex<BTreeSet<u64>>,
    stop: AtomicBool,
    notes: AtomicU64,
    known: Mutex<Vec<String>>,
    dead: Mutex<Vec<String>>,
}

/// Stops the clients when dropped.
struct Stop<'a>(&'a Crowd);

// === impl Crowd ===

impl Crowd {
    pub(super) fn new(http: Http) -> Self {
        Self {
            client: Client::new(http),
            large: Mutex::default(),
            brief: Mutex::default(),
            stop: AtomicBool::new(false),
            notes: AtomicU64::new(1),
            known: Mutex::default(),
            dead: Mutex::default(),
        }
    }

    /// Clients work for as long as this takes.
    pub(super) fn at_work_while(&self, seed: u64, mut happens: impl FnMut()) {
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                scope.spawn(move || self.work(Random::of(seed, client)));
            }
            // Also if this panics: the scope waits for the clients.
            let _stop = Stop(self);
            happens();
        });
    }

    /// What tells the next job from all others.
    pub(super) fn note(&self) -> u64 {
        self.notes.fetch_add(1, Ordering::Relaxed)
    }

    /// Works until told to stop.
    fn work(&self, mut random: Random) {
        while !self.stop.load(Ordering::Relaxed) {
            let told = match random.below(20) {
                0..=8 => Some(self.submit(&Plan::draw(self.note(), &mut random), &mut random)),
                9 | 10 => self.recent(&mut random).map(|id| self.client.cancel(&id)),
                11..=13 => self.corpse(&mut random).map(|id| self.client.retry(&id)),
                // The pace of all this: a look waits for the end of its job, or a moment.
                _ => self.recent(&mut random).map(|id| self.client.look(&id, "100ms")),
            };
            match told {
                Some(Told::Shown(record)) if matches!(record.state.as_str(), "failed" | "cancelled") => {
                    self.dead.lock().expect("the dead").push(record.id);
                }
                Some(Told::Unknown(_) | Told::Refused(_)) => self.wait_for_the_server(),
                _ => {}
            }
        }
    }

    /// Submits a job; with a key as often as it takes, and sometimes once more than that.
    pub(super) fn submit(&self, plan: &Plan, random: &mut Random) -> Told {
        loop {
            let told = self.send(plan);
            match &told {
                Told::Accepted(id) => {
                    self.remember(id, plan);
                    if plan.key.is_some() && random.once_in(4) {
                        let _ = self.send(plan);
                    }
                    return told;
                }
                Told::Unknown(_) if plan.key.is_some() && !self.stop.load(Ordering::Relaxed) => {
                    self.wait_for_the_server();
                }
                _ => return told,
            }
        }
    }

    fn remember(&self, id: &str, plan: &Plan) {
        self.known.lock().expect("the known").push(id.to_owned());
        let mut large = self.large.lock().expect("the large");
        if plan.large && plan.function != BRIEF && large.len() < LARGE_MAX {
            large.push((id.to_owned(), plan.body()));
        }
    }

    /// Submits a job once.
    pub(super) fn send(&self, plan: &Plan) -> Told {
        if plan.function == BRIEF {
            self.brief.lock().expect("the brief").insert(plan.note);
        }
        let body = plan.body();
        let (key, options) = (plan.key.as_deref(), plan.options.as_str());
        self.client.submit(Submit { function: plan.function, note: plan.note, key, options, body: &body })
    }

    fn recent(&self, random: &mut Random) -> Option<String> {
        let known = self.known.lock().expect("the known");
        random.one_of(&known[known.len().saturating_sub(RECENT)..]).cloned()
    }

    /// A job that was over and unsuccessful when it was last seen. It is retried once.
    fn corpse(&self, random: &mut Random) -> Option<String> {
        let mut dead = self.dead.lock().expect("the dead");
        let at = usize::try_from(random.below(u64::try_from(dead.len()).ok()?.max(1))).ok()?;
        (at < dead.len()).then(|| dead.swap_remove(at))
    }

    fn wait_for_the_server(&self) {
        let is_there = || TcpStream::connect(self.client.http.address).is_ok();
        let _ = within(AWAY, || (is_there() || self.stop.load(Ordering::Relaxed)).then_some(()));
    }
}

// === impl Stop ===

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}
