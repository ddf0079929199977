//! The queue in memory keeps every rule of the contract.

use std::sync::Arc;

use kvern_queue::conformance::{self, MemorySubject};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queue_in_memory_keeps_every_rule() {
    conformance::run(Arc::new(MemorySubject::default())).await;
}
