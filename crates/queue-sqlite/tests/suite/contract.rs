//! The suites that every adapter passes.

use std::sync::Arc;

use crate::setup::Sqlite;

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_every_rule_of_the_contract() {
    kvern_queue::conformance::run(Arc::new(Sqlite::new())).await;
}

#[test]
fn it_cannot_be_told_from_the_model() {
    kvern_queue::model::compare(Sqlite::new(), 48);
}
