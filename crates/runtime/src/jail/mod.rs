//! `kvern __jail`: the parent of every function process, and of every installer.
//!
//! It is our own binary, executed again, because what must happen between fork and exec (limits, a session, the private
//! descriptor) needs unsafe code in a threaded server and none in a small process with one thread. The jail
//!
//! - is the subreaper of all that the function starts, so that a child which detaches itself (`setsid`, double fork) is
//!   still found;
//! - holds one end of the [`leash`]: when the server asks, or dies, everything is killed;
//! - sets the limits, and tells how the function ended;
//! - cleans up: the function's temporary folder, the cgroup, its own record.
//!
//! It never reads or writes what the function reads or writes. Read `run` first; `jailed` is the server's side.

pub(crate) mod cgroup;
pub(crate) mod jailed;
pub(crate) mod leash;
mod limit;
mod nice;
pub(crate) mod record;
pub(crate) mod task;
pub(crate) mod tree;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, WaitStatus};

use leash::{Ending, JailEnd, Order};
use limit::Limit;
use nice::Session;
use record::Record;
use task::Task;

/// The private descriptor's number, for the shim; the shim takes it out of the environment.
pub(crate) const DESCRIPTOR_VARIABLE: &str = "KVERN_FD";

/// Files that a function may have open; it may raise this itself, up to what the server may have.
const OPEN_FILES: u64 = 1024;
/// How often detached grandchildren that have ended are buried while the function lives.
const BURY_EVERY: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };
/// How often the session's niceness is tried again, as long as others are set at the same time.
const NICE_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// How often the function's death is looked for where the kernel has no pidfd (before 5.3).
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// The whole life of a jail. The binary calls it before anything else when its first argument is `__jail`.
///
/// The further arguments are the server's; see `task.rs`. Not for people.
#[must_use]
pub fn jail_main() -> ExitCode {
    let mut leash = JailEnd::new();
    match Task::parse(std::env::args_os().skip(2)).and_then(|task| run(&task, &mut leash)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            leash.cannot(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(task: &Task, leash: &mut JailEnd) -> io::Result<()> {
    // What the server itself was started with (a log, a terminal, a socket) is not for functions.
    close_fds::CloseFdsBuilder::new().cloexecfrom(3);
    // A session of its own: what a person types into the server's terminal is not for functions.
    let mut session = Session::nicer_than_ours();
    rustix::process::setsid()?;
    session.set();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // The server does without them, and this is inherited.
    _ = rustix::thread::disable_transparent_huge_pages(false);
    // The server raised its own: for a program that uses select(2), more than this is a trap (as systemd has it).
    let files = rustix::process::getrlimit(Resource::Nofile);
    let current = files.maximum.map_or(OPEN_FILES, |most| most.min(OPEN_FILES));
    _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(current), ..files });
    let Some(private) = leash.receive_descriptor()? else {
        return Ok(()); // The server has gone already.
    };
    // On a full disk neither record nor folder can be made, and running jobs shall finish all the same.
    let mut record = Record::write(&task.records).ok();
    _ = fs::create_dir_all(&task.scratch);
    let limit = Limit::enter(task);
    let spawned = spawn(task, private, limit.is_below_us());
    limit.leave(spawned.as_ref().ok().map(|main| main.pid));
    let result = spawned.and_then(|main| {
        _ = record.as_mut().map(|record| record.add(main.pid));
        leash.started(main.pid, limit.kind());
        let watched = watch(&main, leash, &mut session);
        limit.kill();
        tree::kill_all_children();
        leash.ended(Ending::new(watched?, limit.was_hit()));
        Ok(())
    });
    // The server was told first: it need not wait for the removal of files.
    limit.remove();
    _ = fs::remove_dir_all(&task.scratch);
    _ = record.map(Record::remove);
    result
}

struct Main {
    pid: Pid,
    pidfd: Option<OwnedFd>,
}

#[expect(clippy::needless_pass_by_value, reason = "dropping it closes our end once the child has its own")]
fn spawn(task: &Task, private: OwnedFd, must_fork: bool) -> io::Result<Main> {
    let mut command = Command::new(&task.argv[0]);
    command.args(&task.argv[1..]).process_group(0);
    if task.is_handler {
        // It came without close-on-exec, and this process has one thread: the number reaches this child and no other.
        command.env(DESCRIPTOR_VARIABLE, OsString::from(private.as_raw_fd().to_string())).stdin(Stdio::null());
    } else {
        command.stdin(Stdio::from(private.try_clone()?));
        rustix::io::fcntl_setfd(&private, rustix::io::FdFlags::CLOEXEC)?;
    }
    if must_fork {
        // Changes nothing but the way: with a group to be set, the standard library forks (its `posix_spawn` cannot set
        // one).
        command.gid(rustix::process::getegid().as_raw());
    }
    let child = command.spawn()?;
    let pid = Pid::from_child(&child);
    nice::lower(pid);
    // When the whole machine runs out of memory, a function goes before the server does.
    _ = fs::write(format!("/proc/{}/oom_score_adj", pid.as_raw_nonzero()), "500");
    Ok(Main { pid, pidfd: rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok() })
}

/// Carries out the server's orders until the function's process has ended.
fn watch(main: &Main, leash: &JailEnd, session: &mut Session) -> io::Result<WaitStatus> {
    let mut server_is_there = true;
    loop {
        if let Some(status) = tree::bury(main.pid)? {
            return Ok(status);
        }
        session.set();
        let patience = match main.pidfd {
            Some(_) if session.is_to_be_set() => NICE_EVERY,
            Some(_) => BURY_EVERY,
            None => LOOK_EVERY,
        };
        match next_order(main, leash, server_is_there, patience)? {
            None => {}
            Some(Order::Terminate) => _ = rustix::process::kill_process_group(main.pid, Signal::TERM),
            Some(order @ (Order::Kill | Order::ServerGone)) => {
                server_is_there &= order == Order::Kill;
                _ = rustix::process::kill_process_group(main.pid, Signal::KILL);
                _ = rustix::process::kill_process(main.pid, Signal::KILL);
            }
        }
    }
}

fn next_order(main: &Main, leash: &JailEnd, server_is_there: bool, patience: Timespec) -> io::Result<Option<Order>> {
    let leash_fd = leash.fd();
    let mut fds = Vec::with_capacity(2);
    fds.extend(server_is_there.then(|| PollFd::new(&leash_fd, PollFlags::IN)));
    let leash_len = fds.len();
    fds.extend(main.pidfd.as_ref().map(|pidfd| PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)));
    match rustix::event::poll(&mut fds, Some(&patience)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let has_order = fds[..leash_len].iter().any(|fd| !fd.revents().is_empty());
    if has_order { leash.order().map(Some) } else { Ok(None) }
}
