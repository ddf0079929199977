//! The queue in memory keeps every rule of the contract.

use std::process::Command;
use std::sync::Arc;

use kvern_queue::conformance::{self, MemorySubject};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queue_in_memory_keeps_every_rule() {
    conformance::run(Arc::new(MemorySubject::default())).await;
}

/// The table is read in CI, so the harness must not keep it when the test passes.
#[test]
fn the_table_is_seen_when_all_is_well() {
    let own = std::env::current_exe().expect("a test has a path");
    let run = Command::new(own).args(["--exact", "the_queue_in_memory_keeps_every_rule"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}");
    for rule in conformance::RULES {
        assert!(said.contains(rule.name), "{} is not in:\n{said}", rule.name);
    }
}
