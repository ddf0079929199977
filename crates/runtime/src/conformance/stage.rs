//! What the tests of the rules, and other tests of runtimes, are made of.

use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kvern_core::{Door, Function, FunctionName, Keep, Mode, Outcome, RetryPolicy, Scale, UnixMs};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::{Behaviour, Subject};
use crate::contract::{
    Context, FunctionVersion, Input, Instance, Log, Output, OutputRefused, PrepareError, Progress, Runtime, StartError,
};

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(20);

/// A function of a subject, prepared.
pub struct Stage {
    /// The runtime that it runs on.
    pub runtime: Arc<dyn Runtime>,
    /// The function.
    pub version: FunctionVersion,
}

/// What came of one attempt.
#[derive(Debug)]
pub struct Run {
    /// Its outcome.
    pub outcome: Outcome,
    /// Its output.
    pub output: Collected,
    /// Its log.
    pub log: Arc<Kept>,
    /// How long it took.
    pub took: Duration,
}

/// An output that keeps everything up to a limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// The content type that the function gave.
    pub content_type: Option<String>,
    /// The HTTP status that the function gave.
    pub status: Option<u16>,
    /// The bytes, those before a refusal included.
    pub bytes: Vec<u8>,
    /// The sizes of the writes.
    pub writes: Vec<usize>,
    /// More than this is refused.
    pub bytes_max: Option<u64>,
}

/// A log that keeps its first mebibyte and counts the rest.
#[derive(Debug, Default)]
pub struct Kept {
    bytes: Mutex<(Vec<u8>, u64)>,
    written: Notify,
}

/// Progress that nobody sees.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

// === impl Stage ===

impl Stage {
    /// A new function of the subject that behaves so.
    ///
    /// # Errors
    /// The subject's reason why there is none.
    pub async fn of(subject: &dyn Subject, behaviour: Behaviour) -> Result<Self, &'static str> {
        let function = subject.function(behaviour)?;
        Ok(Self::prepare(subject.runtime(), &function).await.expect("the function can be prepared"))
    }

    /// This function, prepared.
    ///
    /// # Errors
    /// The runtime's.
    pub async fn prepare(runtime: Arc<dyn Runtime>, function: &Function) -> Result<Self, PrepareError> {
        let version = runtime.prepare(function, &Silent).await?;
        Ok(Self { runtime, version })
    }

    /// The function.
    #[must_use]
    pub fn function(&self) -> &Function {
        &self.version.function
    }

    /// Starts an instance that must start.
    pub async fn start(&self) -> Box<dyn Instance> {
        match self.try_start().await {
            Ok(instance) => instance,
            Err(error) => panic!("{} does not start: {error}: {:?}", self.function().door.describe(), error.0.trace),
        }
    }

    /// Starts an instance.
    ///
    /// # Errors
    /// The runtime's.
    pub async fn try_start(&self) -> Result<Box<dyn Instance>, StartError> {
        self.runtime.start(&self.version).await
    }

    /// Starts an instance, runs one attempt with this text in it, and stops it.
    pub async fn run_once(&self, input: &str) -> Run {
        let mut instance = self.start().await;
        let run = self.run(instance.as_mut(), input).await;
        instance.stop(Duration::from_secs(1)).await;
        run
    }

    /// Runs one attempt with this text.
    pub async fn run(&self, instance: &mut dyn Instance, input: &str) -> Run {
        let input = Input::Bytes(Bytes::copy_from_slice(input.as_bytes()));
        self.run_with(instance, &context(self.function(), "text/plain"), input, Collected::default()).await
    }

    /// Runs one attempt.
    pub async fn run_with(
        &self,
        instance: &mut dyn Instance,
        context: &Context,
        input: Input,
        mut output: Collected,
    ) -> Run {
        let kept = Arc::new(Kept::default());
        let log: Arc<dyn Log> = Arc::<Kept>::clone(&kept);
        let began = Instant::now();
        let outcome = instance.run(context, input, &mut output, &log).await;
        Run { outcome, output, log: kept, took: began.elapsed() }
    }
}

// === impl Collected ===

impl Collected {
    /// One that refuses more than this.
    #[must_use]
    pub fn bounded(bytes_max: u64) -> Self {
        Self { bytes_max: Some(bytes_max), ..Self::default() }
    }

    /// What came, as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

#[async_trait]
impl Output for Collected {
    fn head(&mut self, content_type: &str, status: Option<u16>) {
        assert!(self.content_type.is_none() && self.writes.is_empty(), "the head comes once and first");
        self.content_type = Some(content_type.to_owned());
        self.status = status;
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), OutputRefused> {
        let len = self.bytes.len() as u64 + bytes.len() as u64;
        if let Some(most) = self.bytes_max.filter(|most| len > *most) {
            return Err(OutputRefused::TooLarge(most));
        }
        self.writes.push(bytes.len());
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }
}

// === impl Kept ===

impl Kept {
    /// What was kept, as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap_or_else(PoisonError::into_inner).0).into_owned()
    }

    /// How many bytes came.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// Whether none came.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until this text is in it.
    pub async fn says(&self, text: &str) {
        let said = async {
            loop {
                let written = self.written.notified();
                if self.text().contains(text) {
                    return;
                }
                written.await;
            }
        };
        if timeout(PATIENCE, said).await.is_err() {
            panic!("the log never said {text:?}: {:?}", self.text());
        }
    }
}

impl Log for Kept {
    fn write(&self, bytes: &[u8]) {
        let mut kept = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let room = (1usize << 20).saturating_sub(kept.0.len()).min(bytes.len());
        kept.0.extend_from_slice(&bytes[..room]);
        kept.1 += bytes.len() as u64;
        drop(kept);
        self.written.notify_waiters();
        self.written.notify_one();
    }
}

// === impl Silent ===

impl Progress for Silent {
    fn step(&self, _line: &str) {}
}

// === helpers ===

/// A function with generous limits.
#[must_use]
pub fn function(name: &str, home: &Path, door: Door) -> Function {
    let minute = Duration::from_secs(60);
    Function {
        name: name.parse::<FunctionName>().expect("a function's name"),
        door,
        home: home.to_path_buf(),
        route: None,
        mode: Mode::Async,
        timeout: minute,
        retry: RetryPolicy::default(),
        concurrency: 1,
        scale: Scale { min: 0, max: 1, idle: minute },
        memory: None,
        env: Vec::new(),
        max_input: 1 << 30,
        max_output: 1 << 30,
        max_queued: 1000,
        keep: Keep { succeeded: minute, failed: minute, ..Keep::default() },
    }
}

/// The context of a first attempt.
#[must_use]
pub fn context(function: &Function, content_type: &str) -> Context {
    Context {
        job: Some("01890a5d-ac96-774b-bcce-b302099a8057".parse().expect("a job's id")),
        function: function.name.clone(),
        attempt: 1,
        attempts_max: 5,
        content_type: Some(content_type.to_owned()),
        deadline: UnixMs(4_000_000_000_000),
        timeout: function.timeout,
    }
}

/// Waits until the condition holds.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let end = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(2)).await;
    }
}
