//! Notices saved files, for `kvern dev`.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kvern_runtime::prepare;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::exit::Stop;

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
    _watcher: RecommendedWatcher,
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
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else { return };
            if matches!(event.kind, EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_)) {
                event.paths.iter().filter_map(|path| rule.saved(path)).for_each(|path| tell.add(path));
            }
        })
        .map_err(|error| cannot_watch(home, &error))?;
        watcher.watch(home, RecursiveMode::Recursive).map_err(|error| cannot_watch(home, &error))?;
        Ok(Self { heard, _watcher: watcher })
    }

    /// Waits for saves and the quiet after them; gives the changed files relative to the folder.
    pub(crate) async fn next(&mut self) -> BTreeSet<PathBuf> {
        loop {
            self.heard.news.notified().await;
            let latest = Instant::now() + SETTLE_MAX;
            while Instant::now() < latest && timeout(SETTLE, self.heard.news.notified()).await.is_ok() {}
            let paths = self.heard.take();
            if !paths.is_empty() {
                return paths;
            }
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
    Stop::failed(format!("cannot watch {}: {error}", home.display()))
        .hint("raise fs.inotify.max_user_watches, or use `kvern serve` and `kvern reload`")
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

    #[test]
    fn many_changes_are_one() {
        let heard = Heard::default();
        (0..10_000).for_each(|n| heard.add(Path::new(&n.to_string())));
        let paths = heard.take();
        assert!(paths.len() <= PATHS_MAX + 1 && paths.contains(Path::new(".")));
    }
}
