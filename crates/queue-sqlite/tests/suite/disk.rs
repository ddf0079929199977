//! A small file system of its own, to be filled. It needs root; elsewhere it is skipped, loudly.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// A small file system, gone at the end.
pub(crate) struct SmallDisk(TempDir);

impl SmallDisk {
    pub(crate) fn mount() -> Option<Self> {
        Self::mount_of(16)
    }

    #[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
    pub(crate) fn mount_of(mib: u32) -> Option<Self> {
        let dir = TempDir::new().expect("a directory");
        let size = format!("size={mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(dir.path()).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(dir));
        }
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI must be able to mount a tmpfs");
        eprintln!("SKIPPED: this test mounts a tmpfs, which needs root");
        None
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Makes it larger or smaller, but not smaller than what it holds.
    pub(crate) fn resize(&self, mib: u32) {
        let size = format!("remount,size={mib}m");
        let resized = Command::new("mount").args(["-o", &size]).arg(self.path()).status();
        assert!(resized.is_ok_and(|status| status.success()), "who may mount may mount again");
    }

    /// Takes all the room that is left.
    pub(crate) fn fill(&self) {
        let ballast = std::fs::File::create(self.0.path().join("ballast")).expect("a file");
        let mut ballast = std::io::BufWriter::with_capacity(4096, ballast);
        while std::io::Write::write_all(&mut ballast, &[1; 4096]).is_ok() {}
        drop(ballast.into_parts());
    }

    pub(crate) fn make_room(&self) {
        std::fs::remove_file(self.0.path().join("ballast")).expect("removes");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}
