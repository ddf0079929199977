//! The suites that every adapter passes, over a socket, with each queue behind it.

use std::sync::Arc;

use kvern_queue::conformance::{self, MemorySubject};
use kvern_queue::model;

use crate::sqlite::Sqlite;
use crate::subject::OverSocket;

/// Random sequences to compare; `KVERN_MODEL_CASES` asks for more.
const MODEL_CASES: u32 = 24;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queue_in_memory_keeps_every_rule_over_a_socket() {
    conformance::run(Arc::new(OverSocket::new("socket+mem", MemorySubject::default()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_queue_keeps_every_rule_over_a_socket() {
    conformance::run(Arc::new(OverSocket::new("socket+sql", Sqlite::new()))).await;
}

#[test]
fn it_cannot_be_told_from_the_model() {
    let cases = std::env::var("KVERN_MODEL_CASES").ok().and_then(|cases| cases.parse().ok());
    model::compare(OverSocket::new("socket+sql", Sqlite::new()), cases.unwrap_or(MODEL_CASES));
}
