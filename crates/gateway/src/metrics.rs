//! What the gateway and, through the binary, the worker count. Handles are resolved once per function, so counting on the
//! hot path is an atomic addition or a short lock.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use kvern_core::{FunctionName, Outcome};
use kvern_queue::Queue;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::scrape::{HistogramReading, Scrape};

/// The upper bounds of the buckets, in seconds: from a fast disk's fsync to a long job.
const ACCEPT_BUCKETS: [f64; 12] = [0.0002, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.1, 0.5, 1.0, 5.0];
const WAIT_BUCKETS: [f64; 12] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0];
const RUN_BUCKETS: [f64; 12] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 3600.0];

/// The counters of one server.
#[derive(Debug)]
pub struct Metrics {
    registry: RwLock<Registry>,
    functions: RwLock<HashMap<FunctionName, Arc<FunctionMetrics>>>,
    families: Families,
    /// Time from a request's head to the durable job.
    pub(crate) accept_seconds: Histogram,
    pub(crate) connections: Gauge,
}

/// The counters of one function.
#[derive(Debug)]
pub struct FunctionMetrics {
    pub(crate) accepted: Counter,
    /// In the order of [`OUTCOMES`].
    finished: [Counter; OUTCOMES.len()],
    wait: Histogram,
    run: Histogram,
}

/// How an attempt or a call can end: the words of [`Outcome`], and of a lost one.
const OUTCOMES: [&str; 6] = ["succeeded", "failed", "timed_out", "crashed", "cancelled", "interrupted"];

type HistogramFamily = Family<ByFunction, Histogram, fn() -> Histogram>;

#[derive(Debug)]
struct Families {
    accepted: Family<ByFunction, Counter>,
    finished: Family<ByOutcome, Counter>,
    wait: HistogramFamily,
    run: HistogramFamily,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByFunction {
    function: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    function: String,
    outcome: &'static str,
}

// === impl Metrics ===

impl Metrics {
    /// Counters at zero.
    #[must_use]
    pub fn new() -> Self {
        let families = Families {
            accepted: Family::default(),
            finished: Family::default(),
            wait: Family::new_with_constructor(|| Histogram::new(WAIT_BUCKETS)),
            run: Family::new_with_constructor(|| Histogram::new(RUN_BUCKETS)),
        };
        let accept_seconds = Histogram::new(ACCEPT_BUCKETS);
        let connections = Gauge::default();
        let mut all = Registry::default();
        all.register("kvern_jobs_accepted", "Jobs accepted", families.accepted.clone());
        all.register("kvern_jobs_finished", "Attempts that ended, by outcome", families.finished.clone());
        all.register("kvern_wait_seconds", "Time from due to started", families.wait.clone());
        all.register("kvern_run_seconds", "Time from started to ended", families.run.clone());
        all.register("kvern_accept_seconds", "Time from request to durable job", accept_seconds.clone());
        all.register("kvern_http_connections", "Open connections", connections.clone());
        Self { registry: RwLock::new(all), functions: RwLock::default(), families, accept_seconds, connections }
    }

    /// The counters of a function; keep the handle.
    #[must_use]
    pub fn function(&self, name: &FunctionName) -> Arc<FunctionMetrics> {
        if let Some(known) = self.functions.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Arc::clone(known);
        }
        let mut functions = self.functions.write().unwrap_or_else(PoisonError::into_inner);
        let made = functions.entry(name.clone()).or_insert_with(|| Arc::new(self.families.of(name)));
        Arc::clone(made)
    }

    /// Counts an attempt or call that ended.
    pub fn finished(&self, name: &FunctionName, outcome: &Outcome) {
        self.function(name).finished(outcome.as_str());
    }

    /// Counts the time that a job was due before it started.
    pub fn observe_wait(&self, name: &FunctionName, waited: Duration) {
        self.function(name).observe_wait(waited);
    }

    /// Counts the time that an attempt or call ran.
    pub fn observe_run(&self, name: &FunctionName, ran: Duration) {
        self.function(name).observe_run(ran);
    }

    /// Adds the readings that are taken at each scrape: the queue's own counts, and the histogram of fsyncs if there is
    /// one. Called once, by the gateway.
    pub(crate) fn read_at_scrape(&self, queue: Arc<dyn Queue>, fsync: Option<HistogramReading>) {
        let mut registry = self.registry.write().unwrap_or_else(PoisonError::into_inner);
        registry.register_collector(Box::new(Scrape::new(queue, fsync)));
    }

    /// Everything in the text format of OpenMetrics.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode(&mut text, &self.registry.read().unwrap_or_else(PoisonError::into_inner));
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

// === impl FunctionMetrics ===

impl FunctionMetrics {
    /// Counts an attempt or call that ended so: a word of [`Outcome`], or `interrupted`.
    pub fn finished(&self, outcome: &str) {
        if let Some(at) = OUTCOMES.iter().position(|word| *word == outcome) {
            self.finished[at].inc();
        }
    }

    /// Counts the time that a job was due before it started.
    pub fn observe_wait(&self, waited: Duration) {
        self.wait.observe(waited.as_secs_f64());
    }

    /// Counts the time that an attempt or call ran.
    pub fn observe_run(&self, ran: Duration) {
        self.run.observe(ran.as_secs_f64());
    }
}

// === impl Families ===

impl Families {
    fn of(&self, name: &FunctionName) -> FunctionMetrics {
        let function = ByFunction { function: name.to_string() };
        let finished = OUTCOMES
            .map(|outcome| self.finished.get_or_create_owned(&ByOutcome { function: name.to_string(), outcome }));
        FunctionMetrics {
            accepted: self.accepted.get_or_create_owned(&function),
            finished,
            wait: self.wait.get_or_create_owned(&function),
            run: self.run.get_or_create_owned(&function),
        }
    }
}
