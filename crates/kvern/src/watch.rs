//! Notices saved files, for `kvern dev`.
//!
//! Each folder is watched by itself, and not a tree at once: what lies in hidden folders and in those of tools is no
//! code, a folder that cannot be read is no reason to serve nothing, and a link may lead to the whole machine.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kvern_runtime::prepare;
use notify::{ErrorKind, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::exit::Stop;
use crate::print;

/// An editor that saves writes a few files in a burst: one reload is enough.
const SETTLE: Duration = Duration::from_millis(60);
/// A file that is written without a pause must not keep a save from being seen.
const SETTLE_MAX: Duration = Duration::from_secs(1);
/// More files than this at once are a checkout or an installation: that something changed is all there is to say.
const PATHS_MAX: usize = 256;

/// Tells of saves below a folder until it is dropped.
#[derive(Debug)]
pub(crate) struct Saves {
    heard: Arc<Heard>,
    folders: Folders,
}

/// The folders that are watched.
#[derive(Debug)]
struct Folders {
    home: PathBuf,
    watcher: RecommendedWatcher,
    /// What was left out and said so, once.
    left_out: HashSet<PathBuf>,
}

/// What has changed since somebody last asked, relative to the folder.
#[derive(Debug, Default)]
struct Heard {
    paths: Mutex<BTreeSet<PathBuf>>,
    news: Notify,
}

/// Which changes below a folder could be somebody's save.
struct Rule {
    home: PathBuf,
    /// The files that our own output goes to: a line about a change would be the next change.
    outputs: Vec<(u64, u64)>,
}

// === impl Saves ===

impl Saves {
    /// Watches a folder and those below it.
    pub(crate) fn below(home: &Path) -> Result<Self, Stop> {
        let heard = Arc::new(Heard::default());
        let (tell, rule) = (Arc::clone(&heard), Rule::new(home));
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else { return };
            if matches!(event.kind, EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_)) {
                event.paths.iter().filter_map(|path| rule.saved(path)).for_each(|path| tell.add(path));
            }
        })
        .map_err(|error| cannot_watch(home, &error))?;
        let mut folders = Folders { home: home.to_owned(), watcher, left_out: HashSet::new() };
        folders.watch(Path::new("")).map_err(|error| cannot_watch(home, &error))?;
        Ok(Self { heard, folders })
    }

    /// Waits for saves and the quiet after them; gives the changed files relative to the folder.
    pub(crate) async fn next(&mut self) -> BTreeSet<PathBuf> {
        loop {
            self.heard.news.notified().await;
            let latest = Instant::now() + SETTLE_MAX;
            while Instant::now() < latest && timeout(SETTLE, self.heard.news.notified()).await.is_ok() {}
            let paths = self.heard.take();
            // Watched before anybody reads it, so that what is saved in a new folder later is heard.
            paths.iter().for_each(|path| self.folders.add(path));
            if !paths.is_empty() {
                return paths;
            }
        }
    }
}

// === impl Folders ===

impl Folders {
    /// Watches what has come, if it is a folder.
    fn add(&mut self, path: &Path) {
        let path = if path == Path::new(".") { Path::new("") } else { path };
        if let Err(error) = self.watch(path) {
            self.leave_out(path, &error);
        }
    }

    /// Watches a folder and those below it. Fails only if that folder or the machine's room for watches is the reason.
    fn watch(&mut self, folder: &Path) -> notify::Result<()> {
        let mut found = vec![folder.to_owned()];
        while let Some(path) = found.pop() {
            match self.watch_one(&path) {
                Ok(below) => found.extend(below),
                Err(error) if path == folder || is_limit(&error) => return Err(error),
                Err(error) => self.leave_out(&path, &error),
            }
        }
        Ok(())
    }

    /// Watches one folder, and gives the folders in it that may hold code; links are not followed.
    fn watch_one(&mut self, path: &Path) -> notify::Result<Vec<PathBuf>> {
        let whole = self.home.join(path);
        let is_home = path.as_os_str().is_empty();
        if !is_home && !whole.symlink_metadata().is_ok_and(|file| file.is_dir()) {
            return Ok(Vec::new());
        }
        self.watcher.watch(&whole, RecursiveMode::NonRecursive)?;
        let entries = whole.read_dir().map_err(notify::Error::io)?.flatten();
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let is_data = |path: &Path| self.home.join(path).join(kvern_queue_sqlite::LOCK_FILE).exists();
        let below = folders.map(|entry| path.join(entry.file_name()));
        Ok(below.filter(|path| is_code(path) && !is_data(path)).collect())
    }

    fn leave_out(&mut self, path: &Path, error: &notify::Error) {
        // Another process removed it: there is nothing to watch.
        if !is_gone(error) && self.left_out.insert(path.to_owned()) {
            let reason = reason(error);
            print::say(&format!("warning: saves in {} are not noticed: {reason}", path.display()));
        }
    }
}

// === impl Heard ===

impl Heard {
    fn add(&self, path: &Path) {
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = paths.len() >= PATHS_MAX;
        paths.insert(if is_full { PathBuf::from(".") } else { path.to_owned() });
        drop(paths);
        self.news.notify_one();
    }

    fn take(&self) -> BTreeSet<PathBuf> {
        std::mem::take(&mut *self.paths.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

// === impl Rule ===

impl Rule {
    fn new(home: &Path) -> Self {
        let files = [rustix::fs::fstat(std::io::stdout()), rustix::fs::fstat(std::io::stderr())];
        let outputs = files.into_iter().flatten().map(|file| (file.st_dev, file.st_ino)).collect();
        Self { home: home.to_owned(), outputs }
    }

    /// The path below the folder, if a function may be made of it.
    fn saved<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        let below = path.strip_prefix(&self.home).unwrap_or(path);
        (is_code(below) && !self.is_data(below) && !self.is_output(path)).then_some(below)
    }

    /// Whether it lies in a data directory, ours or that of another server, whatever its name.
    fn is_data(&self, below: &Path) -> bool {
        let folders = below.ancestors().filter(|folder| !folder.as_os_str().is_empty());
        folders.into_iter().any(|folder| self.home.join(folder).join(kvern_queue_sqlite::LOCK_FILE).exists())
    }

    fn is_output(&self, path: &Path) -> bool {
        path.metadata().is_ok_and(|file| self.outputs.contains(&(file.dev(), file.ino())))
    }
}

// === helpers ===

fn cannot_watch(home: &Path, error: &notify::Error) -> Stop {
    let stop = Stop::failed(format!("cannot watch {}: {}", home.display(), reason(error)));
    stop.hint(match &error.kind {
        ErrorKind::MaxFilesWatch => "raise fs.inotify.max_user_watches, or use `kvern serve` and `kvern reload`",
        // What the kernel says of too many watchers of one user, and of a process with too many open files.
        ErrorKind::Io(source) if source.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
            "raise fs.inotify.max_user_instances or `ulimit -n`, or use `kvern serve` and `kvern reload`"
        }
        _ => "use `kvern serve` and `kvern reload`, which watch nothing",
    })
}

/// Without the path, which the line has already.
fn reason(error: &notify::Error) -> String {
    match &error.kind {
        ErrorKind::Io(source) => source.to_string(),
        ErrorKind::MaxFilesWatch => "the machine's limit of watched files is reached".to_owned(),
        _ => error.to_string(),
    }
}

fn is_limit(error: &notify::Error) -> bool {
    matches!(error.kind, ErrorKind::MaxFilesWatch)
}

fn is_gone(error: &notify::Error) -> bool {
    match &error.kind {
        ErrorKind::PathNotFound => true,
        ErrorKind::Io(source) => source.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}

/// Whether a file could be part of a function by its name: not ours, not a cache, not an editor's, not a log.
fn is_code(path: &Path) -> bool {
    let hidden = |part: &std::ffi::OsStr| {
        let part = part.to_string_lossy();
        part.starts_with('.')
            || part.ends_with('~')
            || matches!(&*part, "__pycache__" | "node_modules" | "venv" | "data" | "target")
    };
    !path.iter().any(hidden) && !prepare::is_output_name(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_hidden_files_and_logs_are_not_code() {
        for yes in ["/srv/app/hello.py", "/srv/app/kvern.toml", "/srv/app/lib/x.mjs", "/srv/app/catalog"] {
            assert!(is_code(Path::new(yes)), "{yes}");
        }
        for no in [
            "/srv/app/.kvern/kvern.db",
            "/srv/app/__pycache__/x.pyc",
            "/srv/app/hello.py~",
            "/srv/app/data/1.png",
            "/srv/app/out.log",
        ] {
            assert!(!is_code(Path::new(no)), "{no}");
        }
    }

    #[test]
    fn a_data_directory_is_not_code_whatever_its_name() {
        let home = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(home.path().join("jobs")).expect("a folder");
        let rule = Rule::new(home.path());
        let path = home.path().join("jobs/blobs/1");
        assert_eq!(rule.saved(&path), Some(Path::new("jobs/blobs/1")));
        std::fs::write(home.path().join("jobs").join(kvern_queue_sqlite::LOCK_FILE), "").expect("a file");
        assert_eq!(rule.saved(&path), None);
        assert_eq!(rule.saved(&home.path().join("hello.py")), Some(Path::new("hello.py")));
    }

    #[tokio::test]
    async fn a_new_folder_is_watched_and_a_link_is_not_followed() {
        let (home, outside) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        std::os::unix::fs::symlink(outside.path(), home.path().join("link")).expect("a link");
        let mut saves = Saves::below(home.path()).expect("it watches");
        std::fs::create_dir_all(home.path().join("lib/deep")).expect("a folder");
        while !saves.next().await.contains(Path::new("lib")) {}
        std::fs::write(outside.path().join("there.py"), "").expect("a file");
        std::fs::write(home.path().join("lib/deep/x.py"), "").expect("a file");
        let saved = saves.next().await;
        assert_eq!(saved.into_iter().collect::<Vec<_>>(), [Path::new("lib/deep/x.py")]);
    }

    #[test]
    fn each_reason_has_its_own_hint() {
        let said = |error: notify::Error| cannot_watch(Path::new("/srv/app"), &error).to_string();
        let io = |error: rustix::io::Errno| said(notify::Error::io(error.into()));
        assert!(said(notify::Error::new(ErrorKind::MaxFilesWatch)).contains("max_user_watches"));
        assert!(io(rustix::io::Errno::MFILE).contains("max_user_instances"));
        let denied = io(rustix::io::Errno::ACCESS);
        assert!(denied.contains("Permission denied") && !denied.contains("inotify"), "{denied}");
    }

    #[test]
    fn many_changes_are_one() {
        let heard = Heard::default();
        (0..10_000).for_each(|n| heard.add(Path::new(&n.to_string())));
        let paths = heard.take();
        assert!(paths.len() <= PATHS_MAX + 1 && paths.contains(Path::new(".")));
    }
}
