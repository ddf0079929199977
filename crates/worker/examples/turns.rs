//! What a turn costs the worker itself: the queue and the runtime are stubs that do next to nothing.
//!
//! `cargo run --release -p kvern-worker --example turns [CONCURRENCY] [JOBS] [SLOTS]`. With as many slots as
//! concurrency every job goes through the lease loop; with more, a turn takes the next job of its function by itself.
//! With 0 jobs it measures a minute of idleness.

#![expect(clippy::print_stdout, reason = "it is a program that reports")]
#![expect(clippy::unwrap_used, reason = "a measurement that breaks should say where")]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use kvern_core::id::Sequence;
use kvern_core::{Door, Function, FunctionName, Job, JobId, Keep, Mode, Outcome, RetryPolicy, Scale, State, UnixMs};
use kvern_queue::{
    Ask, Clock, Cursor, Durability, Error, Filter, Hub, Lease, LeaseState, LeaseToken, Leased, NewJob, Page, Payload,
    Queue, Retention, Settlement, Stage, Stats, Stored, Submitted, Swept, Watch, Watcher, WorkerInfo,
};
use kvern_runtime::{
    Context, FunctionVersion, Input, Instance, Log, Output, PrepareError, Progress, Runtime, StartError, Version,
};
use kvern_worker::{Parts, Settings, Silent, Worker};
use tokio_util::sync::CancellationToken;

struct StubQueue {
    function: FunctionName,
    left: Mutex<VecDeque<u64>>,
    settled: AtomicUsize,
}

struct StubRuntime;

struct StubInstance;

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|text| text.parse::<u32>().ok());
    let (concurrency, jobs) = (numbers.next().unwrap_or(1), numbers.next().unwrap_or(1_000_000));
    let slots = numbers.next().unwrap_or(256) as usize;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(measure(concurrency, jobs as usize, slots));
}

async fn measure(concurrency: u32, jobs: usize, slots: usize) {
    let function = function(concurrency);
    let left = Mutex::new((1..=jobs as u64).collect());
    let queue = Arc::new(StubQueue { function: function.name.clone(), left, settled: AtomicUsize::new(0) });
    let worker = Arc::new(Worker::new(Parts {
        queue: Arc::clone(&queue) as _,
        runtime: Arc::new(StubRuntime),
        clock: Clock::system(),
        name: "measured".to_owned(),
        settings: Settings { slots, ..Settings::default() },
        observer: Arc::new(Silent),
    }));
    worker.set_functions(vec![function]).await;
    let shutdown = CancellationToken::new();
    let (began, cpu) = (Instant::now(), cpu_time());
    let running = tokio::spawn(worker.run(shutdown.clone()));
    while queue.settled.load(Ordering::Relaxed) < jobs {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    if jobs == 0 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let cpu = cpu_time();
        tokio::time::sleep(Duration::from_secs(60)).await;
        println!("idle for a minute: {:.2} ms of CPU", (cpu_time() - cpu).as_secs_f64() * 1e3);
        return;
    }
    let (wall, cpu) = (began.elapsed(), cpu_time() - cpu);
    shutdown.cancel();
    running.await.unwrap();
    let per_job = cpu.as_secs_f64() * 1e6 / jobs as f64;
    println!(
        "{jobs} jobs, concurrency {concurrency}, {slots} slots: {:.0}/s, {per_job:.2} µs of CPU each",
        jobs as f64 / wall.as_secs_f64()
    );
}

/// Processor time of all threads.
fn cpu_time() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let nanoseconds = threads.map(|thread| {
        let stat = std::fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
        stat.split(' ').next().unwrap().parse::<u64>().unwrap()
    });
    Duration::from_nanos(nanoseconds.sum())
}

fn function(concurrency: u32) -> Function {
    Function {
        name: "noop".parse().unwrap(),
        door: Door::Exec { argv: Vec::new() },
        home: "/".into(),
        route: None,
        mode: Mode::Async,
        timeout: Duration::from_secs(60),
        retry: RetryPolicy::default(),
        concurrency,
        scale: Scale { min: concurrency, max: concurrency, idle: Duration::from_secs(60) },
        memory: None,
        env: Vec::new(),
        max_input: 1 << 20,
        max_output: 1 << 20,
        max_queued: u64::MAX,
        keep: Keep { succeeded: Duration::from_secs(1), failed: Duration::from_secs(1), ..Keep::default() },
    }
}

// === impl StubQueue ===

impl StubQueue {
    fn leased(&self, n: u64) -> Leased {
        let id = JobId::new(Sequence::from_bits(n), n);
        let token = LeaseToken { job: id, attempt: 1, epoch: 1, serial: n };
        let job = Job {
            id,
            function: self.function.clone(),
            state: State::Running,
            created_at: UnixMs(1),
            due_at: None,
            ready_at: UnixMs(1),
            expires_at: None,
            priority: 4,
            tags: Vec::new(),
            content_type: None,
            input_bytes: 0,
            tally: Default::default(),
            started_at: None,
            finished_at: None,
            result: None,
            error: None,
            attempts: Vec::new(),
            cancel_requested: false,
        };
        Leased { lease: Lease::new(token), job, input: Payload::Inline(Bytes::new()) }
    }
}

#[async_trait]
impl Queue for StubQueue {
    async fn lease(&self, ask: Ask) -> Result<Vec<Leased>, Error> {
        let numbers: Vec<u64> = {
            let mut left = self.left.lock().unwrap();
            let count = ask.max.min(ask.wants[0].slots).min(left.len());
            left.drain(..count).collect()
        };
        if numbers.is_empty() {
            tokio::time::sleep(ask.wait).await;
        }
        Ok(numbers.into_iter().map(|n| self.leased(n)).collect())
    }

    async fn renew(&self, leases: &[LeaseToken]) -> Result<Vec<LeaseState>, Error> {
        Ok(vec![LeaseState::Held; leases.len()])
    }

    async fn settle(&self, _lease: Lease, _settlement: Settlement) -> Result<State, Error> {
        self.settled.fetch_add(1, Ordering::Relaxed);
        Ok(State::Succeeded)
    }

    fn durability(&self) -> Durability {
        Durability::Memory
    }

    async fn stage(&self) -> Result<Box<dyn Stage>, Error> {
        unreachable!("no large results")
    }

    async fn submit(&self, _job: NewJob) -> Result<Submitted, Error> {
        unreachable!("jobs are there from the begin")
    }

    async fn cancel(&self, id: JobId) -> Result<Job, Error> {
        Err(Error::UnknownJob(id))
    }

    async fn retry(&self, id: JobId) -> Result<Job, Error> {
        Err(Error::UnknownJob(id))
    }

    async fn forget(&self, id: JobId) -> Result<(), Error> {
        Err(Error::UnknownJob(id))
    }

    async fn pause(&self, _function: &FunctionName, _paused: bool) -> Result<(), Error> {
        Ok(())
    }

    async fn get(&self, id: JobId) -> Result<Job, Error> {
        Err(Error::UnknownJob(id))
    }

    async fn input(&self, id: JobId) -> Result<Stored, Error> {
        Err(Error::UnknownJob(id))
    }

    async fn result(&self, id: JobId) -> Result<Option<Stored>, Error> {
        Err(Error::UnknownJob(id))
    }

    async fn list(&self, _filter: &Filter, _cursor: Option<&Cursor>, _limit: usize) -> Result<Page, Error> {
        Err(Error::BadCursor)
    }

    fn stats(&self) -> Stats {
        Stats::default()
    }

    fn watch(&self, what: Watch) -> Watcher {
        Hub::default().watch(what)
    }

    async fn append_log(&self, _lease: LeaseToken, _bytes: Bytes) -> Result<(), Error> {
        Ok(())
    }

    async fn read_log(&self, id: JobId, _offset: u64, _limit: usize) -> Result<Bytes, Error> {
        Err(Error::UnknownJob(id))
    }

    async fn announce(&self, _worker: WorkerInfo) -> Result<(), Error> {
        Ok(())
    }

    async fn workers(&self) -> Result<Vec<WorkerInfo>, Error> {
        Ok(Vec::new())
    }

    async fn sweep(&self, _retention: &Retention, _limit: usize) -> Result<Swept, Error> {
        Ok(Swept::default())
    }

    async fn close(&self) {}

    async fn closed(&self) -> Error {
        std::future::pending().await
    }

    fn health(&self) -> Result<(), Error> {
        Ok(())
    }
}

// === impl StubRuntime ===

#[async_trait]
impl Runtime for StubRuntime {
    async fn prepare(&self, function: &Function, _progress: &dyn Progress) -> Result<FunctionVersion, PrepareError> {
        let version = Version("000000000000".into());
        Ok(FunctionVersion { function: Arc::new(function.clone()), version, code: "/".into(), packages: None })
    }

    async fn start(&self, _version: &FunctionVersion) -> Result<Box<dyn Instance>, StartError> {
        Ok(Box::new(StubInstance))
    }

    fn is_warm(&self, _version: &FunctionVersion) -> bool {
        true
    }
}

#[async_trait]
impl Instance for StubInstance {
    async fn run(&mut self, _: &Context, _: Input, output: &mut dyn Output, _: &Arc<dyn Log>) -> Outcome {
        output.head("text/plain", None);
        match output.write(Bytes::from_static(b"done")).await {
            Ok(()) => Outcome::Succeeded,
            Err(refused) => refused.outcome(),
        }
    }

    fn is_usable(&mut self) -> bool {
        true
    }

    async fn died(&mut self) {
        std::future::pending::<()>().await;
    }

    async fn stop(self: Box<Self>, _grace: Duration) {}

    fn pid(&self) -> Option<u32> {
        None
    }
}
