//! Manifests and functions that a test writes.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

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
