//! The server's memory stays flat whatever a function prints or returns. A binary of its own: others would be counted.

#[path = "support/mod.rs"]
mod support;

use async_trait::async_trait;
use bytes::Bytes;
use kvern_core::{FailureCode, Function, Outcome};
use kvern_runtime::conformance::{Kept, context};
use kvern_runtime::{Input, Log, Output, OutputRefused};
use std::sync::Arc;

use support::{Bench, left};

/// How much the most that this process ever took may grow.
const GROWTH_BYTES_MAX: u64 = 24 << 20;

/// Counts what it takes, up to a limit.
struct Counted {
    bytes: u64,
    bytes_max: u64,
}

#[async_trait]
impl Output for Counted {
    fn head(&mut self, _content_type: &str, _status: Option<u16>) {}

    async fn write(&mut self, bytes: Bytes) -> Result<(), OutputRefused> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.bytes_max { Err(OutputRefused::TooLarge(self.bytes_max)) } else { Ok(()) }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_flat_whatever_a_function_prints_or_returns() {
    let bench = Bench::new();
    let (gigabyte, max) = (1 << 30, 6 << 20);
    let prints = bench.python("def f():\n    for _ in range(200):\n        print('x' * ((1 << 20) - 1))\n", None);
    let prints_node = bench.node(
        "export default () => { for (let i = 0; i < 200; i++) console.log('x'.repeat((1 << 20) - 1)); };\n",
        None,
    );
    let prints_exec = bench.shell("head -c 209715200 /dev/zero >&2");
    let returns = bench.shell("head -c 1073741824 /dev/zero");
    let returns_python = bench.python("def f():\n    return b'x' * (200 << 20)\n", None);
    // Warm: interpreters found, buffers made.
    attempt(&bench, &bench.python("def f(): pass\n", None), gigabyte).await;
    let before = peak();
    for function in [prints, prints_node, prints_exec] {
        let (outcome, _, logged) = attempt(&bench, &function, gigabyte).await;
        assert_eq!(outcome, Outcome::Succeeded, "{}", function.door.describe());
        assert_eq!(logged, 200 << 20, "every byte was read: {}", function.door.describe());
    }
    for (function, bytes, bytes_max) in [
        (&returns, 1 << 30, gigabyte),
        (&returns_python, 200 << 20, gigabyte),
        (&returns, 0, max),
        (&returns_python, 0, max),
    ] {
        let (outcome, taken, _) = attempt(&bench, function, bytes_max).await;
        if bytes > 0 {
            assert_eq!((outcome, taken), (Outcome::Succeeded, bytes), "{}", function.door.describe());
        } else {
            assert_eq!(outcome.failure().map(|failure| failure.code), Some(FailureCode::ResultTooLarge));
            assert!(taken <= bytes_max + (256 << 10), "it was stopped at the limit: {taken}");
        }
    }
    let growth = peak() - before;
    assert!(growth <= GROWTH_BYTES_MAX, "the peak grew by {} KiB", growth >> 10);
    _ = std::io::Write::write_all(
        &mut std::io::stderr(),
        format!("the peak grew by {} KiB\n", growth >> 10).as_bytes(),
    );
}

async fn attempt(bench: &Bench, function: &Function, bytes_max: u64) -> (Outcome, u64, u64) {
    let stage = bench.stage(function).await;
    let mut instance = stage.start().await;
    let mut context = context(function, "");
    context.content_type = None;
    let kept = Arc::new(Kept::default());
    let log: Arc<dyn Log> = Arc::<Kept>::clone(&kept);
    let mut output = Counted { bytes: 0, bytes_max };
    let outcome = instance.run(&context, Input::Bytes(Bytes::new()), &mut output, &log).await;
    instance.stop(support::GRACE).await;
    assert_eq!(left(function), 0);
    (outcome, output.bytes, kept.len())
}

/// The most memory that this process ever had resident.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("it is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel says it");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}
