//! Every mistake that is made on purpose is noticed, each by a check of its own.
//!
//! A check runs in a process of its own, once as it is and once with the mistake.

use std::process::Command;

use kvern_queue::KnownBad;
use kvern_queue::known_bad::VARIABLE;

const CONTRACT: &str = "contract::it_keeps_every_rule_of_the_contract";
const MODEL: &str = "contract::it_cannot_be_told_from_the_model";
const SEALED: &str = "sealed::a_failed_sync_seals_the_store_and_loses_nothing";

/// What the check says, and whether it passes.
fn run(check: &str, rules: &str, made: Option<KnownBad>) -> (bool, String) {
    let mut command = Command::new(std::env::current_exe().expect("a test has a path"));
    command.args(["--exact", check]).env_remove(VARIABLE);
    command.env("KVERN_RULES", rules).env("KVERN_MODEL_CASES", "16").env("PROPTEST_MAX_SHRINK_ITERS", "0");
    command.envs(made.map(|bad| (VARIABLE, bad.name())));
    let output = command.output().expect("it runs");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(said.contains("running 1 test"), "there is no check {check}: {said}");
    (output.status.success(), said)
}

/// The check (of the contract: of these rules) fails with the mistake, in these words, and passes without.
fn assert_noticed(bad: KnownBad, check: &str, rules: &str, words: &str) {
    let (passes, said) = run(check, rules, None);
    assert!(passes, "{check} fails without a mistake: {said}");
    let (passes, said) = run(check, rules, Some(bad));
    assert!(!passes, "{check} passes with {}: {said}", bad.name());
    assert!(said.contains(words), "{check} fails with {}, but not because of it: {said}", bad.name());
}

#[test]
fn an_acknowledgement_before_the_commit_is_noticed() {
    assert_noticed(KnownBad::AckBeforeCommit, CONTRACT, "1", "breaks the rules [1]");
    assert_noticed(KnownBad::AckBeforeCommit, MODEL, "", "is not the model");
}

#[test]
fn a_second_try_after_a_failed_sync_is_noticed() {
    assert_noticed(KnownBad::RetryFailedSync, SEALED, "", "a sync failed, and nobody heard of it");
}

#[test]
fn a_settlement_without_fencing_is_noticed() {
    assert_noticed(KnownBad::NoFencing, CONTRACT, "15", "breaks the rules [15]");
}

#[test]
fn leases_by_the_wall_clock_are_noticed() {
    assert_noticed(KnownBad::WallClockLeases, CONTRACT, "18", "breaks the rules [18]");
}

#[test]
fn attempts_that_are_not_counted_are_noticed() {
    assert_noticed(KnownBad::NoAttemptCounter, CONTRACT, "16,18,19", "breaks the rules [16, 18, 19]");
}

#[test]
fn a_panic_in_the_writer_is_noticed() {
    assert_noticed(KnownBad::PanicInWriter, CONTRACT, "13", "breaks the rules [13]");
}

#[test]
fn every_mistake_has_its_check() {
    let checks = include_str!("known_bad.rs");
    for bad in KnownBad::ALL {
        assert!(checks.contains(&format!("assert_noticed(KnownBad::{bad:?},")), "nothing notices {}", bad.name());
    }
}
