//! The copy rule: which files of a folder are code.
//!
//! A folder is copied whole, except:
//!
//! - never, and not seen by a version: hidden folders, `node_modules`, `__pycache__`, `venv`, `*.egg-info`, the data
//!   directory, what editors leave behind, sockets, pipes and devices, links that lead nowhere;
//! - linked instead of copied, because they are data and not code: folders named `data` or `target` (unless they hold
//!   an `__init__.py`), logs, databases and the like by their names (`*.log`, `*.db`, `*.pid`, …), `kvern.toml`, of which
//!   a version has what matters to it, and files over 4 MiB whose name does not end as code does. The copy holds a link to the original, so that a model beside the handler is
//!   found; a change of it does not make a new version.
//!
//! A symbolic link inside the folder is copied as what it points to; one that leads out of the folder is refused.
//! At most 5,000 files and 64 MiB are copied, and at most 20,000 entries looked at, so that a handler in somebody's
//! home folder is an error with a hint and not a long wait.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::contract::PrepareError;

use super::{error, failed};

/// Most files in one copy.
pub(super) const FILES_MAX: usize = 5_000;
/// Most bytes in one copy.
pub(super) const BYTES_MAX: u64 = 64 << 20;
/// A larger file is data, unless its name says that it is code.
pub(super) const FILE_BYTES_MAX: u64 = 4 << 20;
/// Most entries looked at, copied or not.
const ENTRIES_MAX: usize = 20_000;
/// Deepest folder: what two links that point at each other run into.
const DEPTH_MAX: usize = 32;

/// Folders that tools fill, and that are made again elsewhere.
const TOOL_FOLDERS: [&str; 3] = ["node_modules", "__pycache__", "venv"];
/// Folders that functions and compilers write to.
const DATA_FOLDERS: [&str; 2] = ["data", "target"];
/// Endings of files that are code whatever their size: bundles, native modules and archives of classes.
const CODE_ENDINGS: [&str; 19] = [
    "py", "pyc", "pyz", "js", "mjs", "cjs", "ts", "node", "wasm", "so", "sh", "bash", "rb", "pl", "php", "lua", "jar",
    "r", "exe",
];
/// Endings of files that programs write while they run: a line in a log is no new version.
const OUTPUT_ENDINGS: [&str; 6] = ["log", "tmp", "pid", "db", "sqlite", "sqlite3"];
/// What it says of a function is in the version where it changes what runs: another `timeout` needs no new instance.
const MANIFEST: &str = "kvern.toml";
/// What SQLite puts beside a database.
const DATABASE_COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

const _: () = assert!(FILE_BYTES_MAX < BYTES_MAX && FILES_MAX < ENTRIES_MAX);

/// What a copy is made of, in the order of the paths.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Copied, and part of the version.
    pub(super) files: Vec<Entry>,
    /// Linked to the original, and no part of the version.
    pub(super) links: Vec<Entry>,
}

/// One file or folder of a plan.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// Where it goes, relative to the copy.
    pub(super) path: PathBuf,
    /// Where it is.
    pub(super) source: PathBuf,
}

/// Plans the copy of `folder`; `entry` is the name of the file that is copied whatever its size.
pub(super) fn plan(folder: &Path, entry: Option<&OsStr>, data_dir: &Path) -> Result<Plan, PrepareError> {
    let root = folder.canonicalize().map_err(|e| failed(format!("cannot read the folder {}", folder.display()), &e))?;
    let data_dir = data_dir.canonicalize().unwrap_or_else(|_| data_dir.to_path_buf());
    let mut walk = Walk { folder, entry, root, data_dir, plan: Plan::default(), bytes: 0, entries: 0 };
    // A list and not recursion: the depth of somebody's folders is not the depth of our stack.
    let mut folders = vec![(folder.to_path_buf(), PathBuf::new())];
    while let Some((source, path)) = folders.pop() {
        walk.folder(&source, &path, &mut folders)?;
    }
    walk.plan.files.sort();
    walk.plan.links.sort();
    Ok(walk.plan)
}

/// Whether the name of a file says that it is code.
#[must_use]
pub fn is_code_name(path: &Path) -> bool {
    let ending = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    CODE_ENDINGS.contains(&ending.to_ascii_lowercase().as_str())
}

/// Whether the name of a file says that a program writes it while it runs: then it is no part of a version.
#[must_use]
pub fn is_output_name(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let main = DATABASE_COMPANIONS.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
    let ending = Path::new(main).extension().and_then(OsStr::to_str).unwrap_or_default();
    // `out.log.1` is an older `out.log`.
    OUTPUT_ENDINGS.contains(&ending) || name.contains(".log.") || name == "nohup.out"
}

/// Whether a folder of this name is filled by tools, or hidden.
pub(super) fn is_tool_folder(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with('.') || name.ends_with(".egg-info") || TOOL_FOLDERS.contains(&name.as_ref())
}

// === impl Plan ===

impl Plan {
    /// The copy of one file, by its own name.
    pub(super) fn one_file(source: &Path) -> Self {
        let path = source.file_name().unwrap_or_default().into();
        Self { files: vec![Entry { path, source: source.into() }], links: Vec::new() }
    }

    /// Adds another plan in a folder of the copy; what is there already stays.
    pub(super) fn add_below(&mut self, folder: &Path, other: Self) {
        let below = |mut entry: Entry| {
            // Component by component, so that `./a` and `a` are one place.
            let parts = folder.components().filter(|part| *part != Component::CurDir);
            entry.path = parts.collect::<PathBuf>().join(&entry.path);
            entry
        };
        self.files.extend(other.files.into_iter().map(below));
        self.links.extend(other.links.into_iter().map(below));
        for entries in [&mut self.files, &mut self.links] {
            entries.sort();
            entries.dedup_by(|a, b| a.path == b.path);
        }
    }
}

// === impl Entry ===

impl Entry {
    /// A file in the folder that is copied to the top of the copy.
    pub(super) fn beside(folder: &Path, name: &str) -> Self {
        Self { path: name.into(), source: folder.join(name) }
    }
}

// === impl Walk ===

struct Walk<'a> {
    folder: &'a Path,
    entry: Option<&'a OsStr>,
    root: PathBuf,
    data_dir: PathBuf,
    plan: Plan,
    bytes: u64,
    entries: usize,
}

impl Walk<'_> {
    fn folder(
        &mut self,
        source: &Path,
        path: &Path,
        folders: &mut Vec<(PathBuf, PathBuf)>,
    ) -> Result<(), PrepareError> {
        let cannot_read = |e: io::Error| failed(format!("cannot read {}", source.display()), &e);
        let entries = match source.read_dir() {
            // It was there a moment ago: somebody is at work in the folder, and the next look will see the rest.
            Err(e) if e.kind() == io::ErrorKind::NotFound && !path.as_os_str().is_empty() => return Ok(()),
            entries => entries.map_err(cannot_read)?,
        };
        for entry in entries {
            let name = entry.map_err(cannot_read)?.file_name();
            self.entries += 1;
            if self.entries > ENTRIES_MAX {
                return Err(self.too_much(&format!("more than {ENTRIES_MAX} entries")));
            }
            let found = Entry { path: path.join(&name), source: source.join(&name) };
            let Some(metadata) = self.look(&name, &found)? else { continue };
            if metadata.is_dir() && self.is_code_folder(&name, &found) {
                if found.path.components().count() > DEPTH_MAX {
                    return Err(self.too_much(&format!("folders more than {DEPTH_MAX} deep")));
                }
                folders.push((found.source, found.path));
            } else if metadata.is_file() && self.is_code_file(&found, metadata.len()) {
                self.take(found, metadata.len())?;
            } else if metadata.is_file() || metadata.is_dir() {
                self.plan.links.push(found);
            }
        }
        Ok(())
    }

    /// What stands behind an entry; nothing for what is never copied.
    fn look(&self, name: &OsStr, found: &Entry) -> Result<Option<Metadata>, PrepareError> {
        let cannot_read = |e: io::Error| failed(format!("cannot read {}", found.source.display()), &e);
        let gone = |e: &io::Error| {
            e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
        };
        let metadata = match found.source.symlink_metadata() {
            Err(e) if gone(&e) => return Ok(None),
            metadata => metadata.map_err(cannot_read)?,
        };
        if is_left_by_an_editor(name) || (!metadata.is_file() && is_tool_folder(name)) {
            return Ok(None);
        }
        if !metadata.is_symlink() {
            let is_data_dir = metadata.is_dir() && found.source.canonicalize().is_ok_and(|real| real == self.data_dir);
            return Ok((!is_data_dir).then_some(metadata));
        }
        let target = match found.source.canonicalize() {
            Err(e) if gone(&e) => return Ok(None),
            target => target.map_err(cannot_read)?,
        };
        self.check_link(found, &target)?;
        target.metadata().map(Some).map_err(cannot_read)
    }

    fn check_link(&self, found: &Entry, target: &Path) -> Result<(), PrepareError> {
        let (link, folder) = (found.source.display(), self.folder.display());
        if !target.starts_with(&self.root) {
            return Err(error(format!(
                "{link} is a link to {}, outside of the function's folder {folder}: a version holds only what is in \
                 that folder. Copy what it points to into the folder, or install it as a requirement",
                target.display()
            )));
        }
        let above = found.source.parent().and_then(|parent| parent.canonicalize().ok());
        if above.is_some_and(|above| above.starts_with(target)) {
            return Err(error(format!("{link} is a link to a folder that it is in itself: remove the link")));
        }
        Ok(())
    }

    fn is_code_folder(&self, name: &OsStr, found: &Entry) -> bool {
        let is_data = DATA_FOLDERS.iter().any(|folder| name == *folder);
        !is_data || found.source.join("__init__.py").is_file()
    }

    fn is_code_file(&self, found: &Entry, len: u64) -> bool {
        let is_small = len <= FILE_BYTES_MAX && !is_output_name(&found.path) && !found.path.ends_with(MANIFEST);
        is_small || is_code_name(&found.path) || self.entry == Some(found.path.as_os_str())
    }

    fn take(&mut self, found: Entry, len: u64) -> Result<(), PrepareError> {
        self.bytes = self.bytes.saturating_add(len);
        self.plan.files.push(found);
        if self.plan.files.len() > FILES_MAX {
            return Err(self.too_much(&format!("more than {FILES_MAX} files")));
        }
        if self.bytes > BYTES_MAX {
            return Err(self.too_much(&format!("more than {} MiB", BYTES_MAX >> 20)));
        }
        Ok(())
    }

    fn too_much(&self, what: &str) -> PrepareError {
        error(format!(
            "the folder {} holds {what}, and all of it would be copied with the function. Put the function's files \
             into a folder of their own, or move what is not code into `data/` (folders named data and target, hidden \
             folders, node_modules, venv and files over {} MiB are not copied)",
            self.folder.display(),
            FILE_BYTES_MAX >> 20
        ))
    }
}

// === helpers ===

/// Files that come and go while somebody edits: they would make a version per key press.
fn is_left_by_an_editor(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let is_swap = name.starts_with('.') && [".swp", ".swo", ".swx"].iter().any(|ending| name.ends_with(ending));
    // vim tries with a file of this number whether it may write to the folder.
    is_swap || name.starts_with(".#") || name.ends_with('~') || name == "4913" || name == ".DS_Store"
}
