//! Notices saved files, for `kvern dev`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::exit::Stop;

/// An editor that saves writes a few files in a burst: one reload is enough.
const SETTLE: Duration = Duration::from_millis(60);

/// Tells of saves below a folder until it is dropped.
#[derive(Debug)]
pub(crate) struct Saves {
    changed: mpsc::Receiver<PathBuf>,
    home: PathBuf,
    _watcher: RecommendedWatcher,
}

impl Saves {
    /// Watches a folder and those below it.
    pub(crate) fn below(home: &Path) -> Result<Self, Stop> {
        // One place is enough: a full channel already says that something changed.
        let (tell, changed) = mpsc::channel(1);
        let below = home.to_owned();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else { return };
            let is_change = matches!(event.kind, EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_));
            if let Some(path) =
                event.paths.into_iter().find(|path| is_change && is_code(path.strip_prefix(&below).unwrap_or(path)))
            {
                let _ = tell.try_send(path);
            }
        })
        .map_err(|error| cannot_watch(home, &error))?;
        watcher.watch(home, RecursiveMode::Recursive).map_err(|error| cannot_watch(home, &error))?;
        Ok(Self { changed, home: home.to_owned(), _watcher: watcher })
    }

    /// Waits for a save and the quiet after it; gives a changed file relative to the folder.
    pub(crate) async fn next(&mut self) -> Option<PathBuf> {
        let path = self.changed.recv().await?;
        while let Ok(Some(_)) = tokio::time::timeout(SETTLE, self.changed.recv()).await {}
        Some(path.strip_prefix(&self.home).map(Path::to_owned).unwrap_or(path))
    }
}

fn cannot_watch(home: &Path, error: &notify::Error) -> Stop {
    Stop::failed(format!("cannot watch {}: {error}", home.display()))
        .hint("raise fs.inotify.max_user_watches, or use `kvern serve` and `kvern reload`")
}

/// Whether a file could be part of a function: not ours, not a cache, not an editor's.
fn is_code(path: &Path) -> bool {
    let hidden = |part: &std::ffi::OsStr| {
        let part = part.to_string_lossy();
        part.starts_with('.')
            || part.ends_with('~')
            || matches!(&*part, "__pycache__" | "node_modules" | "data" | "target")
    };
    !path.iter().any(hidden)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_and_hidden_files_are_not_code() {
        for yes in ["/srv/app/hello.py", "/srv/app/kvern.toml", "/srv/app/lib/x.mjs"] {
            assert!(is_code(Path::new(yes)), "{yes}");
        }
        for no in
            ["/srv/app/.kvern/kvern.db", "/srv/app/__pycache__/x.pyc", "/srv/app/hello.py~", "/srv/app/data/1.png"]
        {
            assert!(!is_code(Path::new(no)), "{no}");
        }
    }
}
