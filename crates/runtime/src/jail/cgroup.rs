//! A cgroup for one function process, version 1 or 2, where this process may make one.
//!
//! Version 2 allows limits only below a cgroup that holds no process itself. A server that was given a cgroup of its own
//! (systemd's `Delegate=yes`, a container) therefore moves into a leaf at start: see [`make_room`].

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal};

/// The leaf that the server moves into on version 2.
const SERVER_LEAF: &str = "kvern-server";
/// What the names of our cgroups begin with; the jail's process id follows.
const PREFIX: &str = "kvern-jail-";

/// A cgroup with a memory limit, and where this process was before.
#[derive(Debug)]
pub(super) struct Cgroup {
    folder: PathBuf,
    before: PathBuf,
    is_v2: bool,
}

/// Where this process stands in the tree of memory cgroups.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    folder: PathBuf,
    is_v2: bool,
}

// === impl Cgroup ===

impl Cgroup {
    /// Makes a cgroup with this limit and moves this process into it; none where that is not permitted.
    pub(super) fn enter(bytes: u64) -> Option<Self> {
        let place = Place::of_this_process()?;
        let parent = if place.is_v2 && place.folder.ends_with(SERVER_LEAF) {
            place.folder.parent()?.to_path_buf()
        } else {
            place.folder.clone()
        };
        let folder = parent.join(format!("{PREFIX}{}", rustix::process::getpid().as_raw_nonzero()));
        fs::create_dir(&folder).ok()?;
        let cgroup = Self { folder, before: place.folder, is_v2: place.is_v2 };
        if cgroup.set(bytes).is_none() {
            cgroup.leave();
            cgroup.remove();
            return None;
        }
        Some(cgroup)
    }

    fn set(&self, bytes: u64) -> Option<()> {
        let bytes = bytes.to_string();
        if self.is_v2 {
            fs::write(self.folder.join("memory.max"), bytes).ok()?;
            _ = fs::write(self.folder.join("memory.swap.max"), "0");
        } else {
            fs::write(self.folder.join("memory.limit_in_bytes"), &bytes).ok()?;
            _ = fs::write(self.folder.join("memory.memsw.limit_in_bytes"), &bytes);
        }
        fs::write(self.folder.join("cgroup.procs"), "0").ok()
    }

    /// Moves this process back to where it was.
    pub(super) fn leave(&self) {
        _ = fs::write(self.before.join("cgroup.procs"), "0");
    }

    /// Kills every process in it.
    pub(super) fn kill(&self) {
        kill(&self.folder);
    }

    /// Whether the kernel killed a process in it for memory.
    pub(super) fn killed_for_memory(&self) -> bool {
        let file = if self.is_v2 { "memory.events" } else { "memory.oom_control" };
        oom_kills(&fs::read_to_string(self.folder.join(file)).unwrap_or_default()) > 0
    }

    pub(super) fn remove(self) {
        _ = fs::remove_dir(self.folder);
    }
}

// === impl Place ===

impl Place {
    fn of_this_process() -> Option<Self> {
        let cgroups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        Self::parse(&cgroups, &mounts)
    }

    /// From `/proc/self/cgroup` and `/proc/self/mounts`. The memory controller is in version 1 if a line names it there.
    fn parse(cgroups: &str, mounts: &str) -> Option<Self> {
        let mut v2 = None;
        for line in cgroups.lines() {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            if controllers.split(',').any(|controller| controller == "memory") {
                let mount =
                    mount(mounts, |kind, options| kind == "cgroup" && options.split(',').any(|o| o == "memory"));
                return Some(Self { folder: under(mount?, path), is_v2: false });
            }
            if controllers.is_empty() {
                v2 = Some(path);
            }
        }
        let mount = mount(mounts, |kind, _| kind == "cgroup2");
        Some(Self { folder: under(mount?, v2?), is_v2: true })
    }
}

// === at the server's start ===

/// Moves the server into a leaf, where it has a version 2 cgroup of its own that it may write to, so that functions can
/// get limits beside it. Says whether functions get cgroups with a memory limit.
pub(crate) fn make_room() -> bool {
    let Some(place) = Place::of_this_process() else { return false };
    if !place.is_v2 {
        return fs::metadata(place.folder.join("memory.limit_in_bytes")).is_ok();
    }
    let folder = if place.folder.ends_with(SERVER_LEAF) { place.folder.parent() } else { Some(place.folder.as_path()) };
    let Some(folder) = folder else { return false };
    let control = folder.join("cgroup.subtree_control");
    if fs::write(&control, "+memory").is_ok() {
        return true;
    }
    let members = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let is_ours_alone = members.lines().eq([rustix::process::getpid().as_raw_nonzero().to_string().as_str()]);
    if !is_ours_alone {
        return false;
    }
    let leaf = folder.join(SERVER_LEAF);
    _ = fs::create_dir(&leaf);
    fs::write(leaf.join("cgroup.procs"), "0").is_ok() && fs::write(&control, "+memory").is_ok()
}

/// Kills and removes the cgroup of a jail that could not do so itself.
pub(crate) fn remove_leftover(jail: &str) {
    let Some(place) = Place::of_this_process() else { return };
    let name = format!("{PREFIX}{jail}");
    for parent in [Some(place.folder.as_path()), place.folder.parent()].into_iter().flatten() {
        let folder = parent.join(&name);
        if folder.is_dir() {
            kill(&folder);
            _ = fs::remove_dir(folder);
        }
    }
}

// === helpers ===

fn kill(folder: &Path) {
    if fs::write(folder.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    let members = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    for pid in members.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)) {
        _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

fn oom_kills(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

/// The first mount whose type and options are wanted. Blanks in its path stand as `\040` and do not occur here.
fn mount(mounts: &str, wanted: impl Fn(&str, &str) -> bool) -> Option<&str> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
        wanted(kind, options).then_some(path)
    })
}

fn under(mount: &str, path: &str) -> PathBuf {
    Path::new(mount).join(path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS_V1: &str = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                             cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n\
                             cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";

    #[test]
    fn memory_in_version_1_wins() {
        let place = Place::parse("5:cpu:/\n4:memory:/a/b\n0::/\n", MOUNTS_V1);
        assert_eq!(place, Some(Place { folder: "/sys/fs/cgroup/memory/a/b".into(), is_v2: false }));
    }

    #[test]
    fn a_modern_system_has_only_version_2() {
        let place = Place::parse("0::/system.slice/kvern.service\n", "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n");
        let folder = PathBuf::from("/sys/fs/cgroup/system.slice/kvern.service");
        assert_eq!(place, Some(Place { folder, is_v2: true }));
        assert_eq!(Place::parse("0::/\n", "proc /proc proc rw 0 0\n"), None);
    }

    #[test]
    fn kills_for_memory_are_counted_apart() {
        assert_eq!(oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), 2);
        assert_eq!(oom_kills("low 0\nhigh 0\nmax 5\noom 1\noom_kill 0\n"), 0);
        assert_eq!(oom_kills(""), 0);
    }
}
