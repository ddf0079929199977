//! Runs an installer once per set of requirements, in sight of whoever waits.
//!
//! The lock file of a set is held while it is installed: another prepare, in this process or in another one, waits and
//! finds the work done. A killed installation leaves an unfinished folder and an unlocked lock, and is begun again.
//!
//! The installer lives in a jail as functions do: it ends with whoever waits for it, also with a server that is killed,
//! and the next server waits for its end before it begins anew.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kvern_core::FailureCode;
use rustix::fs::FallocateFlags;
use tokio::time::{Instant, Interval};

use crate::contract::{PrepareError, Progress};
use crate::jail::jailed::{End, Jailed, Launch, NotStarted, no_room};
use crate::jail::leash::{Ending, How};
use crate::jail::record;
use crate::jail::task::Task;

use super::store::{self, Unfinished};
use super::{Settings, environment, error, failed};

/// Written last into installed requirements: without it they are installed again.
const COMPLETE: &str = ".kvern-complete";
/// How often a lock that another process holds is tried again.
const LOCK_EVERY: Duration = Duration::from_millis(50);
/// How much of an installer's output is read for its last words.
const TAIL_BYTES: u64 = 16 << 10;
/// How much of its output finds room on a full disk.
const LOG_BYTES_RESERVED: u64 = 256 << 10;
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

// === impl Watch ===

/// One installation and whoever waits for it.
struct Watch<'a> {
    settings: &'a Settings,
    job: &'a Job<'a>,
    progress: &'a dyn Progress,
    begun: Instant,
    deadline: Instant,
    timeout: Duration,
    ticks: Interval,
}

impl<'a> Watch<'a> {
    fn new(settings: &'a Settings, job: &'a Job<'a>, progress: &'a dyn Progress) -> Self {
        let begun = Instant::now();
        let every = settings.progress_every.max(Duration::from_millis(1));
        let ticks = tokio::time::interval_at(begun + every, every);
        let timeout = settings.install_timeout;
        Self { settings, job, progress, begun, deadline: begun + timeout, timeout, ticks }
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
        let command = (self.job.command)(folder);
        let program = Path::new(command.get_program()).display();
        self.step("installing", &format!("with {program}"));
        let cannot = |why: NotStarted| PrepareError {
            is_shortage: why.code == FailureCode::NoRoom,
            ..error(format!("cannot run {program} for {}: {why}", self.job.what))
        };
        let output = open_log(log).map_err(|e| failed(format!("cannot write {}", log.display()), &e))?;
        let mut jailed = self.spawn(&command, folder, output).map_err(cannot)?;
        jailed.started().await.map_err(cannot)?;
        let end = loop {
            // Every arm may be dropped: `ended` can be called again, ticks are kept, the deadline stands.
            tokio::select! {
                end = jailed.ended() => break Some(end),
                _ = self.ticks.tick() => {
                    let seconds = self.begun.elapsed().as_secs();
                    self.step("still installing", &format!("({seconds} s){}", last_line(log)));
                }
                () = tokio::time::sleep_until(self.deadline) => break None,
            }
        };
        jailed.kill().await;
        match end {
            Some(end) => self.judge(end, log),
            None => Err(self.too_long(Some(log))),
        }
    }

    /// Starts the installer.
    fn spawn(&self, command: &Command, folder: &Path, stdout: File) -> Result<Jailed, NotStarted> {
        let no_place = |e: io::Error| NotStarted::new("cannot find the data directory", &e);
        let data_dir = std::path::absolute(&self.settings.data_dir).map_err(no_place)?;
        let run = data_dir.join("run");
        // An earlier installer of the same packages may still be clearing its own away.
        let scratch = run.join("tmp").join(folder.file_name().unwrap_or_default());
        let stderr = stdout.try_clone().map_err(no_room)?;
        let nothing = File::open("/dev/null").map_err(|e| NotStarted::new("cannot open /dev/null", &e))?;
        let own = command.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
        let environment =
            environment::of_tool().chain(own).chain(inside(&scratch, &store::packages_dir(&data_dir))).collect();
        let argv = std::iter::once(command.get_program()).chain(command.get_args()).map(OsStr::to_owned).collect();
        Jailed::spawn(Launch {
            program: &self.settings.jail,
            task: Task {
                is_handler: false,
                memory: None,
                processes: None,
                records: record::folder(&run),
                scratch,
                argv,
            },
            home: command.get_current_dir().unwrap_or(folder),
            environment,
            private: nothing.into(),
            stdout: stdout.into(),
            stderr: stderr.into(),
        })
    }

    fn judge(&self, end: End, log: &Path) -> Result<(), PrepareError> {
        if matches!(end, End::Reported(Ending { how: How::Exited(0), .. })) {
            return Ok(());
        }
        let words = tail(log);
        self.step("could not install", &format!("after {:.1} s", self.begun.elapsed().as_secs_f64()));
        let message = format!("{}. The whole output is in {}", (self.job.explain)(&words), log.display());
        Err(PrepareError { detail: Some(last_lines(&words)), is_shortage: found_no_room(&words), ..error(message) })
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

/// The output goes to a file and not through pipes: nobody has to read it, a child that holds it open delays nothing, and
/// all of it is there to be read afterwards. Its room is taken now, so that an installer that fills the disk can say so.
fn open_log(path: &Path) -> io::Result<File> {
    let file = File::create(path)?;
    match rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, LOG_BYTES_RESERVED).map_err(io::Error::from) {
        Err(error) if super::is_shortage(&error) => Err(error),
        // Some file systems cannot promise room.
        Ok(()) | Err(_) => Ok(file),
    }
}

/// Whether an installer failed because the disk is full, a quota is used up, or files may not be so large.
pub(super) fn found_no_room(words: &str) -> bool {
    const SIGNS: [&str; 7] = [
        "No space left on device",
        "ENOSPC",
        "Disk quota exceeded",
        "EDQUOT",
        "[Errno 27] File too large",
        "File too large (os error 27)",
        "EFBIG",
    ];
    SIGNS.iter().any(|sign| words.contains(sign))
}

/// Variables that keep an installer's temporary files and its cache in the data directory, like everything that we write.
fn inside(scratch: &Path, packages: &Path) -> impl Iterator<Item = (OsString, OsString)> {
    let cache = packages.join(store::CACHE);
    let caches = [("PIP_CACHE_DIR", "pip"), ("UV_CACHE_DIR", "uv"), ("npm_config_cache", "npm")];
    let caches = caches.map(|(variable, name)| (variable.into(), cache.join(name).into()));
    std::iter::once(("TMPDIR".into(), scratch.into())).chain(caches)
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
