//! Whose a staged file is: nobody's, and then it goes with the last payload that names it, or the queue's.

use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Removes the file of a staged payload unless a queue keeps it. Copies share the file.
#[derive(Debug, Clone, Default)]
pub struct Staged(Option<Arc<Whose>>);

#[derive(Debug)]
enum Whose {
    Ours(File),
    /// The file belongs to another process, which is told by the end of this.
    Elsewhere(Box<dyn Any + Send + Sync>),
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    is_kept: AtomicBool,
}

/// Removes a file that nobody needs any more, on a thread that may wait for the disk: a worker of the runtime may not. What
/// cannot be removed now goes at the next start.
pub fn remove_soon(path: PathBuf) {
    let remove = move || _ = std::fs::remove_file(path);
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(remove)),
        Err(_) => remove(),
    }
}

// === impl Staged ===

impl Staged {
    /// Of a file that is nobody's yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self(Some(Arc::new(Whose::Ours(File { path, is_kept: AtomicBool::new(false) }))))
    }

    /// Of a file that another process looks after. `claim` is dropped with the last payload that names the file, whether a
    /// queue keeps it or not.
    #[must_use]
    pub fn elsewhere(claim: impl Any + Send + Sync) -> Self {
        Self(Some(Arc::new(Whose::Elsewhere(Box::new(claim)))))
    }

    /// The claim on a file that another process looks after.
    #[must_use]
    pub fn claim<T: Any>(&self) -> Option<&T> {
        match self.0.as_deref()? {
            Whose::Elsewhere(claim) => claim.downcast_ref(),
            Whose::Ours(_) => None,
        }
    }

    /// A row that names the file is about to be written: the queue removes it from now on.
    pub fn keep(&self) {
        self.set_kept(true);
    }

    /// The row was not written.
    pub fn give_back(&self) {
        self.set_kept(false);
    }

    fn set_kept(&self, is_kept: bool) {
        if let Some(Whose::Ours(file)) = self.0.as_deref() {
            file.is_kept.store(is_kept, Ordering::Relaxed);
        }
    }
}

/// It belongs to no value: a payload is the same before and after it is stored.
impl PartialEq for Staged {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Staged {}

// === impl File ===

impl Drop for File {
    fn drop(&mut self) {
        if !self.is_kept.load(Ordering::Relaxed) {
            remove_soon(std::mem::take(&mut self.path));
        }
    }
}
