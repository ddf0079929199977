//! Reading the files of a plan: to hash them, and to copy them while they are hashed.
//!
//! The name of a version is the hash of the bytes that were copied, not of those that were there before: a file that
//! is saved in between makes another version, never a wrong one.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::contract::PrepareError;

use super::failed;
use super::rule::{Entry, Plan};
use super::version::Content;

/// Hashes the files of a plan.
pub(super) fn hash(plan: &Plan) -> Result<Vec<Content>, PrepareError> {
    each(plan, |entry| read(entry, &mut File::open(&entry.source)?, &mut io::sink()))
}

/// Copies a plan into the empty folder `to` and hashes what was copied. The files of the copy are read-only; its
/// folders are not, so that Python keeps its byte code there and `rm -r` removes a data directory.
pub(super) fn copy(plan: &Plan, to: &Path) -> Result<Vec<Content>, PrepareError> {
    let contents = each(plan, |entry| copy_file(entry, to))?;
    for link in &plan.links {
        let made = make_parents(&to.join(&link.path))
            .and_then(|()| std::path::absolute(&link.source))
            .and_then(|source| std::os::unix::fs::symlink(source, to.join(&link.path)));
        made.map_err(|e| failed(format!("cannot link {} into {}", link.source.display(), to.display()), &e))?;
    }
    Ok(contents)
}

/// Removes a file or folder, if it is there, without following links.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    }
}

// === helpers ===

fn each(plan: &Plan, read: impl Fn(&Entry) -> io::Result<Content>) -> Result<Vec<Content>, PrepareError> {
    let mut contents = Vec::with_capacity(plan.files.len());
    for entry in &plan.files {
        match read(entry) {
            // Removed since the folder was listed; a save that replaces the file is seen by the next look.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            content => {
                contents.push(content.map_err(|e| failed(format!("cannot copy {}", entry.source.display()), &e))?);
            }
        }
    }
    Ok(contents)
}

fn copy_file(entry: &Entry, to: &Path) -> io::Result<Content> {
    let mut source = File::open(&entry.source)?;
    let path = to.join(&entry.path);
    make_parents(&path)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    let content = read(entry, &mut source, &mut file)?;
    // The original's bits without write: what only the owner could read stays so.
    let mode = source.metadata()?.permissions().mode() & 0o555;
    file.set_permissions(Permissions::from_mode(mode | 0o400))?;
    Ok(content)
}

fn read(entry: &Entry, file: &mut File, to: &mut dyn Write) -> io::Result<Content> {
    let is_executable = file.metadata()?.permissions().mode() & 0o111 != 0;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let len = file.read(&mut buffer)?;
        if len == 0 {
            break;
        }
        hasher.update(&buffer[..len]);
        to.write_all(&buffer[..len])?;
    }
    Ok(Content { path: entry.path.clone(), is_executable, hash: hasher.finalize().into() })
}

fn make_parents(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| DirBuilder::new().recursive(true).create(parent))
}
