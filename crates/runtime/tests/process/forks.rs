//! Functions that start processes: some that are waited for, and more than any function needs. A test of the limit looks
//! first whether there is one: where no cgroup can be made there is none, and nothing is tried.

use std::time::Duration;

use kvern_core::{Door, Function, Outcome};
use kvern_runtime::conformance::Stage;

use crate::call;
use crate::support::{Bench, left, skip};

const MOST: u32 = 48;
/// Tireless: each of its processes forks for ever, so that a kill only makes room for the next; and each is a group of
/// its own, which no signal to a group reaches.
const BOMB: &str = "\
#!/usr/bin/env python3
import os, sys
if 'kvern-jail-' not in open('/proc/self/cgroup').read():
    sys.exit(3)
while True:
    try:
        os.fork() or os.setsid()
    except OSError:
        pass
";

/// A runtime that allows few processes; none where it cannot.
async fn bench(test: &str) -> Option<Bench> {
    let bench = Bench::with(|settings| settings.processes_max = MOST);
    let place = call(&bench, &bench.shell("cat /proc/self/cgroup"), "").await;
    let is_limited = place.lines().any(|line| line.contains("pids") && line.contains("kvern-jail-"))
        || place.lines().any(|line| line.starts_with("0::") && line.contains("kvern-jail-"));
    if !is_limited {
        skip(test, "no cgroup with a limit on processes may be made here");
    }
    is_limited.then_some(bench)
}

#[tokio::test]
async fn a_function_has_so_many_processes_and_no_more() {
    let Some(bench) = bench("a_function_has_so_many_processes_and_no_more").await else { return };
    let function = bench.python(
        "import os, time\ndef f():\n    for n in range(1000):\n        try:\n            pid = os.fork()\n        \
         except BlockingIOError:\n            return n\n        if pid == 0:\n            time.sleep(1000)\n",
        None,
    );
    // The process itself counts, and so do its threads.
    let children: u32 = call(&bench, &function, "{}").await.parse().expect("a number");
    assert!((MOST / 2..MOST).contains(&children), "{children} children");
}

#[tokio::test]
async fn a_fork_bomb_takes_neither_the_machine_nor_the_next_attempt() {
    let Some(bench) = bench("a_fork_bomb_takes_neither_the_machine_nor_the_next_attempt").await else { return };
    let door = Door::Exec { argv: vec!["./bomb.py".to_owned()] };
    let function = Function { timeout: Duration::from_millis(500), ..bench.function("bomb.py", BOMB, door) };
    let stage = bench.stage(&function).await;
    let run = stage.run(stage.start().await.as_mut(), "").await;
    assert!(matches!(run.outcome, Outcome::TimedOut(_)), "{:?}, {}", run.outcome, run.log.text());
    assert_eq!(left(&function), 0, "no bomb forks faster than it is killed");
    let next =
        Stage::prepare(bench.runtime.clone(), &bench.shell("echo well | cat")).await.expect("it can be prepared");
    assert_eq!(next.run_once("").await.output.text(), "well\n");
}

/// The child is told to end while it begins, or while it comes to wait for a lock that nobody gives back: so does
/// `Pool.terminate`, and a TERM that is lost would be waited for until the timeout.
#[tokio::test]
async fn a_forked_child_ends_at_term() {
    let bench = Bench::new();
    let text = "import os, signal, multiprocessing\nLOCK = multiprocessing.Lock()\ndef f():\n    LOCK.acquire()\n    for n in range(300):\n        \
                pid = os.fork()\n        if pid == 0:\n            LOCK.acquire()\n        os.kill(pid, signal.SIGTERM)\n        \
                ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\n        if ended != -signal.SIGTERM:\n            return ended\n    \
                LOCK.release()\n    return 'all'\n";
    assert_eq!(call(&bench, &bench.python(text, None), "").await, "all");
}

#[tokio::test]
async fn a_pool_of_processes_ends() {
    let bench = Bench::new();
    let text = "from multiprocessing import Pool\ndef double(x):\n    return 2 * x\ndef f():\n    for n in range(20):\n        with Pool(2) as pool:\n            \
                doubled = pool.map(double, range(5))\n    return doubled\n";
    assert_eq!(call(&bench, &bench.python(text, Some("f")), "").await, "[0,2,4,6,8]");
}

/// A handler of the user's own for TERM is the child's too, and what they held back stays so.
#[tokio::test]
async fn a_fork_leaves_the_signals_of_the_function_alone() {
    let bench = Bench::new();
    let text = "import os, signal\ndef f():\n    signal.signal(signal.SIGTERM, lambda *_: os._exit(7))\n    \
                signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])\n    pid = os.fork()\n    if pid == 0:\n        \
                held = signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])\n        while len(held) == 2:\n            pass\n        \
                os._exit(8)\n    os.kill(pid, signal.SIGTERM)\n    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\n    \
                return [code, len(signal.pthread_sigmask(signal.SIG_BLOCK, []))]\n";
    assert_eq!(call(&bench, &bench.python(text, Some("f")), "").await, "[7,2]");
}
