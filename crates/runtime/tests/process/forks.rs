//! Functions that start more processes than any function needs. Each looks first whether it is limited: where no cgroup can
//! be made there is no limit, and nothing is tried.

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
