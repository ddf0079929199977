//! The one setup of the suite: a fresh queue, words to drive it, and a few checks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kvern_core::{Attempt, Failure, FailureCode, FunctionName, Job, JobId, Keep, Next, Outcome, State, UnixMs, limits};

use super::Subject;
use crate::clock::Clock;
use crate::contract::Queue;
use crate::error::Error;
use crate::job::{
    Ask, Cursor, Filter, FunctionStats, Idempotency, Lease, LeaseState, Leased, NewJob, Retention, Settlement, Want,
};
use crate::payload::{Payload, Stored};

/// Where the manual clock begins: 14 November 2023.
pub(crate) const EPOCH: UnixMs = UnixMs(1_700_000_000_000);

/// The longest that anything which should come soon may take.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// A queue under test.
pub(crate) struct Setup {
    subject: Arc<dyn Subject>,
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) clock: Clock,
}

/// Chance with a seed, so that every run throws the same.
pub(crate) struct Dice(u64);

// === impl Setup ===

impl Setup {
    pub(crate) async fn new(subject: Arc<dyn Subject>) -> Self {
        let queue = subject.open().await;
        let clock = subject.clock();
        Self { subject, queue, clock }
    }

    pub(crate) async fn reopen(self) -> Self {
        let Self { subject, queue, clock } = self;
        let queue = subject.reopen(queue).await;
        Self { subject, queue, clock }
    }

    pub(crate) fn files(&self) -> usize {
        self.subject.files().len()
    }

    pub(crate) async fn submit(&self, job: NewJob) -> JobId {
        let submitted = self.queue.submit(job).await.expect("the job is accepted");
        assert!(!submitted.duplicate, "a job with no key is nobody's duplicate");
        submitted.id
    }

    pub(crate) async fn submit_many(&self, function: &str, count: usize) -> Vec<JobId> {
        let mut ids = Vec::new();
        for _ in 0..count {
            ids.push(self.submit(job(function)).await);
        }
        ids
    }

    pub(crate) async fn lease(&self, function: &str, slots: usize) -> Vec<Leased> {
        self.ask(&[(function, slots)], slots).await
    }

    pub(crate) async fn ask(&self, wants: &[(&str, usize)], max: usize) -> Vec<Leased> {
        self.queue.lease(ask(wants, max, Duration::ZERO)).await.expect("an open queue leases")
    }

    /// The next job of a function that must have one.
    pub(crate) async fn lease_one(&self, function: &str) -> Leased {
        let mut leased = self.lease(function, 1).await;
        assert_eq!(leased.len(), 1, "`{function}` has a job to lease");
        leased.remove(0)
    }

    pub(crate) async fn lease_none(&self, function: &str) {
        let leased = self.lease(function, 1).await;
        assert!(leased.is_empty(), "`{function}` must have nothing to lease, but gave {leased:?}");
    }

    pub(crate) async fn settle(&self, lease: Lease, settlement: Settlement) -> State {
        self.queue.settle(lease, settlement).await.expect("the lease stands")
    }

    pub(crate) async fn succeed(&self, leased: Leased) {
        let settlement = success(&leased, b"done");
        assert_eq!(self.settle(leased.lease, settlement).await, State::Succeeded);
    }

    pub(crate) async fn fail(&self, leased: Leased) {
        let settlement = finish(&leased, failed(), Next::Fail);
        assert_eq!(self.settle(leased.lease, settlement).await, State::Failed);
    }

    /// A settlement that must be refused, and must leave the job as it is.
    pub(crate) async fn refuse(&self, lease: Lease, settlement: Settlement) {
        let id = lease.token().job;
        let before = self.get(id).await;
        let answer = self.queue.settle(lease, settlement).await;
        assert!(matches!(answer, Err(Error::StaleLease(job)) if job == id), "a stale lease gave {answer:?}");
        assert_eq!(self.get(id).await, before, "a refused settlement changed the record");
    }

    pub(crate) async fn renew(&self, leased: &Leased) -> LeaseState {
        let states = self.queue.renew(&[leased.lease.token()]).await.expect("an open queue renews");
        assert_eq!(states.len(), 1, "one answer per lease");
        states[0]
    }

    pub(crate) async fn get(&self, id: JobId) -> Job {
        self.queue.get(id).await.expect("the job is there")
    }

    pub(crate) async fn state(&self, id: JobId) -> State {
        self.get(id).await.state
    }

    pub(crate) async fn input(&self, id: JobId) -> Vec<u8> {
        bytes_of(&self.queue.input(id).await.expect("the input is there").payload)
    }

    pub(crate) async fn result(&self, id: JobId) -> Option<Stored> {
        self.queue.result(id).await.expect("the job is there")
    }

    /// The whole log, read in small pieces.
    pub(crate) async fn log(&self, id: JobId) -> Vec<u8> {
        let mut log = Vec::new();
        loop {
            let piece = self.queue.read_log(id, log.len() as u64, 1000).await.expect("the job is there");
            if piece.is_empty() {
                return log;
            }
            log.extend_from_slice(&piece);
        }
    }

    /// All pages of a list.
    pub(crate) async fn list(&self, filter: &Filter, page: usize) -> Vec<Job> {
        let mut jobs = Vec::new();
        let mut cursor: Option<Cursor> = None;
        loop {
            let page = self.queue.list(filter, cursor.as_ref(), page).await.expect("the cursor is the list's own");
            jobs.extend(page.jobs);
            cursor = page.next;
            if cursor.is_none() {
                return jobs;
            }
        }
    }

    pub(crate) async fn count(&self, function: &str, state: State) -> u64 {
        self.stats_of(function).of(state)
    }

    pub(crate) fn stats_of(&self, function: &str) -> FunctionStats {
        let functions = self.queue.stats().functions;
        functions.iter().find(|(name, _)| name.as_str() == function).map(|(_, stats)| *stats).unwrap_or_default()
    }

    /// What the finished jobs of a function take, by what can be read of each.
    pub(crate) async fn finished_bytes(&self, function: &str) -> u64 {
        let states = State::ALL.into_iter().filter(|state| state.is_final()).collect();
        let mut sum = 0;
        for job in self.list(&Filter { function: Some(name(function)), states, since: None }, 100).await {
            let result = self.result(job.id).await.map_or(0, |result| result.payload.len());
            sum += limits::RECORD_BYTES + job.input_bytes + result + self.log(job.id).await.len() as u64;
        }
        sum
    }

    /// Sweeps until nothing is left, and gives the sums: expired, rescued, forgotten.
    pub(crate) async fn sweep(&self, retention: &Retention) -> (usize, usize, usize) {
        sweep_all(self.queue.as_ref(), retention, 1000).await.expect("an open queue sweeps")
    }
}

/// Sweeps with this limit until nothing is left, and gives the sums: expired, rescued, forgotten.
pub(crate) async fn sweep_all(
    queue: &dyn Queue,
    retention: &Retention,
    limit: usize,
) -> Result<(usize, usize, usize), Error> {
    let mut sums = (0, 0, 0);
    for _ in 0..10_000 {
        let swept = queue.sweep(retention, limit).await?;
        let handled = swept.expired + swept.rescued + swept.forgotten;
        assert!(handled <= limit, "a sweep of at most {limit} handled {swept:?}");
        sums = (sums.0 + swept.expired, sums.1 + swept.rescued, sums.2 + swept.forgotten);
        if !swept.more {
            return Ok(sums);
        }
    }
    panic!("sweeping does not end");
}

// === impl Dice ===

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// `SplitMix64`.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("smaller than a usize")
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Bytes {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(count);
        bytes.into()
    }
}

// === words ===

pub(crate) fn name(function: &str) -> FunctionName {
    function.parse().expect("a function name")
}

/// A plain job whose input is `input`.
pub(crate) fn job(function: &str) -> NewJob {
    NewJob {
        function: name(function),
        input: Payload::Inline(Bytes::from_static(b"input")),
        content_type: Some("text/plain".to_owned()),
        idempotency: None,
        not_before: None,
        expires_at: None,
        priority: limits::PRIORITY_DEFAULT,
        tags: Vec::new(),
        max_queued: limits::QUEUED_JOBS_DEFAULT,
    }
}

pub(crate) fn keyed(function: &str, key: u8, body: u8) -> NewJob {
    NewJob { idempotency: Some(Idempotency { key: [key; 16], body: [body; 16] }), ..job(function) }
}

pub(crate) fn ask(wants: &[(&str, usize)], max: usize, wait: Duration) -> Ask {
    let wants = wants.iter().map(|(function, slots)| Want { function: name(function), slots: *slots }).collect();
    Ask { worker: "tester".to_owned(), wants, max, wait }
}

pub(crate) fn failed() -> Outcome {
    Outcome::Failed(Failure::new(FailureCode::Exception, "it broke").with_class("ValueError").with_trace("line 1"))
}

pub(crate) fn crashed() -> Outcome {
    Outcome::Crashed(Failure::new(FailureCode::Crash, "killed by signal 11"))
}

/// The attempt that a worker would record.
pub(crate) fn attempt(leased: &Leased, outcome: &Outcome) -> Attempt {
    let started_at = leased.job.started_at.expect("a leased job has started");
    Attempt {
        number: leased.lease.token().attempt,
        outcome: outcome.as_str().to_owned(),
        started_at,
        finished_at: started_at.after(Duration::from_millis(3)),
        version: Some("abc123".to_owned()),
        error: outcome.failure().map(ToString::to_string),
    }
}

pub(crate) fn finish(leased: &Leased, outcome: Outcome, next: Next) -> Settlement {
    let attempt = attempt(leased, &outcome);
    Settlement::Finish { outcome, next, result: None, attempt, log: Bytes::new() }
}

pub(crate) fn success(leased: &Leased, result: &[u8]) -> Settlement {
    Settlement::Finish {
        outcome: Outcome::Succeeded,
        next: Next::Succeed,
        result: Some(("application/json".to_owned(), Payload::Inline(Bytes::copy_from_slice(result)))),
        attempt: attempt(leased, &Outcome::Succeeded),
        log: Bytes::new(),
    }
}

pub(crate) fn keep(functions: &[&str], succeeded: Duration, failed: Duration) -> Retention {
    functions.iter().map(|function| (name(function), Keep { succeeded, failed, ..Keep::default() })).collect()
}

pub(crate) fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

pub(crate) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The bytes of a payload, wherever they are; those of a file are checked against what its name card says.
pub(crate) fn bytes_of(payload: &Payload) -> Vec<u8> {
    match payload {
        Payload::Inline(bytes) => bytes.to_vec(),
        Payload::Blob(blob) => {
            let bytes = std::fs::read(&blob.path).expect("the file of a blob can be read");
            assert_eq!(bytes.len() as u64, blob.bytes, "size of a blob");
            assert_eq!(crc32c(&bytes), blob.crc32c, "checksum of a blob");
            bytes
        }
    }
}

/// RFC 3720, appendix B.4, a bit at a time: slow, and nobody's code under test.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

/// What must come soon.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(SOON, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {SOON:?}"),
    }
}

/// Looks again and again until it is so: for what a queue may do a moment later.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    soon(what, async {
        while !is_so().await {
            ticks.tick().await;
        }
    })
    .await;
}
