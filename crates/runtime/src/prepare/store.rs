//! The two folders that `prepare` fills: `versions/<function>/<version>/` and `packages/<language>-<hash>/`.
//!
//! Whatever has its final name is complete: it is made as `.new-…` beside it and renamed. What was being made when the
//! server was killed keeps that name, is never used, and is removed by [`clean_up`]. Whoever makes something holds the
//! lock of the store shared; whoever removes something holds it alone, or leaves it for another time.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use kvern_core::FunctionName;

use crate::contract::{PrepareError, Version};

use super::{copy, failed};

/// Copies of a function that are kept for a rollback, beside those in use.
const VERSIONS_KEPT: usize = 5;
/// What is being made begins with this.
const UNFINISHED: &str = ".new-";
/// In a version's copy: a link to the installed requirements that it needs.
const PACKAGES_LINK: &str = ".kvern-packages";
/// What installers have downloaded, in the folder of packages.
pub(super) const CACHE: &str = ".cache";
/// Logs of installations that failed are kept, as many as these: each is named to whoever has to mend it.
const LOGS_KEPT: usize = 5;

/// Removes what a killed server left half made. Returns how many such things there were; none are touched while
/// another process prepares something.
///
/// # Errors
/// What the file system says.
pub fn clean_up(data_dir: &Path) -> io::Result<usize> {
    let Some(_alone) = lock_alone(data_dir)? else { return Ok(0) };
    let mut folders = list(&versions_dir(data_dir))?;
    folders.push(packages_dir(data_dir));
    let mut removed = 0;
    for folder in folders {
        for path in list(&folder)?.into_iter().filter(|path| is_unfinished(path)) {
            copy::remove(&path)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Removes old versions: of each function the five that were prepared last and those in `in_use` stay. Installed
/// requirements go with the last version that needs them; what installers have downloaded stays. Returns how many
/// versions were removed; none are while something is being prepared.
///
/// # Errors
/// What the file system says.
pub fn forget_old(data_dir: &Path, in_use: &[(FunctionName, Version)]) -> io::Result<usize> {
    let Some(_alone) = lock_alone(data_dir)? else { return Ok(0) };
    let mut removed = 0;
    let mut packages_needed = BTreeSet::new();
    for folder in list(&versions_dir(data_dir))?.into_iter().filter(|path| path.is_dir()) {
        let function = name_of(&folder);
        let is_in_use = |path: &Path| in_use.iter().any(|(f, v)| f.as_str() == function && *v.0 == *name_of(path));
        for (place, path) in newest_first(list(&folder)?)?.into_iter().enumerate() {
            if place < VERSIONS_KEPT || is_in_use(&path) {
                packages_needed.extend(fs::read_link(path.join(PACKAGES_LINK)).map(|link| name_of(&link)));
            } else {
                copy::remove(&path)?;
                removed += 1;
            }
        }
    }
    forget_packages(data_dir, &packages_needed)?;
    Ok(removed)
}

/// Where the copies of a function are.
pub(super) fn function_dir(data_dir: &Path, function: &FunctionName) -> PathBuf {
    versions_dir(data_dir).join(function.as_str())
}

/// Where requirements are installed.
pub(super) fn packages_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("packages")
}

/// The lock of the store, until it is dropped.
#[derive(Debug)]
pub(super) struct StoreLock(File);

/// Makes the folders of the store and holds its lock shared.
pub(super) fn lock_shared(data_dir: &Path, function: &FunctionName) -> Result<StoreLock, PrepareError> {
    let locked = fs::create_dir_all(function_dir(data_dir, function))
        .and_then(|()| fs::create_dir_all(packages_dir(data_dir)))
        .and_then(|()| open_lock(&versions_dir(data_dir).join(".lock")))
        .and_then(|file| file.lock_shared().map(|()| StoreLock(file)));
    locked.map_err(|e| failed(format!("cannot write to the data directory {}", data_dir.display()), &e))
}

/// Opens a lock file, making it if need be.
pub(super) fn open_lock(path: &Path) -> io::Result<File> {
    File::options().create(true).truncate(false).write(true).open(path)
}

/// Links a copy that is being made to the installed requirements of this name, so that they stay as long as it. The link
/// is relative: a data directory may be moved.
pub(super) fn link_packages(copy: &Path, packages: &str) -> io::Result<()> {
    let packages = Path::new("../../../packages").join(packages);
    std::os::unix::fs::symlink(&packages, copy.join(PACKAGES_LINK))
}

/// Links `node_modules` of a copy, where Node's module loader looks, to the installed requirements of this name.
pub(super) fn link_node_modules(copy: &Path, packages: &str) -> io::Result<()> {
    let modules = Path::new("../../../packages").join(packages).join("node_modules");
    std::os::unix::fs::symlink(modules, copy.join("node_modules"))
}

/// Notes that a version was prepared again: it counts as new when old ones are forgotten.
pub(super) fn touch(version: &Path) -> io::Result<()> {
    File::open(version)?.set_modified(SystemTime::now())
}

/// A folder that is being made; removed when dropped before it has its final name.
#[derive(Debug)]
pub(super) struct Unfinished {
    path: PathBuf,
    is_finished: bool,
}

// === impl StoreLock ===

impl Drop for StoreLock {
    /// Closing would not do: a process that was forked at this moment, and has not yet become what it will be, holds the
    /// same open file.
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "cannot unlock the store of versions");
        }
    }
}

// === impl Unfinished ===

impl Unfinished {
    /// Makes an empty folder beside where it will be.
    pub(super) fn new(parent: &Path) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("{UNFINISHED}{}-{count}", std::process::id()));
            match fs::create_dir(&path) {
                // Left by an earlier process of this id.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made.map(|()| Self { path, is_finished: false }),
            }
        }
    }

    /// Where it is for now.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its final name, unless there is something of that name: that is as good, and stays.
    pub(super) fn finish(mut self, path: &Path) -> io::Result<()> {
        match fs::rename(&self.path, path) {
            Err(e) if matches!(e.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty) => Ok(()),
            renamed => renamed.map(|()| self.is_finished = true),
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_finished && copy::remove(&self.path).is_err() {
            tracing::debug!(path = %self.path.display(), "an unfinished folder is left for the next start");
        }
    }
}

// === helpers ===

/// The folders in a data directory that hold code.
pub(crate) fn folders(data_dir: &Path) -> [PathBuf; 2] {
    [versions_dir(data_dir), packages_dir(data_dir)]
}

fn versions_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("versions")
}

fn lock_alone(data_dir: &Path) -> io::Result<Option<StoreLock>> {
    let versions = versions_dir(data_dir);
    if !versions.is_dir() {
        return Ok(None);
    }
    let file = open_lock(&versions.join(".lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(StoreLock(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match folder.read_dir() {
        // A file among folders, such as the lock, or a folder that was never made.
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        entries => entries?.map(|entry| entry.map(|entry| entry.path())).collect(),
    }
}

fn newest_first(paths: Vec<PathBuf>) -> io::Result<Vec<PathBuf>> {
    let mut dated = Vec::new();
    for path in paths.into_iter().filter(|path| !is_unfinished(path)) {
        dated.push((path.metadata()?.modified()?, path));
    }
    dated.sort();
    Ok(dated.into_iter().rev().map(|(_, path)| path).collect())
}

fn forget_packages(data_dir: &Path, needed: &BTreeSet<String>) -> io::Result<()> {
    let mut paths = list(&packages_dir(data_dir))?;
    paths.retain(|path| !is_unfinished(path) && name_of(path) != CACHE);
    let names: BTreeSet<String> = paths.iter().map(|path| name_of(path)).collect();
    let mut failed = Vec::new();
    for path in paths {
        // `python-12ab` and its files `.python-12ab.lock` and `.python-12ab.log`.
        let name = name_of(&path);
        let set = name.trim_start_matches('.').split('.').next().unwrap_or_default();
        if needed.contains(set) {
            continue;
        }
        // What has no folder was never installed.
        match name.ends_with(".log") && !names.contains(set) {
            true => failed.push(path),
            false => copy::remove(&path)?,
        }
    }
    newest_first(failed)?.iter().skip(LOGS_KEPT).try_for_each(|log| copy::remove(log))
}

fn is_unfinished(path: &Path) -> bool {
    name_of(path).starts_with(UNFINISHED)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_ends_although_a_forked_process_still_has_the_file() {
        let data_dir = tempfile::tempdir().expect("a directory");
        let function: FunctionName = "hello".parse().expect("a name");
        let lock = lock_shared(data_dir.path(), &function).expect("locked");
        // What a fork makes: another descriptor of the same open file.
        let _forked = lock.0.try_clone().expect("a copy");
        assert!(lock_alone(data_dir.path()).expect("tried").is_none());
        drop(lock);
        assert!(lock_alone(data_dir.path()).expect("tried").is_some());
    }
}
