//! A disk of a test's own, which it may break: a file system in a file, mounted over a loop device.
//!
//! What is made here is undone when it is dropped, also when the test fails: a frozen file system is thawed first, then
//! unmounted. A server on it must be gone by then, so declare the disk before the server, and a [`Frozen`] after both.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::needs;
use crate::wait::until;

/// Above what submits need free (64 MiB), two reserves and the log of XFS. The file is sparse.
const IMAGE_BYTES: u64 = 512 << 20;

/// Which file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// ext4 that turns read-only when its journal fails.
    Ext4,
    /// XFS.
    Xfs,
}

/// A mounted file system of its own.
#[derive(Debug)]
pub struct Disk {
    kind: Kind,
    /// Holds the image, and the folder that it is mounted at.
    folder: TempDir,
    /// A file system in memory that holds the image instead, unmounted after the image's own.
    below: Option<Mounted>,
}

/// A folder with something mounted at it, unmounted when dropped.
#[derive(Debug)]
struct Mounted(PathBuf);

/// A file system that answers no write until this is dropped.
#[derive(Debug)]
pub struct Frozen<'a>(&'a Disk);

// === impl Disk ===

impl Disk {
    /// Makes one; none where the machine does not let us, which has been said.
    #[must_use]
    pub fn make(kind: Kind) -> Option<Self> {
        Self::make_on(kind, None)
    }

    /// One whose image lies on a file system in memory of so many MiB, which can be filled under it.
    #[must_use]
    pub fn make_over_memory(kind: Kind, below_mib: u32) -> Option<Self> {
        Self::make_on(kind, Some(below_mib))
    }

    fn make_on(kind: Kind, below_mib: Option<u32>) -> Option<Self> {
        if !needs::root() || !needs::programs(&["losetup", "fsfreeze", "filefrag", "xfs_io", "mkfs.xfs", "mkfs.ext4"]) {
            return None;
        }
        let folder = tempfile::Builder::new().prefix("kvern-e2e-disk-").tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("disk")).expect("a folder to mount at");
        std::fs::create_dir(folder.path().join("below")).expect("a folder for the image");
        let mut disk = Self { kind, folder, below: None };
        if let Some(mib) = below_mib {
            let below = disk.below();
            let is_mounted = try_run("mount", &["-t", "tmpfs", "-o", &format!("size={mib}m"), "kvern-e2e", &below]);
            if !needs::is_given("the right to mount", is_mounted) {
                return None;
            }
            disk.below = Some(Mounted(below.into()));
        }
        let image = std::fs::File::create_new(disk.image()).expect("an image");
        image.set_len(IMAGE_BYTES).expect("a size");
        let image = disk.image().display().to_string();
        match kind {
            Kind::Ext4 => run("mkfs.ext4", &["-q", "-F", "-m0", "-E", EXT4_OPTIONS, &image]),
            Kind::Xfs => run("mkfs.xfs", &["-q", "-K", &image]),
        }
        needs::is_given("the right to mount a loop device", disk.try_mount()).then_some(disk)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// A data directory on it.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// The file that its bytes are in.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.folder.path().join("below/image")
    }

    /// The folder of the image, as an argument.
    #[must_use]
    pub fn below(&self) -> String {
        self.folder.path().join("below").display().to_string()
    }

    /// Mounts it, after [`Disk::unmount`]: the journal is replayed.
    ///
    /// # Panics
    /// If it cannot be mounted.
    pub fn mount(&self) {
        assert!(self.try_mount(), "the file system cannot be mounted again");
    }

    /// Unmounts it once nobody uses it any more.
    pub fn unmount(&self) {
        until("the file system to be free", || try_run("umount", &[&self.argument()]).then_some(()));
    }

    /// Cuts the power, as far as the file system can tell: what it has not written is lost, and nothing more is written.
    pub fn cut_power(&self) {
        run("xfs_io", &["-x", "-c", "shutdown", &self.argument()]);
    }

    /// Stops all writes. They wait until what this gives is dropped.
    #[must_use]
    pub fn freeze(&self) -> Frozen<'_> {
        run("fsfreeze", &["--freeze", &self.argument()]);
        Frozen(self)
    }

    /// Makes it read-only under whoever writes.
    pub fn turn_read_only(&self) {
        // What an ext4 does by itself when its journal fails, and what no open file of a writer can stop.
        run("mount", &["-o", "remount,abort", &self.argument()]);
    }

    /// Where in the image the blocks of a file lie: first byte in the file, first byte in the image, bytes.
    ///
    /// # Panics
    /// If the file has none.
    #[must_use]
    pub fn extents(file: &Path) -> Vec<(u64, u64, u64)> {
        let output = Command::new("filefrag").args(["-b4096", "-v"]).arg(file).output().expect("filefrag runs");
        let text = String::from_utf8(output.stdout).expect("text");
        let extents: Vec<_> = text.lines().filter_map(extent).collect();
        assert!(!extents.is_empty(), "no extents: {text}");
        extents
    }

    fn try_mount(&self) -> bool {
        let options = match self.kind {
            Kind::Ext4 => "loop,errors=remount-ro",
            Kind::Xfs => "loop",
        };
        try_run("mount", &["-o", options, &self.image().display().to_string(), &self.argument()])
    }

    fn argument(&self) -> String {
        self.path().display().to_string()
    }
}

/// Nothing is left to be written later, so that a mounted image is quiet.
const EXT4_OPTIONS: &str = "lazy_journal_init=0,lazy_itable_init=0,nodiscard";

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Mounted(self.path()));
        drop(self.below.take());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Whoever still uses it, as after a failed test, keeps it until it ends.
        let _ = Command::new("umount").args(["--lazy", "--quiet"]).arg(&self.0).stderr(Stdio::null()).status();
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let _ = try_run("fsfreeze", &["--unfreeze", &self.0.argument()]);
    }
}

/// Runs a program that must succeed.
///
/// # Panics
/// If it does not.
pub fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().expect("the program runs");
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn try_run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// From a line like `   0:        0..     511:      34816..     35327:    512:   last,eof`, in blocks of 4 KiB.
fn extent(line: &str) -> Option<(u64, u64, u64)> {
    let fields: Vec<&str> = line.split(':').map(str::trim).collect();
    let begin = |range: &str| range.split_once("..")?.0.trim().parse::<u64>().ok();
    let blocks: u64 = fields.get(3)?.parse().ok()?;
    Some((begin(fields.get(1)?)? << 12, begin(fields.get(2)?)? << 12, blocks << 12))
}

/// Takes all of the room of a file system, to the last byte; gives the file that has it. May be called again, for what
/// became free.
///
/// # Panics
/// If no file can be made.
#[must_use]
pub fn fill(folder: &Path) -> PathBuf {
    use std::io::Write;
    let path = folder.join("filler");
    let mut file = std::fs::File::options().create(true).append(true).open(&path).expect("a file");
    let piece = vec![0; 1 << 20];
    while file.write_all(&piece).is_ok() {}
    while file.write_all(&piece[..1]).is_ok() {}
    path
}
