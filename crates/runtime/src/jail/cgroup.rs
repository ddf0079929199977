//! A cgroup for one function process, version 1 or 2, where this process may make one.
//!
//! Version 2 allows limits only below a cgroup that holds no process itself. A server that was given a cgroup of its own
//! (systemd's `Delegate=yes`, a container) therefore moves into a leaf at start: see [`make_room`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::event::Timespec;
use rustix::process::{Pid, Signal};

/// The leaf that the server moves into on version 2.
const SERVER_LEAF: &str = "kvern-server";
/// What the names of our cgroups begin with; the jail's process id follows.
const PREFIX: &str = "kvern-jail-";
/// So often a leftover is killed, a [`ROUND`] apart.
const KILL_ROUNDS: usize = 50;
const ROUND: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// The cgroup of a function process; none of its parts where this process may not make one.
#[derive(Debug)]
pub(super) struct Cgroup {
    memory: Option<Group>,
    processes: Option<Group>,
}

/// A cgroup under one controller, and where this process was before. In version 2 both controllers have the same.
#[derive(Debug)]
struct Group {
    folder: PathBuf,
    before: PathBuf,
    is_v2: bool,
}

/// What a cgroup limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Controller {
    Memory,
    Processes,
}

/// Where this process stands in the tree of cgroups under one controller.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    folder: PathBuf,
    is_v2: bool,
}

// === impl Cgroup ===

impl Cgroup {
    /// Makes a cgroup with these limits and moves this process into it, as far as that is permitted.
    pub(super) fn enter(memory_bytes: Option<u64>, processes: Option<u32>) -> Self {
        // Both are made before either is entered: from inside, the place would be another.
        let memory = memory_bytes.and_then(|bytes| Group::make(Controller::Memory, bytes));
        let processes = processes.and_then(|most| Group::make(Controller::Processes, most.into()));
        Self { memory: memory.and_then(Group::enter), processes: processes.and_then(Group::enter) }
    }

    /// Whether it limits memory.
    pub(super) fn limits_memory(&self) -> bool {
        self.memory.is_some()
    }

    /// Moves this process back to where it was.
    pub(super) fn leave(&self) {
        for group in self.groups() {
            _ = fs::write(group.before.join("cgroup.procs"), "0");
        }
    }

    /// Kills every process in it. What forks faster than it is killed cannot fork any more.
    pub(super) fn kill(&self) {
        if let Some(group) = &self.processes {
            _ = Controller::Processes.limit(group, 0);
        }
        for group in self.groups() {
            kill(&group.folder);
        }
    }

    /// Whether the kernel killed a process in it for memory.
    pub(super) fn killed_for_memory(&self) -> bool {
        let Some(group) = &self.memory else { return false };
        let file = if group.is_v2 { "memory.events" } else { "memory.oom_control" };
        oom_kills(&fs::read_to_string(group.folder.join(file)).unwrap_or_default()) > 0
    }

    pub(super) fn remove(self) {
        for group in self.groups() {
            _ = fs::remove_dir(&group.folder);
        }
    }

    fn groups(&self) -> impl Iterator<Item = &Group> {
        self.memory.iter().chain(&self.processes)
    }
}

// === impl Group ===

impl Group {
    fn make(controller: Controller, most: u64) -> Option<Self> {
        let Place { folder: before, is_v2 } = Place::of_this_process(controller)?;
        let parent = if is_v2 && before.ends_with(SERVER_LEAF) { before.parent()? } else { &before };
        let folder = parent.join(format!("{PREFIX}{}", rustix::process::getpid().as_raw_nonzero()));
        match fs::create_dir(&folder) {
            Ok(()) => {}
            // The other controller's, in version 2.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(_) => return None,
        }
        let group = Self { folder, before, is_v2 };
        if controller.limit(&group, most).is_err() {
            _ = fs::remove_dir(&group.folder);
            return None;
        }
        Some(group)
    }

    fn enter(self) -> Option<Self> {
        if fs::write(self.folder.join("cgroup.procs"), "0").is_err() {
            _ = fs::remove_dir(&self.folder);
            return None;
        }
        Some(self)
    }
}

// === impl Controller ===

impl Controller {
    const ALL: [Self; 2] = [Self::Memory, Self::Processes];

    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Processes => "pids",
        }
    }

    fn limit(self, group: &Group, most: u64) -> io::Result<()> {
        let most = most.to_string();
        let set = |file: &str, text: &str| fs::write(group.folder.join(file), text);
        match (self, group.is_v2) {
            (Self::Memory, true) => {
                set("memory.max", &most)?;
                // Without swap there are no such files.
                _ = set("memory.swap.max", "0");
            }
            (Self::Memory, false) => {
                set("memory.limit_in_bytes", &most)?;
                _ = set("memory.memsw.limit_in_bytes", &most);
            }
            (Self::Processes, _) => set("pids.max", &most)?,
        }
        Ok(())
    }
}

// === impl Place ===

impl Place {
    fn of_this_process(controller: Controller) -> Option<Self> {
        let cgroups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        Self::parse(controller, &cgroups, &mounts)
    }

    /// From `/proc/self/cgroup` and `/proc/self/mounts`. The controller is in version 1 if a line names it there.
    fn parse(controller: Controller, cgroups: &str, mounts: &str) -> Option<Self> {
        let mut v2 = None;
        let names_it = |list: &str| list.split(',').any(|name| name == controller.name());
        for line in cgroups.lines() {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            if names_it(controllers) {
                let mount = mount(mounts, |kind, options| kind == "cgroup" && names_it(options));
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
    let Some(place) = Place::of_this_process(Controller::Memory) else { return false };
    if !place.is_v2 {
        return fs::metadata(place.folder.join("memory.limit_in_bytes")).is_ok();
    }
    let folder = if place.folder.ends_with(SERVER_LEAF) { place.folder.parent() } else { Some(place.folder.as_path()) };
    let Some(folder) = folder else { return false };
    if share_controllers(folder) {
        return true;
    }
    let members = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let is_ours_alone = members.lines().eq([rustix::process::getpid().as_raw_nonzero().to_string().as_str()]);
    if !is_ours_alone {
        return false;
    }
    let leaf = folder.join(SERVER_LEAF);
    _ = fs::create_dir(&leaf);
    fs::write(leaf.join("cgroup.procs"), "0").is_ok() && share_controllers(folder)
}

/// Lets the children of a version 2 cgroup have limits; whether for memory. One after the other: a controller that is
/// missing would refuse both.
fn share_controllers(folder: &Path) -> bool {
    let control = folder.join("cgroup.subtree_control");
    let [memory, _] = Controller::ALL.map(|controller| fs::write(&control, format!("+{}", controller.name())).is_ok());
    memory
}

/// Kills and removes the cgroup of a jail that could not do so itself.
pub(crate) fn remove_leftover(jail: &str) {
    let name = format!("{PREFIX}{jail}");
    for place in Controller::ALL.into_iter().filter_map(Place::of_this_process) {
        for parent in [Some(place.folder.as_path()), place.folder.parent()].into_iter().flatten() {
            let folder = parent.join(&name);
            if folder.is_dir() {
                // What forks faster than it is killed cannot fork any more.
                _ = fs::write(folder.join("pids.max"), "0");
                kill_all(&folder);
                _ = fs::remove_dir(folder);
            }
        }
    }
}

// === helpers ===

/// Kills until nobody is left, or gives up on whom only the kernel can hold.
fn kill_all(folder: &Path) {
    for _ in 0..KILL_ROUNDS {
        kill(folder);
        if fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default().is_empty() {
            return;
        }
        _ = rustix::event::poll(&mut [], Some(&ROUND));
    }
}

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
        let place = Place::parse(Controller::Memory, "5:cpu:/\n4:memory:/a/b\n0::/\n", MOUNTS_V1);
        assert_eq!(place, Some(Place { folder: "/sys/fs/cgroup/memory/a/b".into(), is_v2: false }));
    }

    #[test]
    fn a_modern_system_has_only_version_2() {
        for controller in Controller::ALL {
            let mounts = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
            let place = Place::parse(controller, "0::/system.slice/kvern.service\n", mounts);
            let folder = PathBuf::from("/sys/fs/cgroup/system.slice/kvern.service");
            assert_eq!(place, Some(Place { folder, is_v2: true }));
            assert_eq!(Place::parse(controller, "0::/\n", "proc /proc proc rw 0 0\n"), None);
        }
    }

    #[test]
    fn each_controller_has_its_own_place_in_version_1() {
        let mounts = format!("{MOUNTS_V1}cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\n");
        let place = Place::parse(Controller::Processes, "8:pids:/\n4:memory:/a/b\n0::/\n", &mounts);
        assert_eq!(place, Some(Place { folder: "/sys/fs/cgroup/pids/".into(), is_v2: false }));
    }

    #[test]
    fn kills_for_memory_are_counted_apart() {
        assert_eq!(oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), 2);
        assert_eq!(oom_kills("low 0\nhigh 0\nmax 5\noom 1\noom_kill 0\n"), 0);
        assert_eq!(oom_kills(""), 0);
    }
}
