//! The suite that every adapter passes: one test per rule of [`crate::contract`], named after it.
//!
//! An adapter's own test implements [`Subject`] and calls [`run`]. Each rule gets a fresh queue on the subject's manual
//! clock. The tests wait for events and conditions with a deadline, never for time.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;

use crate::clock::Clock;
use crate::contract::Queue;

mod cancel;
mod lease;
mod look;
mod memory;
mod runner;
mod settle;
pub(crate) mod setup;
mod stale;
mod submit;
mod sweep;
mod watch;

pub use memory::MemorySubject;
pub use runner::run;

/// An adapter under test.
#[async_trait]
pub trait Subject: Send + Sync + 'static {
    /// What it is called in the table of rules.
    fn name(&self) -> &'static str;

    /// A new, empty queue on [`Subject::clock`].
    async fn open(&self) -> Arc<dyn Queue>;

    /// Kills the queue that [`Subject::open`] or this gave last (no [`Queue::close`], nothing flushed) and opens what
    /// it left behind. Called with no operation under way, and with the only reference that the tests hold.
    async fn reopen(&self, queue: Arc<dyn Queue>) -> Arc<dyn Queue>;

    /// Notes what is on the disk by now, for [`Subject::cut_power`].
    fn note_disk(&self) {}

    /// As [`Subject::reopen`], but as after a power cut: of what the queue wrote since [`Subject::note_disk`], only a
    /// part has reached the disk, which `seed` chooses. For a subject that knows no disk, a kill.
    async fn cut_power(&self, queue: Arc<dyn Queue>, _seed: u64) -> Arc<dyn Queue> {
        self.reopen(queue).await
    }

    /// Takes the room for new jobs away from its queues, or gives it back. False where that cannot be done.
    fn set_full(&self, _is_full: bool) -> bool {
        false
    }

    /// The manual clock of all its queues.
    fn clock(&self) -> Clock;

    /// Rules that it does not promise, each with the reason. Only those in [`MAY_BE_UNSUPPORTED`] are accepted.
    fn unsupported(&self) -> &'static [(u8, &'static str)] {
        &[]
    }

    /// The files in which the queue given last keeps payloads; none if it uses no files.
    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }
}

/// One test of the suite.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// As in the contract.
    pub number: u8,
    /// File and function of the test; the function is named after the rule.
    pub name: &'static str,
    /// Runs it; panics if the rule is broken.
    pub run: fn(Arc<dyn Subject>) -> Running,
}

/// A rule under test. Not `Send`, for asynchronous closures are not; the tasks that it starts run on all threads.
pub type Running = Pin<Box<dyn Future<Output = ()>>>;

/// What an adapter may leave out: what depends on the level of durability (1, 19), and the order across functions (8).
pub const MAY_BE_UNSUPPORTED: [u8; 3] = [1, 8, 19];

macro_rules! rules {
    ($($number:literal $path:path,)*) => {
        &[$(Rule { number: $number, name: stringify!($path), run: |subject| Box::pin($path(subject)) },)*]
    };
}

/// Every rule, in the order of the contract.
pub const RULES: &[Rule] = rules! {
    1 submit::a_submitted_job_is_there,
    2 submit::a_key_makes_one_job,
    3 submit::the_bound_holds,
    4 submit::ids_grow,
    5 submit::payloads_come_back_byte_for_byte,
    6 lease::one_job_one_lease,
    7 lease::higher_priority_first_then_older_first,
    8 lease::functions_share,
    9 lease::no_more_than_asked,
    10 lease::a_lease_waits_and_wakes,
    11 lease::a_dropped_lease_call_leaves_no_lease_behind,
    12 lease::a_scheduled_job_waits_for_its_time,
    13 lease::paused_functions_are_not_leased,
    14 settle::an_outcome_is_stored_whole,
    15 stale::a_stale_lease_is_refused,
    16 settle::retries_wait,
    17 settle::a_release_is_not_an_attempt,
    18 stale::an_unrenewed_lease_ends,
    19 stale::a_restart_is_not_a_retry,
    20 cancel::a_waiting_job_is_cancelled_at_once,
    21 cancel::a_finished_job_is_not_cancelled,
    22 cancel::a_retry_gives_a_dead_letter_a_new_life,
    23 look::lists_are_whole_and_in_order,
    24 look::counts_are_right,
    25 watch::a_watcher_hears_of_every_move,
    26 look::logs_append,
    27 look::workers_are_seen,
    28 sweep::expired_jobs_fail,
    29 sweep::finished_jobs_are_forgotten,
    30 sweep::a_sweep_is_bounded,
    31 watch::the_end_is_heard,
    32 look::a_log_is_bounded,
    33 sweep::finished_jobs_take_no_more_than_they_may,
    34 sweep::a_finished_job_is_forgotten_when_told_to,
};

#[cfg(test)]
mod tests {
    use super::RULES;

    #[test]
    fn each_rule_of_the_contract_has_its_test() {
        let contract = include_str!("../contract.rs");
        let mut tests = RULES.iter();
        for line in contract.lines() {
            let Some((number, text)) = line.strip_prefix("//! ").and_then(|rest| rest.split_once(". *")) else {
                continue;
            };
            let claim = text.split('*').next().unwrap_or_default().replace(", ", " ").replace([' ', '-'], "_");
            let rule = tests.next().expect("a test for each rule");
            let name = rule.name.rsplit(':').next().unwrap_or_default().trim();
            assert_eq!((rule.number.to_string().as_str(), name), (number, claim.as_str()));
        }
        assert!(tests.next().is_none(), "a test without a rule");
    }
}
