//! A runtime without processes, for the worker's simulation: what happens is scripted, time is tokio's (so a paused
//! clock is honoured), and everything is counted.
//!
//! ```
//! # use kvern_runtime::fake::{Act, Fake};
//! # use std::time::Duration;
//! let fake = Fake::new();
//! fake.always("resize", Act::succeed("done").after(Duration::from_millis(50)));
//! fake.on("flaky", |context, _input| match context.attempt {
//!     1 => Act::crash("killed by signal 11 (SIGSEGV)"),
//!     _ => Act::echo(),
//! });
//! fake.refuse_starts("broken", u32::MAX, "SyntaxError");
//! assert_eq!(fake.counts("resize").starts, 0);
//! ```
//!
//! A function that nothing was said of echoes its input.

mod act;

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use kvern_core::{Failure, FailureCode, Function, Outcome};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

pub use act::Act;

use crate::contract::{
    Context, FunctionVersion, Input, Instance, Log, Output, PrepareError, Progress, Runtime, StartError, Version,
};

/// A scripted runtime. Clones share everything.
#[derive(Debug, Clone, Default)]
pub struct Fake {
    functions: Arc<Mutex<HashMap<String, Scripted>>>,
}

/// What happened to a function so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Calls of `prepare`.
    pub prepares: u32,
    /// Instances that were started.
    pub starts: u32,
    /// Starts that were refused.
    pub refused: u32,
    /// Instances that were stopped in due form.
    pub stops: u32,
    /// Instances that are there now.
    pub alive: u32,
    /// Attempts that began.
    pub attempts: u32,
    /// Attempts whose future was dropped before its end.
    pub dropped: u32,
    /// Attempts that run now.
    pub running: u32,
    /// Most attempts that ran at once.
    pub running_max: u32,
}

type Script = Arc<dyn Fn(&Context, &Input) -> Act + Send + Sync>;

/// One function's script and counts.
struct Scripted {
    script: Script,
    is_warm: bool,
    start_takes: Duration,
    starts_to_refuse: u32,
    refusal: Failure,
    unprepared: Option<PrepareError>,
    counts: Counts,
    /// Instances that were started before this number changed are dead.
    epoch: watch::Sender<u64>,
}

/// A scripted instance.
#[derive(Debug)]
struct FakeInstance {
    fake: Fake,
    version: FunctionVersion,
    epoch: watch::Receiver<u64>,
    born: u64,
    is_usable: bool,
}

/// Counts one attempt, also when its future is dropped.
struct Running<'a> {
    fake: &'a Fake,
    name: &'a str,
    is_over: bool,
}

// === impl Fake ===

impl Fake {
    /// A runtime whose functions all echo.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on, every attempt of the function does this.
    pub fn always(&self, function: &str, act: Act) {
        self.on(function, move |_, _| act.clone());
    }

    /// From now on, what an attempt of the function does is decided by this.
    pub fn on(&self, function: &str, script: impl Fn(&Context, &Input) -> Act + Send + Sync + 'static) {
        self.with(function, |scripted| scripted.script = Arc::new(script));
    }

    /// Refuses the next `count` starts.
    pub fn refuse_starts(&self, function: &str, count: u32, message: &str) {
        self.refuse_starts_with(function, count, Failure::new(FailureCode::CannotStart, message));
    }

    /// Has no room for the next `count` starts.
    pub fn leave_no_room(&self, function: &str, count: u32) {
        self.refuse_starts_with(function, count, Failure::new(FailureCode::NoRoom, "too many open files"));
    }

    fn refuse_starts_with(&self, function: &str, count: u32, refusal: Failure) {
        self.with(function, |scripted| (scripted.starts_to_refuse, scripted.refusal) = (count, refusal));
    }

    /// Has no room to prepare the function.
    pub fn lack_room_to_prepare(&self, function: &str) {
        let refusal = PrepareError { message: "a full disk".to_owned(), detail: None, is_shortage: true };
        self.with(function, |scripted| scripted.unprepared = Some(refusal));
    }

    /// Refuses to prepare the function, or no longer.
    pub fn refuse_prepare(&self, function: &str, message: Option<&str>) {
        let refusal = |message: &str| PrepareError { message: message.to_owned(), detail: None, is_shortage: false };
        self.with(function, |scripted| scripted.unprepared = message.map(refusal));
    }

    /// A start takes this long.
    pub fn starts_take(&self, function: &str, time: Duration) {
        self.with(function, |scripted| scripted.start_takes = time);
    }

    /// Whether instances are kept between attempts (they are, unless this says otherwise).
    pub fn set_warm(&self, function: &str, is_warm: bool) {
        self.with(function, |scripted| scripted.is_warm = is_warm);
    }

    /// Kills every instance of the function: idle ones die, attempts crash.
    pub fn kill_instances(&self, function: &str) {
        self.with(function, |scripted| scripted.epoch.send_modify(|epoch| *epoch += 1));
    }

    /// What happened to the function so far.
    #[must_use]
    pub fn counts(&self, function: &str) -> Counts {
        self.with(function, |scripted| scripted.counts)
    }

    fn with<T>(&self, function: &str, change: impl FnOnce(&mut Scripted) -> T) -> T {
        // A test that panicked under the lock has failed already; the others may go on.
        let mut functions: MutexGuard<'_, _> = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        change(functions.entry(function.to_owned()).or_default())
    }
}

#[async_trait]
impl Runtime for Fake {
    async fn prepare(&self, function: &Function, _progress: &dyn Progress) -> Result<FunctionVersion, PrepareError> {
        let unprepared = self.with(function.name.as_str(), |scripted| {
            scripted.counts.prepares += 1;
            scripted.unprepared.clone()
        });
        match unprepared {
            Some(refusal) => Err(refusal),
            None => Ok(version(function)),
        }
    }

    async fn start(&self, version: &FunctionVersion) -> Result<Box<dyn Instance>, StartError> {
        let name = version.function.name.as_str();
        sleep(self.with(name, |scripted| scripted.start_takes)).await;
        let epoch = self.with(name, |scripted| {
            if scripted.starts_to_refuse > 0 {
                scripted.starts_to_refuse -= 1;
                scripted.counts.refused += 1;
                return Err(StartError(scripted.refusal.clone()));
            }
            scripted.counts.starts += 1;
            scripted.counts.alive += 1;
            Ok(scripted.epoch.subscribe())
        })?;
        let born = *epoch.borrow();
        Ok(Box::new(FakeInstance { fake: self.clone(), version: version.clone(), epoch, born, is_usable: true }))
    }

    fn is_warm(&self, version: &FunctionVersion) -> bool {
        self.with(version.function.name.as_str(), |scripted| scripted.is_warm)
    }
}

// === impl Scripted ===

impl Default for Scripted {
    fn default() -> Self {
        Self {
            script: Arc::new(|_, _| Act::echo()),
            is_warm: true,
            start_takes: Duration::ZERO,
            starts_to_refuse: 0,
            refusal: Failure::new(FailureCode::CannotStart, ""),
            unprepared: None,
            counts: Counts::default(),
            epoch: watch::Sender::new(0),
        }
    }
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scripted").field("counts", &self.counts).finish_non_exhaustive()
    }
}

// === impl FakeInstance ===

#[async_trait]
impl Instance for FakeInstance {
    async fn run(&mut self, context: &Context, input: Input, output: &mut dyn Output, log: &Arc<dyn Log>) -> Outcome {
        let name = self.version.function.name.as_str();
        // Until it has ended well: a dropped attempt leaves an instance that is not used again.
        let was_usable = std::mem::replace(&mut self.is_usable, false);
        if !was_usable || *self.epoch.borrow() != self.born {
            return killed();
        }
        let script = self.fake.with(name, |scripted| Arc::clone(&scripted.script));
        let act = script(context, &input);
        let mut running = Running::begin(&self.fake, name);
        act.print(log.as_ref());
        let acting = timeout(context.timeout, act.perform(context, input, output));
        let outcome = tokio::select! {
            outcome = acting => outcome.unwrap_or_else(|_| Outcome::timed_out(context.timeout)),
            _ = self.epoch.changed() => killed(),
        };
        running.is_over = true;
        self.is_usable = !matches!(outcome, Outcome::Crashed(_) | Outcome::TimedOut(_));
        outcome
    }

    fn is_usable(&mut self) -> bool {
        self.is_usable && *self.epoch.borrow() == self.born
    }

    async fn died(&mut self) {
        if self.is_usable() {
            // An error means that the fake itself has gone, and nobody waits any more.
            _ = self.epoch.changed().await;
        }
    }

    async fn stop(self: Box<Self>, _grace: Duration) {
        self.fake.with(self.version.function.name.as_str(), |scripted| scripted.counts.stops += 1);
    }

    fn pid(&self) -> Option<u32> {
        None
    }
}

impl Drop for FakeInstance {
    fn drop(&mut self) {
        self.fake.with(self.version.function.name.as_str(), |scripted| scripted.counts.alive -= 1);
    }
}

// === impl Running ===

impl<'a> Running<'a> {
    fn begin(fake: &'a Fake, name: &'a str) -> Self {
        fake.with(name, |scripted| {
            let counts = &mut scripted.counts;
            counts.attempts += 1;
            counts.running += 1;
            counts.running_max = counts.running_max.max(counts.running);
        });
        Self { fake, name, is_over: false }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.fake.with(self.name, |scripted| {
            scripted.counts.running -= 1;
            scripted.counts.dropped += u32::from(!self.is_over);
        });
    }
}

// === helpers ===

fn killed() -> Outcome {
    Outcome::Crashed(Failure::new(
        FailureCode::Crash,
        "the process was killed by signal 9 (SIGKILL) during the attempt",
    ))
}

/// The same function gives the same version.
fn version(function: &Function) -> FunctionVersion {
    let mut hasher = DefaultHasher::new();
    format!("{function:?}").hash(&mut hasher);
    let version = format!("{:012x}", hasher.finish() >> 16);
    FunctionVersion {
        function: Arc::new(function.clone()),
        version: Version(version.into()),
        code: PathBuf::from("/nonexistent"),
        packages: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{self, Collected, Stage};

    async fn stage(fake: &Fake, name: &str) -> Stage {
        let door = kvern_core::Door::Exec { argv: vec!["fake".to_owned()] };
        let function = conformance::function(name, "/".as_ref(), door);
        Stage::prepare(Arc::new(fake.clone()), &function).await.expect("it is not refused")
    }

    #[tokio::test(start_paused = true)]
    async fn time_is_the_clock_of_tokio() {
        let fake = Fake::new();
        let hour = Duration::from_secs(3600);
        fake.always("slow", Act::succeed("done").after(hour));
        fake.always("hangs", Act::hang());
        fake.starts_take("slow", hour);
        let began = tokio::time::Instant::now();
        let stage = stage(&fake, "slow").await;
        let mut instance = stage.start().await;
        assert_eq!(began.elapsed(), hour);
        let mut context = conformance::context(stage.function(), "text/plain");
        context.timeout = hour * 2;
        let input = Input::Bytes(Default::default());
        let run = stage.run_with(instance.as_mut(), &context, input.clone(), Collected::default()).await;
        assert_eq!((run.outcome, run.took, run.output.text().as_str()), (Outcome::Succeeded, hour, "done"));
        context.timeout = hour / 2;
        let run = stage.run_with(instance.as_mut(), &context, input, Collected::default()).await;
        assert_eq!((run.outcome, run.took), (Outcome::timed_out(hour / 2), hour / 2));
        assert!(!instance.is_usable());
    }

    #[tokio::test(start_paused = true)]
    async fn a_kill_reaches_idle_and_running_instances() {
        let fake = Fake::new();
        fake.always("f", Act::hang());
        let stage = stage(&fake, "f").await;
        let (mut idle, mut busy) = (stage.start().await, stage.start().await);
        let killing = async {
            sleep(Duration::from_secs(1)).await;
            assert_eq!((fake.counts("f").alive, fake.counts("f").running), (2, 1));
            fake.kill_instances("f");
        };
        let (run, (), ()) = tokio::join!(stage.run(busy.as_mut(), ""), killing, idle.died());
        assert!(matches!(run.outcome, Outcome::Crashed(_)));
        assert!(!idle.is_usable() && !busy.is_usable());
        idle.stop(Duration::ZERO).await;
        drop(busy);
        let counts = fake.counts("f");
        assert_eq!((counts.starts, counts.stops, counts.alive, counts.running, counts.running_max), (2, 1, 0, 0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_run_is_counted() {
        let fake = Fake::new();
        fake.always("f", Act::hang());
        let stage = stage(&fake, "f").await;
        let mut instance = stage.start().await;
        assert!(timeout(Duration::from_secs(1), stage.run(instance.as_mut(), "")).await.is_err());
        assert!(!instance.is_usable());
        assert_eq!((fake.counts("f").dropped, fake.counts("f").running), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_is_counted() {
        let fake = Fake::new();
        fake.refuse_starts("f", 1, "SyntaxError");
        let stage = stage(&fake, "f").await;
        assert_eq!(stage.try_start().await.err().map(|error| error.to_string()).as_deref(), Some("SyntaxError"));
        stage.start().await.stop(Duration::ZERO).await;
        fake.refuse_prepare("f", Some("no such file"));
        let refused = Stage::prepare(Arc::new(fake.clone()), stage.function()).await.err();
        assert_eq!(refused.map(|error| error.message).as_deref(), Some("no such file"));
        let counts = fake.counts("f");
        assert_eq!((counts.prepares, counts.starts, counts.refused, counts.stops), (2, 1, 1, 1));
    }
}
