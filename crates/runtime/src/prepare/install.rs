//! Runs an installer once per set of requirements, in sight of whoever waits.
//!
//! The lock file of a set is held while it is installed: another prepare, in this process or in another one, waits and
//! finds the work done. A killed installation leaves an unfinished folder and an unlocked lock, and is begun again.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;
use tokio::time::{Instant, Interval};

use crate::contract::{PrepareError, Progress};

use super::store::{self, Unfinished};
use super::{Settings, error, failed};

/// Written last into installed requirements: without it they are installed again.
const COMPLETE: &str = ".kvern-complete";
/// How often a lock that another process holds is tried again.
const LOCK_EVERY: Duration = Duration::from_millis(50);
/// How much of an installer's output is read for its last words.
const TAIL_BYTES: u64 = 16 << 10;
/// How many of its lines are shown.
const TAIL_LINES: usize = 15;
/// How much of a line is shown while it runs.
const LINE_CHARS_MAX: usize = 100;

/// Requirements that are to be installed.
pub(super) struct Job<'a> {
    /// The function, for whoever waits.
    pub(super) function: &'a str,
    /// Such as `requirements.txt`.
    pub(super) what: &'static str,
    /// The name of the folder: language and hash.
    pub(super) packages: &'a str,
    /// Puts what the installer needs into the empty folder.
    pub(super) stage: &'a (dyn Fn(&Path) -> Result<(), PrepareError> + Sync),
    /// The installer, told to install into the folder.
    pub(super) command: &'a (dyn Fn(&Path) -> Command + Sync),
    /// What its last words mean, for a person.
    pub(super) explain: &'a (dyn Fn(&str) -> String + Sync),
}

/// Whether the requirements of this name are installed.
pub(super) fn is_complete(packages: &Path) -> bool {
    packages.join(COMPLETE).is_file()
}

/// Installs requirements unless they are installed.
pub(super) async fn install(settings: &Settings, job: &Job<'_>, progress: &dyn Progress) -> Result<(), PrepareError> {
    let folder = store::packages_dir(&settings.data_dir);
    let packages = folder.join(job.packages);
    if is_complete(&packages) {
        return Ok(());
    }
    let mut watch = Watch::new(settings, job, progress);
    let cannot = |e: &io::Error| failed(format!("cannot install {} into {}", job.what, folder.display()), e);
    let lock = store::open_lock(&folder.join(format!(".{}.lock", job.packages))).map_err(|e| cannot(&e))?;
    watch.lock(&lock).await?;
    if is_complete(&packages) {
        return Ok(());
    }
    let unfinished = Unfinished::new(&folder).map_err(|e| cannot(&e))?;
    let log = folder.join(format!(".{}.log", job.packages));
    watch.run(unfinished.path(), &log).await?;
    let finished = tokio::task::spawn_blocking(move || finish(unfinished, &packages)).await;
    finished.unwrap_or_else(|e| Err(io::Error::other(e))).map_err(|e| cannot(&e))?;
    watch.step("installed", &format!("in {:.1} s", watch.begun.elapsed().as_secs_f64()));
    Ok(())
}

/// Gives installed requirements their name, once they are on the disk: nobody would look into a hundred megabytes of
/// packages again to see whether a power cut has emptied some.
fn finish(unfinished: Unfinished, packages: &Path) -> io::Result<()> {
    File::create(unfinished.path().join(COMPLETE))?;
    rustix::fs::syncfs(File::open(unfinished.path())?)?;
    super::copy::remove(packages)?;
    unfinished.finish(packages)
}

// === impl Scratch ===

/// Where an installer keeps its temporary files and its cache: in the data directory, like everything that we write.
struct Scratch {
    temporary: PathBuf,
    cache: PathBuf,
}

impl Scratch {
    fn new(log: &Path) -> io::Result<Self> {
        let temporary = log.with_extension("tmp");
        fs::create_dir_all(&temporary)?;
        Ok(Self { temporary, cache: log.with_file_name(".cache") })
    }

    fn keep_inside(&self, command: &mut Command) {
        command.env("TMPDIR", &self.temporary);
        for (variable, name) in [("PIP_CACHE_DIR", "pip"), ("UV_CACHE_DIR", "uv"), ("npm_config_cache", "npm")] {
            command.env(variable, self.cache.join(name));
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is in nobody's way, and is used again by the next installation of the same requirements.
        let _ = fs::remove_dir_all(&self.temporary);
    }
}

// === impl Watch ===

/// One installation and whoever waits for it.
struct Watch<'a> {
    job: &'a Job<'a>,
    progress: &'a dyn Progress,
    begun: Instant,
    deadline: Instant,
    timeout: Duration,
    ticks: Interval,
}

impl<'a> Watch<'a> {
    fn new(settings: &Settings, job: &'a Job<'a>, progress: &'a dyn Progress) -> Self {
        let begun = Instant::now();
        let every = settings.progress_every.max(Duration::from_millis(1));
        let ticks = tokio::time::interval_at(begun + every, every);
        let timeout = settings.install_timeout;
        Self { job, progress, begun, deadline: begun + timeout, timeout, ticks }
    }

    /// Waits for the lock. A file lock cannot be awaited, so it is tried again and again.
    async fn lock(&mut self, lock: &File) -> Result<(), PrepareError> {
        let mut tries = tokio::time::interval(LOCK_EVERY);
        loop {
            // Every arm may be dropped: none holds anything between two polls.
            tokio::select! {
                _ = tries.tick() => match lock.try_lock() {
                    Ok(()) => return Ok(()),
                    Err(TryLockError::WouldBlock) => {}
                    Err(TryLockError::Error(e)) => return Err(failed("cannot lock the installed packages", &e)),
                },
                _ = self.ticks.tick() => {
                    let seconds = self.begun.elapsed().as_secs();
                    self.step("waiting for another installation of", &format!("({seconds} s)"));
                }
                () = tokio::time::sleep_until(self.deadline) => return Err(self.too_long(None)),
            }
        }
    }

    async fn run(&mut self, folder: &Path, log: &Path) -> Result<(), PrepareError> {
        (self.job.stage)(folder)?;
        let mut command = (self.job.command)(folder);
        let program = PathBuf::from(command.as_std().get_program());
        self.step("installing", &format!("with {}", program.display()));
        let cannot = |e: &io::Error| failed(format!("cannot run {} for {}", program.display(), self.job.what), e);
        // The output goes to a file and not through pipes: nobody has to read it, a child that holds it open delays
        // nothing, and all of it is there to be read afterwards.
        let file = File::create(log).map_err(|e| cannot(&e))?;
        let copy = file.try_clone().map_err(|e| cannot(&e))?;
        let scratch = Scratch::new(log).map_err(|e| cannot(&e))?;
        scratch.keep_inside(&mut command);
        command.stdin(Stdio::null()).stdout(file).stderr(copy).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(|e| cannot(&e))?;
        let group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
        let status = loop {
            // Every arm may be dropped: `wait` can be called again, ticks are kept, the deadline stands.
            tokio::select! {
                status = child.wait() => break status.map_err(|e| cannot(&e))?,
                _ = self.ticks.tick() => {
                    let seconds = self.begun.elapsed().as_secs();
                    self.step("still installing", &format!("({seconds} s){}", last_line(log)));
                }
                () = tokio::time::sleep_until(self.deadline) => return Err(self.too_long(Some(log))),
            }
        };
        group.ended();
        self.judge(status, log)
    }

    fn judge(&self, status: ExitStatus, log: &Path) -> Result<(), PrepareError> {
        if status.success() {
            return Ok(());
        }
        let words = tail(log);
        let mut message = (self.job.explain)(&words);
        if message.is_empty() {
            message = format!("{} cannot be installed ({status})", self.job.what);
        }
        self.step("could not install", &format!("after {:.1} s", self.begun.elapsed().as_secs_f64()));
        let message = format!("{message}. The whole output is in {}", log.display());
        Err(PrepareError { message, detail: Some(last_lines(&words)) })
    }

    fn too_long(&self, log: Option<&Path>) -> PrepareError {
        let detail = log.map(|log| last_lines(&tail(log)));
        let message =
            format!("{} was not installed within {} s, and was given up", self.job.what, self.timeout.as_secs_f32());
        PrepareError { detail, ..error(message) }
    }

    fn step(&self, verb: &str, rest: &str) {
        self.progress.step(&format!("{}: {verb} {} {rest}", self.job.function, self.job.what));
    }
}

// === helpers ===

/// The processes of an installer: killed together when nobody waits for them any more.
struct Group(Option<Pid>);

impl Group {
    /// The installer has ended by itself; its id may soon be somebody else's.
    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // An error means that it is gone, which is what is wanted.
        let _gone = self.0.map(|group| kill_process_group(group, Signal::KILL));
    }
}

fn tail(log: &Path) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let len = fs::metadata(log)?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// What the installer is at, for a person: `: Collecting pillow`.
fn last_line(log: &Path) -> String {
    let words = last_lines(&tail(log));
    let line: String = words.lines().last().unwrap_or_default().trim().chars().take(LINE_CHARS_MAX).collect();
    if line.is_empty() { line } else { format!(": {line}") }
}
