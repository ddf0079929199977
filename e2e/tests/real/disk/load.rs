//! Clients that submit without a pause while the disk fails under the server, and a judge of what they were told.
//!
//! Each input has a number of its own, so that a stored job names the request that made it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kvern_e2e::wait::within;
use kvern_e2e::{Answer, Http, until_within};
use serde_json::Value;

const CLIENTS: usize = 3;
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
/// One input in so many is stored as a file beside the database.
const LARGE_EVERY: u64 = 8;
const LARGE_BYTES: usize = 100_000;
/// Between tries while the server is away.
const PAUSE: Duration = Duration::from_millis(20);

/// The function of the load, and one whose jobs are no part of it.
pub(crate) const MANIFEST: &str = "\
[functions.echo]
exec = [\"sh\", \"-c\", \"head -c 20\"]
concurrency = 2

[functions.fill]
exec = [\"true\"]
";
const JOBS: &str = "/v1/functions/echo/jobs";

/// What was sent and heard.
#[derive(Debug)]
pub(crate) struct Load {
    http: Http,
    stop: AtomicBool,
    sent: AtomicU64,
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// Numbers by the id that was acknowledged.
    pub(crate) acknowledged: BTreeMap<String, u64>,
    /// Jobs that were seen to succeed, and when they did.
    pub(crate) succeeded: BTreeMap<String, Value>,
    /// Answers that were no `202`, also while nothing else counts.
    pub(crate) refused: Vec<Answer>,
    /// Faults so far. What was asked before a fault and answered after it counts for nothing.
    fault: u64,
    is_broken: bool,
}

impl Load {
    pub(crate) fn new(http: &Http) -> Self {
        Self { http: http.clone(), stop: AtomicBool::default(), sent: AtomicU64::default(), heard: Mutex::default() }
    }

    /// Runs the clients while `meanwhile` runs.
    pub(crate) fn during<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        // Also when it panics: the clients would go on for ever.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        self.stop.store(false, Ordering::SeqCst);
        std::thread::scope(|scope| {
            let _stop = Stop(&self.stop);
            for _ in 0..CLIENTS {
                scope.spawn(|| self.submit_all());
            }
            scope.spawn(|| self.watch());
            meanwhile()
        })
    }

    /// Waits for so many more acknowledgements.
    pub(crate) fn goes_on(&self, more: usize) {
        let begun = self.heard().acknowledged.len();
        until_within(ANSWERS_WITHIN, &format!("{more} more acknowledgements"), || {
            (self.heard().acknowledged.len() >= begun + more).then_some(())
        });
    }

    /// From now on no acknowledgement counts, until [`Load::mended`].
    pub(crate) fn breaks(&self) {
        let mut heard = self.heard();
        heard.fault += 1;
        heard.is_broken = true;
    }

    /// The server is whole again.
    pub(crate) fn mended(&self) {
        self.heard().is_broken = false;
    }

    /// What was heard so far.
    pub(crate) fn heard(&self) -> MutexGuard<'_, Heard> {
        // Maps and lists are whole at any time.
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit_all(&self) {
        while !self.stop.load(Ordering::SeqCst) {
            let number = self.sent.fetch_add(1, Ordering::SeqCst);
            let fault = self.heard().fault;
            match self.http.try_ask("POST", JOBS, &[], &input(number)) {
                Ok(answer) => self.hear(fault, number, answer),
                Err(_) => self.pause(),
            }
        }
    }

    fn pause(&self) {
        let _ = within(PAUSE, || self.stop.load(Ordering::SeqCst).then_some(()));
    }

    fn hear(&self, fault: u64, number: u64, answer: Answer) {
        let mut heard = self.heard();
        if answer.status != 202 {
            heard.refused.push(answer);
        } else if heard.counts(fault) && !answer.body.is_empty() {
            let id = answer.json()["id"].as_str().expect("an id").to_owned();
            let before = heard.acknowledged.insert(id.clone(), number);
            assert_eq!(before, None, "an id was given twice: {id}");
        }
    }

    /// Looks at what has succeeded last, again and again.
    fn watch(&self) {
        while !self.stop.load(Ordering::SeqCst) {
            let fault = self.heard().fault;
            let path = "/v1/jobs?function=echo&state=succeeded&limit=50";
            let page = self.http.try_ask("GET", path, &[], b"").ok();
            let page = page.and_then(|answer| serde_json::from_slice::<Value>(&answer.body).ok());
            let mut heard = self.heard();
            if let (Some(jobs), true) = (page.as_ref().and_then(|page| page["jobs"].as_array()), heard.counts(fault)) {
                let seen =
                    jobs.iter().map(|job| (job["id"].as_str().expect("an id").to_owned(), job["finished_at"].clone()));
                heard.succeeded.extend(seen);
            }
            drop(heard);
            self.pause();
        }
    }

    /// Everything that was acknowledged is there byte for byte, and every outcome that was seen stands.
    pub(crate) fn is_kept(&self) {
        let heard = self.heard();
        for (id, number) in &heard.acknowledged {
            let stored = self.http.get(&format!("/v1/jobs/{id}/input"));
            assert_eq!(stored.status, 200, "acknowledged and lost: {id}, number {number}: {}", stored.text());
            assert!(stored.body == input(*number), "the input of {id} is another");
        }
        for (id, finished_at) in &heard.succeeded {
            let job = self.http.get(&format!("/v1/jobs/{id}")).json();
            assert_eq!((&job["state"], &job["finished_at"]), (&"succeeded".into(), finished_at), "{job}");
        }
    }

    /// No job that nobody submitted, none that was submitted once and is there twice, and none with two outcomes.
    pub(crate) fn nothing_is_made_up(&self) {
        let mut seen = BTreeSet::new();
        for job in self.all() {
            let id = job["id"].as_str().expect("an id");
            let stored = self.http.get(&format!("/v1/jobs/{id}/input")).body;
            let number = number_of(&stored).unwrap_or_else(|| panic!("nobody submitted {id}: {stored:?}"));
            assert!(number < self.sent.load(Ordering::SeqCst) && stored == input(number), "nobody submitted {id}");
            assert!(seen.insert(number), "number {number} is there twice");
            has_one_outcome(&self.http.get(&format!("/v1/jobs/{id}")).json());
        }
        assert!(seen.len() >= self.heard().acknowledged.len(), "the list has every acknowledged job");
    }

    fn all(&self) -> Vec<Value> {
        let mut jobs = Vec::new();
        let first = "/v1/jobs?function=echo&limit=500";
        let mut path = first.to_owned();
        loop {
            let page = self.http.get(&path).json();
            jobs.extend(page["jobs"].as_array().expect("a list").iter().cloned());
            let Some(next) = page["next"].as_str() else { return jobs };
            path = format!("{first}&cursor={next}");
        }
    }
}

impl Heard {
    /// Whether an answer counts to a question that was asked after so many faults.
    fn counts(&self, fault: u64) -> bool {
        !self.is_broken && self.fault == fault
    }
}

/// A job that ended did so in its last attempt and in no other.
fn has_one_outcome(job: &Value) {
    let attempts = job["attempts"].as_array().expect("attempts");
    let succeeded = attempts.iter().filter(|attempt| attempt["outcome"] == "succeeded").count();
    let is_success = job["state"] == "succeeded";
    assert_eq!(succeeded, usize::from(is_success), "{job}");
    assert!(!is_success || attempts.last().is_some_and(|last| last["outcome"] == "succeeded"), "{job}");
}

/// The input with this number.
fn input(number: u64) -> Vec<u8> {
    let mut input = format!("{number:019}\n").into_bytes();
    if number.is_multiple_of(LARGE_EVERY) {
        input.resize(LARGE_BYTES, b'.');
    }
    input
}

fn number_of(input: &[u8]) -> Option<u64> {
    std::str::from_utf8(input.get(..19)?).ok()?.parse().ok()
}
