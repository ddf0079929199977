//! Memory limits, by cgroup where this machine permits one, and by `RLIMIT_DATA`.

use std::num::NonZeroU64;

use kvern_core::{FailureCode, Function, Memory};

use crate::support::Bench;
use crate::{call, fails};

fn limited(function: Function, mebibytes: u64) -> Function {
    Function { memory: NonZeroU64::new(mebibytes << 20).map(Memory), ..function }
}

const PYTHON: &str = "def f(event):\n    return len(b'x' * (event << 20))\n";
/// Its input is in MiB, of the heap.
const NODE: &str = "export default (event) => { const all = []; for (let i = 0; i < event; i++) all.push('x'.repeat(8) + i); \
                    const more = []; while (more.length < event / 8) more.push(new Array(131072).fill(event)); return all.length + more.length; };\n";
/// The same outside of the heap, which has a limit of its own.
const NODE_BUFFER: &str = "export default (event) => Buffer.alloc(event << 20, 1).length;\n";
const PROGRAM: &str = "read -r mebibytes\nexec dd if=/dev/zero of=/dev/null bs=${mebibytes}M count=1\n";

async fn hogs_are_stopped(bench: &Bench) {
    for (function, mebibytes, fits, hogs) in [
        (bench.python(PYTHON, None), 64, "8", "500"),
        (bench.node(NODE, None), 128, "8", "8000"),
        (bench.node(NODE_BUFFER, None), 128, "8", "900"),
        (bench.shell(PROGRAM), 32, "8\n", "120\n"),
    ] {
        let function = limited(function, mebibytes);
        call(bench, &function, fits).await;
        let failure = fails(bench, &function, hogs, FailureCode::OutOfMemory).await;
        let told =
            format!("out of memory: the process reached its limit of {mebibytes} MiB; raise `memory` if it needs more");
        assert_eq!(failure.message, told);
    }
}

#[tokio::test]
async fn a_hog_is_stopped_at_its_limit() {
    // Otherwise both tests would be of the other way.
    if !has_memory_cgroups() {
        return crate::support::skip("a_hog_is_stopped_at_its_limit", "no memory cgroup may be made here");
    }
    hogs_are_stopped(&Bench::new()).await;
}

#[tokio::test]
async fn a_hog_is_stopped_without_cgroups_too() {
    hogs_are_stopped(&Bench::with(|settings| settings.use_cgroups = false)).await;
}

#[tokio::test]
async fn a_hog_among_the_children_is_told_by_name() {
    let bench = Bench::new();
    // Without a cgroup the child sees its allocation fail, and what it exits with is all that is known.
    if !has_memory_cgroups() {
        return crate::support::skip("a_hog_among_the_children_is_told_by_name", "no memory cgroup may be made here");
    }
    let hog = bench.shell("head -c 300000000 /dev/zero | tail -n 1 | wc -c; exit 9");
    let failure = fails(&bench, &limited(hog, 32), "", FailureCode::OutOfMemory).await;
    assert!(failure.message.contains("32 MiB"), "{failure}");
}

fn has_memory_cgroups() -> bool {
    let cgroups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(path) = cgroups.lines().find_map(|line| line.split_once(":memory:")).map(|(_, path)| path.to_owned())
    else {
        return false;
    };
    let probe = std::path::Path::new("/sys/fs/cgroup/memory").join(path.trim_start_matches('/')).join("kvern-probe");
    std::fs::create_dir(&probe).and_then(|()| std::fs::remove_dir(&probe)).is_ok()
}
