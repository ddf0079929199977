//! A warm instance: a process with our shim in it.
//!
//! A job ends at its result frame, the instance at `waitpid` of its process. The process belongs to the instance and not
//! to the future of `run`: where that future is dropped, `stop` still has whom to ask, to wait for and to kill.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kvern_core::limits::INLINE_BYTES_MAX;
use kvern_core::{Door, Failure, FailureCode, Function, Language, Outcome};
use tokio::time::timeout;

use super::attempt::{Answer, END_PATIENCE};
use super::channel::{Broken, Channel};
use super::frame::{self, Failing, Frame, Hello, PROTOCOL};
use super::logs::{Pipe, Tail};
use super::{Shared, cannot_start, environment, utf8, words};
use crate::contract::{Context, FunctionVersion, Input, Instance, Log, Output, StartError};
use crate::jail::jailed::{End, Jailed, Launch, no_room};
use crate::jail::task::{MemoryLimit, Task};
use crate::prepare;

/// What Node reserves beside its heap: stacks of its threads, code, tables. Measured with Node 20: 150 MiB.
const NODE_RESERVES: u64 = 256 << 20;

/// A warm instance.
#[derive(Debug)]
pub(super) struct Handler {
    /// None once an attempt has left it unusable.
    live: Option<Live>,
    /// While an attempt runs, and for ever where `run` was dropped.
    is_in_attempt: bool,
}

/// A process that is there.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) jailed: Jailed,
    pub(super) channel: Channel,
    pub(super) logs: Pipe,
    pub(super) tail: Tail,
    /// What was printed at import: it goes to the log of the first attempt.
    pub(super) prelude: Vec<u8>,
    pub(super) function: Arc<Function>,
    pub(super) scratch: PathBuf,
    pub(super) grace: Duration,
    pub(super) number: u32,
    pub(super) is_spoilt: bool,
}

/// The longest prelude that is kept.
const PRELUDE_BYTES_MAX: usize = 16 << 10;

// === impl Handler ===

impl Handler {
    /// Starts the process and loads the function.
    pub(super) async fn start(
        shared: Arc<Shared>,
        version: &FunctionVersion,
        language: Language,
    ) -> Result<Self, StartError> {
        let within = shared.settings.start_timeout;
        let mut live = Live::launch(&shared, version, language).await?;
        let ready = live.load(version);
        match timeout(within, ready).await {
            Ok(Ok(())) => Ok(Self { live: Some(live), is_in_attempt: false }),
            Ok(Err(error)) => {
                live.jailed.kill().await;
                Err(error)
            }
            Err(_) => {
                live.jailed.kill().await;
                let message =
                    format!("{} was not ready within {within:?}: it never returned from its import", live.file());
                Err(cannot_start(words::with_last_line(message, &live.tail)))
            }
        }
    }
}

#[async_trait]
impl Instance for Handler {
    async fn run(&mut self, context: &Context, input: Input, output: &mut dyn Output, log: &Arc<dyn Log>) -> Outcome {
        let Some(live) = self.live.as_mut().filter(|_| !self.is_in_attempt) else {
            return Outcome::Crashed(Failure::new(FailureCode::Crash, "the process ended before the attempt began"));
        };
        self.is_in_attempt = true;
        let outcome = live.attempt(context, &input, output, log.as_ref()).await;
        if live.is_spoilt {
            live.jailed.kill().await;
            self.live = None;
        }
        self.is_in_attempt = false;
        outcome
    }

    fn is_usable(&mut self) -> bool {
        let is_silent = |live: &Live| live.channel.is_silent_beside(&live.jailed.leash());
        !self.is_in_attempt && self.live.as_ref().is_some_and(is_silent)
    }

    async fn died(&mut self) {
        if let Some(live) = &mut self.live {
            let Live { jailed, logs, .. } = live;
            // What an idle instance prints belongs to no attempt; it is read so that it does not block.
            tokio::select! {
                _ = jailed.ended() => {}
                () = logs.pump(|_| ()) => {}
            }
        }
    }

    async fn stop(mut self: Box<Self>, grace: Duration) {
        if let Some(live) = &mut self.live {
            let Live { jailed, logs, .. } = live;
            jailed.stop_reading(grace, logs.pump(|_| ())).await;
        }
    }

    fn pid(&self) -> Option<u32> {
        self.live.as_ref().map(|live| live.jailed.pid())
    }
}

// === impl Live ===

impl Live {
    async fn launch(shared: &Shared, version: &FunctionVersion, language: Language) -> Result<Self, StartError> {
        let function = &version.function;
        let settings = &shared.settings;
        let interpreter = prepare::interpreter(&settings.prepare, language, &function.home)
            .await
            .map_err(|error| cannot_start(error.to_string()))?;
        let mut argv = vec![interpreter.program.into_os_string()];
        match language {
            // The copy is read-only, and text is UTF-8 whatever the server's locale.
            Language::Python => argv.extend(["-B", "-X", "utf8"].map(Into::into)),
            Language::Node => argv.extend(function.memory.map(|memory| {
                let mebibytes = (memory.0.get() >> 20).max(1);
                format!("--max-old-space-size={mebibytes}").into()
            })),
        }
        argv.push(shared.shim(language).into_os_string());
        let (channel, private) = Channel::pair().map_err(no_room)?;
        let (logs, stdout) = Pipe::pair().map_err(no_room)?;
        let scratch = shared.next_scratch();
        let mut jailed = Jailed::spawn(Launch {
            program: &settings.prepare.jail,
            task: Task {
                is_handler: true,
                memory: memory_limit(function, language, settings.use_cgroups),
                processes: settings.processes(),
                records: shared.records(),
                scratch: scratch.clone(),
                argv,
            },
            home: &function.home,
            environment: environment::of_function(settings, function, &scratch),
            private,
            // One pipe for both keeps their order.
            stderr: stdout.try_clone().map_err(no_room)?,
            stdout,
        })?;
        jailed.started().await?;
        Ok(Self {
            jailed,
            channel,
            logs,
            tail: Tail::default(),
            prelude: Vec::new(),
            function: Arc::clone(function),
            scratch,
            grace: settings.grace,
            number: 0,
            is_spoilt: false,
        })
    }

    /// Has the shim import the function's file.
    async fn load(&mut self, version: &FunctionVersion) -> Result<(), StartError> {
        write_hello(version, &self.scratch, self.channel.outbox())?;
        let Self { jailed, channel, logs, tail, prelude, .. } = self;
        let mut take = |bytes: &[u8]| {
            tail.push(bytes);
            prelude.extend_from_slice(&bytes[..bytes.len().min(PRELUDE_BYTES_MAX - prelude.len())]);
        };
        let asked = async {
            channel.send(&[]).await?;
            channel.receive().await
        };
        let answer = tokio::select! {
            biased;
            answer = asked => answer.map_or_else(Answer::Broken, Answer::Frame),
            () = logs.pump(&mut take) => Answer::Late,
            end = jailed.ended() => Answer::Ended(end),
        };
        logs.drain(&mut take);
        match answer {
            Answer::Frame(Frame::Ready(ready)) if ready.protocol == PROTOCOL => Ok(()),
            Answer::Frame(Frame::CannotStart(failing)) => Err(self.refused(failing)),
            Answer::Ended(end) => Err(self.died_at_import(Some(end))),
            Answer::Broken(Broken::Closed) => {
                let end = timeout(END_PATIENCE, self.jailed.ended()).await.ok();
                self.logs.drain(|bytes| self.tail.push(bytes));
                Err(self.died_at_import(end))
            }
            Answer::Broken(Broken::Garbage(_)) | Answer::Frame(_) | Answer::Late => {
                Err(cannot_start("the process wrote to the descriptor of Kvern's shim at import"))
            }
        }
    }

    fn refused(&self, failing: Failing) -> StartError {
        let mut failure = failing.failure();
        failure.code = FailureCode::CannotStart;
        StartError(failure)
    }

    fn died_at_import(&self, end: Option<End>) -> StartError {
        let mut failure = words::death(end, &self.function, &self.jailed, &self.tail, " at import");
        if failure.code == FailureCode::Crash {
            failure.code = FailureCode::CannotStart;
            failure.message = failure.message.replacen("the process", &self.file(), 1);
        }
        StartError(failure.with_trace(self.tail.text()))
    }

    fn file(&self) -> String {
        match &self.function.door {
            Door::Handler { file, .. } => file.display().to_string(),
            Door::Exec { .. } => self.function.door.describe(),
        }
    }
}

// === helpers ===

fn memory_limit(function: &Function, language: Language, use_cgroups: bool) -> Option<MemoryLimit> {
    let bytes = function.memory?.0.get();
    let reserved = match language {
        Language::Python => bytes,
        Language::Node => bytes.saturating_add(NODE_RESERVES),
    };
    Some(MemoryLimit { used: use_cgroups.then_some(bytes), reserved })
}

fn write_hello(version: &FunctionVersion, scratch: &Path, to: &mut Vec<u8>) -> Result<(), StartError> {
    let function = &version.function;
    let Door::Handler { file, entry, .. } = &function.door else {
        return Err(cannot_start("an exec function has no handler"));
    };
    let copy = prepare::handler_file(version).ok_or_else(|| cannot_start("the handler has no file"))?;
    let shown = function.home.join(file);
    let packages = version.packages.as_deref().map(utf8).transpose()?;
    let hello = Hello {
        protocol: PROTOCOL,
        function: function.name.as_str(),
        file: utf8(&copy)?,
        file_shown: utf8(file)?,
        entry: entry.as_deref(),
        code: utf8(copy.parent().unwrap_or(&version.code))?,
        code_shown: utf8(shown.parent().unwrap_or(&function.home))?,
        packages,
        scratch: utf8(scratch)?,
        max_output: function.max_output,
        inline_max: INLINE_BYTES_MAX,
    };
    frame::write_hello(&hello, to).map_err(|error| cannot_start(error.to_string()))
}
