//! One setup for all tests: a worker in its world, and the few questions that tests ask.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use kvern_core::{Door, Function, Job, JobId, Keep, Mode, Outcome, RetryPolicy, Scale, State, UnixMs};
use kvern_queue::{Clock, MemoryQueue, NewJob, Queue};
use kvern_runtime::{Body, Call, CallError, Fake, FunctionVersion, Invoke, Reply, Runtime, Version};
use kvern_worker::{Drained, LoadError, Observer, Parts, Settings, Settled, Worker};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::simulation::faulty::FaultyQueue;

/// One step of the clock, and of every wait here.
pub(crate) const TICK: Duration = Duration::from_millis(5);
/// Longer than anything that a test waits for.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// A worker that runs, and what it runs on.
pub(crate) struct World {
    pub(crate) queue: Arc<MemoryQueue>,
    pub(crate) fake: Fake,
    pub(crate) worker: Arc<Worker>,
    pub(crate) ears: Arc<Ears>,
    pub(crate) shutdown: CancellationToken,
    running: JoinHandle<Drained>,
    hands: JoinHandle<()>,
}

/// Hears what the worker tells.
#[derive(Default)]
pub(crate) struct Ears {
    pub(crate) told: Mutex<Vec<String>>,
    /// How long each attempt had waited.
    pub(crate) waits: Mutex<Vec<Duration>>,
}

/// A function that allows this many attempts at once in as many instances, and fails for good after `attempts`.
pub(crate) fn function(name: &str, concurrency: u32) -> Function {
    Function {
        name: name.parse().expect("a name"),
        door: Door::Exec { argv: vec![name.to_owned()] },
        home: "/nonexistent".into(),
        route: None,
        mode: Mode::Async,
        timeout: Duration::from_secs(10),
        retry: RetryPolicy { attempts: 3, backoff: Duration::from_secs(1), jitter: false, ..RetryPolicy::default() },
        concurrency,
        scale: Scale { min: 0, max: concurrency, idle: Duration::from_secs(60) },
        memory: None,
        env: Vec::new(),
        max_input: 1 << 20,
        max_output: 1 << 20,
        max_queued: 10_000,
        keep: Keep { succeeded: Duration::from_secs(3600), failed: Duration::from_secs(7200), ..Keep::default() },
    }
}

/// The same function with other code.
pub(crate) fn changed(mut function: Function, to: &str) -> Function {
    function.env = vec![("CODE".to_owned(), to.to_owned())];
    function
}

pub(crate) fn settings() -> Settings {
    Settings { chance: Arc::new(|| 0.5), ..Settings::default() }
}

/// Lets time pass until the condition holds.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            sleep(TICK).await;
        }
    };
    timeout(LONG, wait).await.unwrap_or_else(|_| panic!("never happened: {what}"));
}

/// Lets this time pass.
pub(crate) async fn pass(time: Duration) {
    sleep(time).await;
}

/// Turns the hands of a manual clock with tokio's, in steps of this length.
pub(crate) fn turn_hands(clock: Clock, step: Duration) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut last = Instant::now();
        loop {
            sleep(step).await;
            let now = Instant::now();
            clock.advance(now - last);
            last = now;
        }
    })
}

// === impl World ===

impl World {
    pub(crate) async fn with(functions: Vec<Function>) -> Self {
        Self::new(functions, Fake::new(), settings()).await
    }

    pub(crate) async fn new(functions: Vec<Function>, fake: Fake, settings: Settings) -> Self {
        let runtime = Arc::new(fake.clone());
        Self::over(functions, fake, runtime, settings).await
    }

    pub(crate) async fn over(
        functions: Vec<Function>,
        fake: Fake,
        runtime: Arc<dyn Runtime>,
        settings: Settings,
    ) -> Self {
        Self::assemble(functions, fake, runtime, settings, |queue| queue).await
    }

    /// A worker whose queue takes this long to store a settlement.
    pub(crate) async fn with_slow_settlements(functions: Vec<Function>, settles_take: Duration) -> Self {
        let fake = Fake::new();
        let runtime = Arc::new(fake.clone());
        let slow = |queue| Arc::new(FaultyQueue::slow(queue, settles_take)) as Arc<dyn Queue>;
        Self::assemble(functions, fake, runtime, settings(), slow).await
    }

    /// A worker whose queue has no room for settlements while the switch is on.
    pub(crate) async fn with_disk(functions: Vec<Function>, is_full: &Arc<AtomicBool>) -> Self {
        let fake = Fake::new();
        let runtime = Arc::new(fake.clone());
        let full = |queue| Arc::new(FaultyQueue::full(queue, Arc::clone(is_full))) as Arc<dyn Queue>;
        Self::assemble(functions, fake, runtime, settings(), full).await
    }

    /// A worker whose queue cannot stage results while the switch is on.
    pub(crate) async fn with_files(functions: Vec<Function>, is_scarce: &Arc<AtomicBool>) -> Self {
        let fake = Fake::new();
        let runtime = Arc::new(fake.clone());
        let scarce = |queue| Arc::new(FaultyQueue::scarce(queue, Arc::clone(is_scarce))) as Arc<dyn Queue>;
        Self::assemble(functions, fake, runtime, settings(), scarce).await
    }

    /// A worker whose queue has room for outcomes only while the switch is on.
    pub(crate) async fn with_little_room(functions: Vec<Function>, is_low: &Arc<AtomicBool>) -> Self {
        let fake = Fake::new();
        let runtime = Arc::new(fake.clone());
        let low = |queue| Arc::new(FaultyQueue::low(queue, Arc::clone(is_low))) as Arc<dyn Queue>;
        Self::assemble(functions, fake, runtime, settings(), low).await
    }

    async fn assemble(
        functions: Vec<Function>,
        fake: Fake,
        runtime: Arc<dyn Runtime>,
        settings: Settings,
        around: impl FnOnce(Arc<MemoryQueue>) -> Arc<dyn Queue>,
    ) -> Self {
        let clock = Clock::manual(UnixMs(1_700_000_000_000));
        let queue = Arc::new(MemoryQueue::new(clock.clone()));
        let ears = Arc::new(Ears::default());
        let worker = Arc::new(Worker::new(Parts {
            queue: around(Arc::clone(&queue)),
            runtime,
            clock: clock.clone(),
            name: "tester".to_owned(),
            settings,
            observer: Arc::clone(&ears) as _,
        }));
        let hands = turn_hands(clock, TICK);
        let shutdown = CancellationToken::new();
        worker.set_functions(functions).await;
        let running = tokio::spawn(Arc::clone(&worker).run(shutdown.clone()));
        Self { queue, fake, worker, ears, shutdown, running, hands }
    }

    pub(crate) async fn submit(&self, function: &str, input: impl Into<Bytes>) -> JobId {
        self.submit_at(function, input, None).await
    }

    pub(crate) async fn submit_at(&self, function: &str, input: impl Into<Bytes>, not_before: Option<UnixMs>) -> JobId {
        let job = NewJob {
            function: function.parse().expect("a name"),
            input: input.into().into(),
            content_type: Some("text/plain".to_owned()),
            idempotency: None,
            not_before,
            expires_at: None,
            priority: 4,
            tags: Vec::new(),
            max_queued: 100_000,
        };
        self.queue.submit(job).await.expect("accepted").id
    }

    pub(crate) async fn job(&self, id: JobId) -> Job {
        self.queue.get(id).await.expect("the job is there")
    }

    /// The record once the job is in this state.
    pub(crate) async fn reaches(&self, id: JobId, state: State) -> Job {
        let wait = async {
            loop {
                let job = self.job(id).await;
                if job.state == state {
                    return job;
                }
                sleep(TICK).await;
            }
        };
        match timeout(LONG, wait).await {
            Ok(job) => job,
            Err(_) => panic!("{id} never became {state}: {:?}", self.job(id).await),
        }
    }

    /// The record once nothing more happens by itself.
    pub(crate) async fn ends(&self, id: JobId) -> Job {
        let wait = async {
            loop {
                let job = self.job(id).await;
                if job.state.is_final() {
                    return job;
                }
                sleep(TICK).await;
            }
        };
        match timeout(LONG, wait).await {
            Ok(job) => job,
            Err(_) => panic!("{id} never ended: {:?}", self.job(id).await),
        }
    }

    pub(crate) async fn log(&self, id: JobId) -> String {
        let bytes = self.queue.read_log(id, 0, 10 << 20).await.expect("the job is there");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(crate) async fn call(&self, function: &str, input: &'static str) -> Result<Reply, CallError> {
        self.worker.call(call(function, input)).await
    }

    /// Stops the worker, whatever it leaves.
    pub(crate) async fn stop_somehow(self) -> Drained {
        self.shutdown.cancel();
        let drained = timeout(LONG, self.running).await.expect("the worker ends").expect("it does not panic");
        self.hands.abort();
        drained
    }

    /// Stops the worker, and checks that nothing is left of it.
    pub(crate) async fn stop(self) -> Drained {
        self.shutdown.cancel();
        let drained = timeout(LONG, self.running).await.expect("the worker ends").expect("it does not panic");
        self.hands.abort();
        let Ok(worker) = Arc::try_unwrap(self.worker) else { panic!("somebody still holds the worker") };
        drop(worker);
        assert_eq!(Arc::strong_count(&self.ears), 1, "a task of the worker is left");
        assert!(drained.is_clean(), "{drained:?}");
        drained
    }
}

pub(crate) fn call(function: &str, input: &'static str) -> Call {
    Call {
        function: function.parse().expect("a name"),
        content_type: Some("text/plain".to_owned()),
        body: Body::Bytes(Bytes::from_static(input.as_bytes())),
        patience: Duration::from_secs(5),
    }
}

/// The bytes of a reply that came whole.
pub(crate) fn whole(reply: &Reply) -> &[u8] {
    match &reply.body {
        Body::Bytes(bytes) => bytes,
        body => panic!("not whole: {body:?}"),
    }
}

// === impl Ears ===

impl Ears {
    fn note(&self, line: String) {
        self.told.lock().expect("no panic").push(line);
    }

    /// How many lines begin so.
    pub(crate) fn count(&self, begin: &str) -> usize {
        self.told.lock().expect("no panic").iter().filter(|line| line.starts_with(begin)).count()
    }
}

impl Observer for Ears {
    fn job_settled(&self, settled: &Settled<'_>) {
        let end = settled.outcome.map_or("released", Outcome::as_str);
        let has_run = if settled.times.is_some() { "after a run" } else { "not run" };
        self.note(format!("{end} {} {has_run}", settled.function));
        if let Some(times) = settled.times {
            self.waits.lock().expect("no panic").push(times.wait);
        }
    }

    fn call_finished(&self, function: &kvern_core::FunctionName, outcome: &Outcome, _run: Duration) {
        self.note(format!("call {function} {}", outcome.as_str()));
    }

    fn instance_died(&self, version: &FunctionVersion, _pid: Option<u32>) {
        self.note(format!("died {}", version.function.name));
    }

    fn instance_started(&self, version: &FunctionVersion, _pid: Option<u32>, _cold_start: Duration) {
        self.note(format!("started {}", version.function.name));
    }

    fn version_switched(&self, version: &FunctionVersion, old: Option<&Version>) {
        self.note(format!("switched {} {}", version.function.name, if old.is_some() { "over" } else { "first" }));
    }

    fn version_failed(&self, function: &kvern_core::FunctionName, error: &LoadError, serving: Option<&Version>) {
        self.note(format!("failed {function}: {error}; {}", if serving.is_some() { "old serves" } else { "none" }));
    }
}
