//! The suites that every adapter passes.

use std::sync::Arc;

use crate::subject::Sqlite;

/// Random sequences to compare; `KVERN_MODEL_CASES` asks for more.
const MODEL_CASES: u32 = 48;

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_every_rule_of_the_contract() {
    kvern_queue::conformance::run(Arc::new(Sqlite::new())).await;
}

#[test]
fn it_cannot_be_told_from_the_model() {
    let cases = std::env::var("KVERN_MODEL_CASES").ok().and_then(|cases| cases.parse().ok());
    kvern_queue::model::compare(Sqlite::on_small_disk(), cases.unwrap_or(MODEL_CASES));
}
