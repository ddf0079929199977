//! Gateway and worker as two processes on one box: what works as in one, what either survives, and what is refused.

use std::time::Duration;

use kvern_e2e::{Server, Worker, until, until_within};
use serde_json::Value;

mod calls;
mod ends;
mod jobs;
mod life;
mod refused;

/// As short as a drain may be, and long for whatever these functions do.
const ROLE: [&str; 2] = ["--role", "gateway"];

/// A gateway with a worker beside it that has all its functions ready.
fn pair(files: &[(&str, &str)]) -> (Server, Worker) {
    let gateway = Server::start_with(files, &ROLE);
    let worker = Worker::beside(&gateway);
    all_ready(&gateway);
    (gateway, worker)
}

/// Waits until a worker has every function.
fn all_ready(gateway: &Server) {
    until_within(Duration::from_secs(60), "every function to be ready", || {
        let functions = gateway.http.get("/v1/functions").json();
        let mut functions = functions["functions"].as_array()?.iter();
        functions.all(|function| function["version"].is_string()).then_some(())
    });
}

fn job(gateway: &Server, id: &str) -> Value {
    gateway.http.get(&format!("/v1/jobs/{id}")).json()
}

fn runs(gateway: &Server, id: &str) {
    until("the job to run", || (job(gateway, id)["state"] == "running").then_some(()));
}

/// `len` bytes that do not repeat soon.
fn bytes(len: usize) -> Vec<u8> {
    let mut seed = 7_u64;
    let step = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        u8::try_from(seed >> 56).expect("a byte")
    };
    std::iter::repeat_with(step).take(len).collect()
}
