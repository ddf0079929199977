//! A process per attempt: input on stdin, result on stdout, log on stderr, outcome by exit code.
//!
//! The input is a file, or an anonymous file in memory: nothing has to be written to a process that may never read, and
//! no full pipe can stand in the way of its end.
//!
//! While an attempt runs, its process belongs to the instance and not to the future of `run`: where that future is
//! dropped, `stop` still has whom to ask, to wait for and to kill.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join;
use kvern_core::{Door, Failure, FailureCode, Function, Outcome};
use rustix::fs::MemfdFlags;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::attempt::FAR;
use super::logs::{Pipe, Tail};
use super::{Shared, cannot_start, environment, unrunnable, words};
use crate::contract::{Context, FunctionVersion, Input, Instance, Log, Output, OutputRefused, StartError};
use crate::jail::jailed::{End, Jailed, Launch, NotStarted, no_room};
use crate::jail::leash::How;
use crate::jail::task::{MemoryLimit, Task};
use crate::prepare;

/// One read of stdout.
const READ_BYTES: usize = 32 << 10;
/// Inputs above this are written to memory on a thread that may be blocked.
const COPY_BYTES_MAX: usize = 256 << 10;
/// `EX_DATAERR` of sysexits.h: the input is bad, do not retry.
const EXIT_BAD_INPUT: i32 = 65;
/// `EX_TEMPFAIL` of sysexits.h: try again.
const EXIT_RETRY: i32 = 75;

/// What starts a process per attempt.
#[derive(Debug)]
pub(super) struct Exec {
    shared: Arc<Shared>,
    version: FunctionVersion,
    /// The attempt that runs, or one whose `run` was dropped.
    attempt: Option<Attempt>,
}

/// The process of one attempt.
#[derive(Debug)]
struct Attempt {
    function: Arc<Function>,
    jailed: Jailed,
    stdout: Pipe,
    stderr: Pipe,
    tail: Tail,
    grace: Duration,
}

/// What the attempt came to.
enum Step {
    Ended(End),
    Refused(OutputRefused),
    Late,
}

// === impl Exec ===

impl Exec {
    /// Looks whether the program is there.
    pub(super) fn new(shared: Arc<Shared>, version: &FunctionVersion) -> Result<Self, StartError> {
        let argv = prepare::exec_argv(version);
        let Some(program) = argv.first() else { return Err(cannot_start("`exec` names no program")) };
        check_program(Path::new(program), &version.function.home, &shared.settings.path)?;
        Ok(Self { shared, version: version.clone(), attempt: None })
    }

    async fn begin(&mut self, context: &Context, input: Input, deadline: Instant) -> Result<&mut Attempt, NotStarted> {
        let function = &self.version.function;
        let settings = &self.shared.settings;
        let stdin = stdin(input).await.map_err(|error| NotStarted::new("the input cannot be read", &error))?;
        let (stdout, their_stdout) = Pipe::pair().map_err(no_room)?;
        let (stderr, their_stderr) = Pipe::pair().map_err(no_room)?;
        let scratch = self.shared.next_scratch();
        let mut environment = environment::of_function(settings, function, &scratch);
        environment.extend(environment::of_attempt(context));
        let bytes = function.memory.map(|memory| memory.0.get());
        let jailed = Jailed::spawn(Launch {
            program: &settings.prepare.jail,
            task: Task {
                is_handler: false,
                memory: bytes.map(|bytes| MemoryLimit { used: settings.use_cgroups.then_some(bytes), reserved: bytes }),
                processes: settings.processes(),
                records: self.shared.records(),
                scratch,
                argv: prepare::exec_argv(&self.version),
            },
            home: &function.home,
            environment,
            private: stdin,
            stdout: their_stdout,
            stderr: their_stderr,
        })?;
        let (function, grace) = (Arc::clone(function), settings.grace);
        let attempt = self.attempt.insert(Attempt { function, jailed, stdout, stderr, tail: Tail::default(), grace });
        // A program can stop its jail before the jail has said so: then it is late, as if it had stopped itself.
        timeout_at(deadline, attempt.jailed.started()).await.unwrap_or(Ok(()))?;
        Ok(attempt)
    }

    /// What may be wrong with the program.
    fn hint(&self) -> Option<String> {
        let Door::Exec { argv } = &self.version.function.door else { return None };
        let program = prepare::exec_argv(&self.version).into_iter().next()?;
        unrunnable::hint(&self.version.function.home.join(program), argv.first()?)
    }
}

#[async_trait]
impl Instance for Exec {
    async fn run(&mut self, context: &Context, input: Input, output: &mut dyn Output, log: &Arc<dyn Log>) -> Outcome {
        let deadline = Instant::now() + context.timeout.min(FAR);
        let outcome = match self.begin(context, input, deadline).await {
            Ok(attempt) => attempt.run(context, deadline, output, log.as_ref()).await,
            Err(NotStarted { code, message }) => {
                let hint = self.hint().filter(|_| code == FailureCode::CannotStart);
                let hint = hint.map(|hint| format!(": {hint}")).unwrap_or_default();
                let message = format!("{} cannot be run: {message}{hint}", self.version.function.door.describe());
                Outcome::Failed(Failure::new(code, message))
            }
        };
        if let Some(attempt) = &mut self.attempt {
            attempt.jailed.kill().await;
        }
        self.attempt = None;
        outcome
    }

    fn is_usable(&mut self) -> bool {
        self.attempt.is_none()
    }

    async fn died(&mut self) {
        std::future::pending::<()>().await;
    }

    async fn stop(mut self: Box<Self>, grace: Duration) {
        if let Some(attempt) = &mut self.attempt {
            let reading = join(attempt.stdout.pump(|_| ()), attempt.stderr.pump(|_| ())).map(|_| ());
            attempt.jailed.stop_reading(grace, reading).await;
        }
    }

    fn pid(&self) -> Option<u32> {
        None
    }
}

// === impl Attempt ===

impl Attempt {
    async fn run(&mut self, context: &Context, deadline: Instant, output: &mut dyn Output, log: &dyn Log) -> Outcome {
        match self.copy_until_the_end(deadline, output, log).await {
            Step::Ended(end) => self.outcome(end),
            Step::Refused(refused) => {
                self.jailed.kill().await;
                self.drain_log(log);
                refused.outcome()
            }
            Step::Late => {
                let Self { jailed, stdout, stderr, tail, grace, .. } = self;
                let reading = join(stdout.pump(|_| ()), stderr.pump(|bytes| tail.take(bytes, log))).map(|_| ());
                jailed.stop_reading(*grace, reading).await;
                self.drain_log(log);
                Outcome::timed_out(context.timeout)
            }
        }
    }

    async fn copy_until_the_end(&mut self, deadline: Instant, output: &mut dyn Output, log: &dyn Log) -> Step {
        let Self { jailed, stdout, stderr, tail, .. } = self;
        // The same future goes on after the end of the process: what it wrote is still in the pipe.
        let mut end = None;
        let copied = async {
            let mut buffer = vec![0; READ_BYTES];
            loop {
                let len = tokio::select! {
                    biased;
                    len = stdout.read(&mut buffer), if end.is_none() => match len {
                        Some(len) => len,
                        // A closed stdout is not the end of the process.
                        None => {
                            end = Some(jailed.ended().await);
                            continue;
                        }
                    },
                    ended = jailed.ended(), if end.is_none() => {
                        end = Some(ended);
                        continue;
                    }
                    else => match stdout.read_now(&mut buffer) {
                        Some(len) => len,
                        None => return Ok(()),
                    },
                };
                output.write(Bytes::copy_from_slice(&buffer[..len])).await?;
            }
        };
        let copied: Result<(), OutputRefused> = tokio::select! {
            copied = copied => copied,
            () = stderr.pump(|bytes| tail.take(bytes, log)) => Ok(()),
            () = sleep_until(deadline) => return Step::Late,
        };
        self.drain_log(log);
        match (copied, end) {
            (Err(refused), _) => Step::Refused(refused),
            (Ok(()), Some(end)) => Step::Ended(end),
            (Ok(()), None) => Step::Late,
        }
    }

    fn drain_log(&mut self, log: &dyn Log) {
        self.stderr.drain(|bytes| self.tail.take(bytes, log));
    }

    fn outcome(&self, end: End) -> Outcome {
        let function = &self.function;
        if let Some(failure) = words::out_of_memory(Some(end), function, self.jailed.limit(), &self.tail) {
            return Outcome::Crashed(failure);
        }
        let End::Reported(ending) = end else {
            return Outcome::Crashed(words::death(Some(end), function, &self.jailed, &self.tail, ""));
        };
        let (code, message) = match ending.how {
            How::Exited(0) => return Outcome::Succeeded,
            How::Exited(EXIT_BAD_INPUT) => (FailureCode::BadInput, "exited with code 65: the input is bad".to_owned()),
            How::Exited(EXIT_RETRY) => (FailureCode::Retry, "exited with code 75: try again".to_owned()),
            How::Exited(code) => (FailureCode::Exit, format!("exited with code {code}")),
            How::Signalled(_) => {
                return Outcome::Crashed(words::death(Some(end), function, &self.jailed, &self.tail, ""));
            }
        };
        Outcome::Failed(Failure::new(code, words::with_last_line(message, &self.tail)))
    }
}

// === helpers ===

async fn stdin(input: Input) -> io::Result<OwnedFd> {
    match input {
        Input::File(path, _) => Ok(tokio::fs::File::open(path).await?.into_std().await.into()),
        Input::Bytes(bytes) if bytes.len() <= COPY_BYTES_MAX => in_memory(&bytes),
        Input::Bytes(bytes) => {
            tokio::task::spawn_blocking(move || in_memory(&bytes)).await.map_err(io::Error::other)?
        }
    }
}

fn in_memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(rustix::fs::memfd_create("input", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file.into())
}

fn check_program(program: &Path, home: &Path, path: &std::ffi::OsStr) -> Result<(), StartError> {
    let is_executable = |path: &PathBuf| {
        path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    let shown = program.display();
    if program.components().count() > 1 || program.is_absolute() {
        let path = home.join(program);
        if is_executable(&path) {
            return Ok(());
        }
        return Err(cannot_start(match path.is_file() {
            true => format!("{shown} is not executable: try `chmod +x {}`", path.display()),
            false => format!("there is no program {shown} in {}", home.display()),
        }));
    }
    if std::env::split_paths(path).map(|folder| home.join(folder).join(program)).any(|path| is_executable(&path)) {
        return Ok(());
    }
    let hint = if home.join(program).is_file() {
        format!("; for the one in this folder write `./{shown}`")
    } else {
        String::new()
    };
    Err(cannot_start(format!("there is no program `{shown}` on PATH{hint}")))
}
