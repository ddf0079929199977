//! Manifests and functions that a test writes, and the repository's own.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Writes a file below a folder, executable if it begins with `#!`.
///
/// # Panics
/// If it cannot be written.
pub fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).expect("a folder for the file");
    }
    std::fs::write(&path, text).expect("the file is written");
    if text.starts_with("#!") {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("the file is executable");
    }
}

/// Copies the content of a folder into another, with its permissions.
///
/// # Panics
/// If something cannot be copied.
pub fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a folder to copy").flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        // What a run in the example's own folder left behind is not part of it.
        let is_ours = !matches!(entry.file_name().to_string_lossy().as_ref(), ".kvern" | "data" | "__pycache__");
        if path.is_dir() && is_ours {
            std::fs::create_dir_all(&target).expect("a folder");
            copy(&path, &target);
        } else if path.is_file() {
            std::fs::copy(&path, &target).expect("a copy");
        }
    }
}

/// A file or folder of the repository.
///
/// # Panics
/// If it is not there.
#[must_use]
pub fn of_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path).canonicalize().expect("it is in the repository")
}
