//! Runtimes around the fake one: a judge that watches what the worker does with it, and three that misbehave.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kvern_core::{Failure, FailureCode, Function, FunctionName, JobId, Outcome, State};
use kvern_queue::{MemoryQueue, Queue};
use kvern_runtime::{
    Context, Fake, FunctionVersion, Input, Instance, Log, Output, PrepareError, Progress, Runtime, StartError, Version,
};
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use super::dice::Dice;

/// How the words begin that come when their attempt has ended; its job follows.
pub(crate) const LATE: &str = "late words of ";

/// Runs the fake and writes down every broken promise.
#[derive(Clone)]
pub(crate) struct Judge {
    fake: Fake,
    queue: Arc<MemoryQueue>,
    dice: Dice,
    book: Arc<Mutex<Book>>,
    /// Words on their way whose attempts have ended.
    late: TaskTracker,
}

#[derive(Default)]
struct Book {
    running_jobs: HashSet<JobId>,
    running: HashMap<FunctionName, u32>,
    alive: HashMap<(FunctionName, Version), u32>,
    /// Jobs whose lease was lost: a second attempt may run beside the first until the worker hears of it.
    excused: HashSet<JobId>,
    broken: Vec<String>,
    kills: HashMap<FunctionName, Arc<Kills>>,
}

/// How often the instances of a function were killed: those born under an earlier number are dead. (Not a watch: which
/// of its watchers hears first is left to chance.)
#[derive(Default)]
struct Kills {
    count: AtomicU32,
    news: Notify,
}

struct Watched {
    judge: Judge,
    inner: Option<Box<dyn Instance>>,
    version: FunctionVersion,
    kills: Arc<Kills>,
    born: u32,
}

/// Counts a start or an instance while it is there.
struct Alive(Judge, (FunctionName, Version));

/// Counts an attempt while it runs.
struct Running<'a>(&'a Judge, FunctionName, Option<JobId>);

// === impl Judge ===

impl Judge {
    pub(crate) fn new(fake: Fake, queue: Arc<MemoryQueue>, dice: Dice) -> Self {
        Self { fake, queue, dice, book: Arc::default(), late: TaskTracker::new() }
    }

    /// The lease of this job is lost, and not through the worker's fault.
    pub(crate) fn excuse(&self, job: JobId) {
        self.book().excused.insert(job);
    }

    pub(crate) fn is_excused(&self, job: JobId) -> bool {
        self.book().excused.contains(&job)
    }

    /// Kills every instance of the function. (The fake can do so too, but leaves it to chance what an attempt that ends in
    /// the same moment comes to.)
    pub(crate) fn kill_instances(&self, function: &FunctionName) {
        let kills = self.kills(function);
        kills.count.fetch_add(1, Ordering::Relaxed);
        kills.news.notify_waiters();
    }

    fn kills(&self, function: &FunctionName) -> Arc<Kills> {
        Arc::clone(self.book().kills.entry(function.clone()).or_default())
    }

    /// Returns once all late words have come.
    pub(crate) async fn has_fallen_silent(&self) {
        self.late.close();
        self.late.wait().await;
    }

    /// The promises that were broken.
    pub(crate) fn broken(&self) -> Vec<String> {
        let book = self.book();
        let mut broken = book.broken.clone();
        if book.running.values().any(|count| *count > 0) {
            broken.push(format!("attempts are left: {:?}", book.running));
        }
        if book.alive.values().any(|count| *count > 0) {
            broken.push(format!("instances are left: {:?}", book.alive));
        }
        broken
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("no panic under the lock")
    }

    fn begin(&self, version: &FunctionVersion, job: Option<JobId>) -> Running<'_> {
        let function = &version.function;
        let mut book = self.book();
        let running = book.running.entry(function.name.clone()).or_default();
        *running += 1;
        let running = *running;
        if running > function.concurrency {
            book.broken.push(format!("{running} attempts of {} at once", function.name));
        }
        if let Some(job) = job
            && !book.running_jobs.insert(job)
            && !book.excused.contains(&job)
        {
            book.broken.push(format!("two attempts of {job} at once"));
        }
        Running(self, function.name.clone(), job)
    }

    async fn check_record(&self, context: &Context) {
        let Some(id) = context.job else { return };
        let Ok(job) = self.queue.get(id).await else { return };
        let fits = job.state == State::Running && job.tally.attempts + 1 == context.attempt;
        if !fits && !self.is_excused(id) {
            let line =
                format!("attempt {} of {id} begins while it is {} with {:?}", context.attempt, job.state, job.tally);
            self.book().broken.push(line);
        }
    }
}

#[async_trait]
impl Runtime for Judge {
    async fn prepare(&self, function: &Function, progress: &dyn Progress) -> Result<FunctionVersion, PrepareError> {
        sleep(self.dice.up_to(Duration::from_millis(50))).await;
        self.fake.prepare(function, progress).await
    }

    async fn start(&self, version: &FunctionVersion) -> Result<Box<dyn Instance>, StartError> {
        let key = (version.function.name.clone(), version.version.clone());
        {
            let mut book = self.book();
            let alive = book.alive.entry(key.clone()).or_default();
            *alive += 1;
            let (alive, max) = (*alive, version.function.scale.max);
            if alive > max && self.fake.is_warm(version) {
                book.broken.push(format!("{alive} instances of {key:?}, where {max} are allowed"));
            }
        }
        let alive = Alive(self.clone(), key);
        let inner = self.fake.start(version).await?;
        std::mem::forget(alive);
        let kills = self.kills(&version.function.name);
        let born = kills.count.load(Ordering::Relaxed);
        Ok(Box::new(Watched { judge: self.clone(), inner: Some(inner), version: version.clone(), kills, born }))
    }

    fn is_warm(&self, version: &FunctionVersion) -> bool {
        self.fake.is_warm(version)
    }
}

// === impl Kills ===

impl Kills {
    async fn after(&self, born: u32) {
        loop {
            let news = self.news.notified();
            if self.count.load(Ordering::Relaxed) > born {
                return;
            }
            news.await;
        }
    }
}

// === impl Watched ===

#[async_trait]
impl Instance for Watched {
    async fn run(&mut self, context: &Context, input: Input, output: &mut dyn Output, log: &Arc<dyn Log>) -> Outcome {
        let judge = self.judge.clone();
        let _running = judge.begin(&self.version, context.job);
        judge.check_record(context).await;
        let Self { inner, kills, born, .. } = self;
        let inner = inner.as_mut().expect("it is not stopped yet");
        let outcome = tokio::select! {
            biased;
            outcome = inner.run(context, input, output, log) => outcome,
            () = kills.after(*born) => Outcome::Crashed(Failure::new(FailureCode::Crash, "killed")),
        };
        if judge.dice.percent(10) {
            // What the process printed comes when its job is over, and others run.
            let (log, after) = (Arc::clone(log), judge.dice.up_to(Duration::from_secs(3)));
            let words = context.job.map_or_else(|| format!("{LATE}a call\n"), |job| format!("{LATE}{job}\n"));
            judge.late.spawn(async move {
                sleep(after).await;
                log.write(words.as_bytes());
            });
        }
        outcome
    }

    fn is_usable(&mut self) -> bool {
        let lives = self.kills.count.load(Ordering::Relaxed) == self.born;
        lives && self.inner.as_mut().expect("it is not stopped yet").is_usable()
    }

    async fn died(&mut self) {
        self.kills.after(self.born).await;
    }

    async fn stop(mut self: Box<Self>, grace: Duration) {
        sleep(self.judge.dice.up_to(grace)).await;
        if let Some(inner) = self.inner.take() {
            inner.stop(grace).await;
        }
    }

    fn pid(&self) -> Option<u32> {
        None
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        drop(Alive(self.judge.clone(), (self.version.function.name.clone(), self.version.version.clone())));
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        if let Some(alive) = self.0.book().alive.get_mut(&self.1) {
            *alive -= 1;
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut book = self.0.book();
        if let Some(job) = self.2 {
            book.running_jobs.remove(&job);
        }
        if let Some(running) = book.running.get_mut(&self.1) {
            *running -= 1;
        }
    }
}

// === misbehaving runtimes ===

/// Never ends an attempt at its timeout.
pub(crate) struct Deaf(pub(crate) Fake);

struct DeafInstance(Box<dyn Instance>);

/// Panics in the first attempts.
pub(crate) struct Panicking {
    fake: Fake,
    left: Arc<AtomicU32>,
}

struct PanickingInstance(Box<dyn Instance>, Arc<AtomicU32>);

/// Writes its output in pieces, with a pause after each.
pub(crate) struct Piecewise {
    pub(crate) fake: Fake,
    pub(crate) pieces: usize,
    pub(crate) pause: Duration,
    pub(crate) fails: bool,
}

struct PiecewiseInstance(Box<dyn Instance>, usize, Duration, bool);

impl Panicking {
    pub(crate) fn new(fake: Fake, times: u32) -> Self {
        Self { fake, left: Arc::new(AtomicU32::new(times)) }
    }
}

macro_rules! runtime_around {
    ($name:ty, $self:ident, $fake:expr, $inner:ident => $instance:expr) => {
        #[async_trait]
        impl Runtime for $name {
            async fn prepare(&$self, function: &Function, progress: &dyn Progress) -> Result<FunctionVersion, PrepareError> {
                $fake.prepare(function, progress).await
            }

            async fn start(&$self, version: &FunctionVersion) -> Result<Box<dyn Instance>, StartError> {
                let $inner = $fake.start(version).await?;
                Ok(Box::new($instance))
            }

            fn is_warm(&$self, version: &FunctionVersion) -> bool {
                $fake.is_warm(version)
            }
        }
    };
}

runtime_around!(Deaf, self, self.0, inner => DeafInstance(inner));
runtime_around!(Panicking, self, self.fake, inner => PanickingInstance(inner, Arc::clone(&self.left)));
runtime_around!(Piecewise, self, self.fake, inner => PiecewiseInstance(inner, self.pieces, self.pause, self.fails));

macro_rules! instance_around {
    ($name:ty, $self:ident, $context:ident, $input:ident, $output:ident, $log:ident => $run:block) => {
        #[async_trait]
        impl Instance for $name {
            async fn run(
                &mut $self,
                $context: &Context,
                $input: Input,
                $output: &mut dyn Output,
                $log: &Arc<dyn Log>,
            ) -> Outcome $run

            fn is_usable(&mut self) -> bool {
                self.0.is_usable()
            }

            async fn died(&mut self) {
                self.0.died().await;
            }

            async fn stop(self: Box<Self>, grace: Duration) {
                self.0.stop(grace).await;
            }

            fn pid(&self) -> Option<u32> {
                None
            }
        }
    };
}

instance_around!(DeafInstance, self, context, input, output, log => {
    let context = Context { timeout: Duration::from_secs(100_000), ..context.clone() };
    self.0.run(&context, input, output, log).await
});

instance_around!(PanickingInstance, self, context, input, output, log => {
    let left = self.1.load(Ordering::Relaxed);
    self.1.store(left.saturating_sub(1), Ordering::Relaxed);
    assert_eq!(left, 0, "on purpose");
    self.0.run(context, input, output, log).await
});

instance_around!(PiecewiseInstance, self, _context, _input, output, _log => {
    for piece in 0..self.1 {
        if let Err(refused) = output.write(Bytes::from(format!("piece {piece};"))).await {
            return refused.outcome();
        }
        sleep(self.2).await;
    }
    if self.3 { Outcome::Failed(Failure::new(FailureCode::Exception, "no more")) } else { Outcome::Succeeded }
});
