//! The simulation notices mistakes that are made on purpose, which it does in a process of its own.

use std::process::Command;

use kvern_queue::KnownBad;
use kvern_queue::known_bad::VARIABLE;

const SIMULATION: &str = "simulation::every_promise_holds_in_every_world";

fn assert_noticed(bad: KnownBad, words: &str) {
    let mut command = Command::new(std::env::current_exe().expect("a test has a path"));
    command.args(["--exact", SIMULATION]).env_remove("KVERN_SEED").env("KVERN_SEEDS", "300");
    let output = command.env(VARIABLE, bad.name()).output().expect("it runs");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(!output.status.success() && said.contains("1 failed"), "it passes with {}: {said}", bad.name());
    assert!(said.contains(words), "it fails with {}, but not because of it: {said}", bad.name());
}

#[test]
fn the_simulation_notices_leases_by_the_wall_clock() {
    assert_noticed(KnownBad::WallClockLeases, "was interrupted without a cause");
}

#[test]
fn the_simulation_notices_attempts_that_are_not_counted() {
    assert_noticed(KnownBad::NoAttemptCounter, "jobs never ended");
}
