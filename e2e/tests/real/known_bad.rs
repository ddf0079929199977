//! The crash harness and the broken disks notice mistakes that are made on purpose, on a real server that makes them.
//!
//! A check is a test that runs anyway. Here it runs once more, in a process of its own, against the binary that has the
//! mistakes in it, and must fail. Which mistakes cannot be seen from here, and what sees them instead, stands in
//! `docs/decisions/0012-known-bad-variants.md`.

use std::path::Path;
use std::process::Command;

use kvern_e2e::needs;
use kvern_e2e::server::kvern_known_bad;

const KILLS: &str = "survival::kill_nine::every_acknowledged_job_survives_kill_nine";
const FAILED_SYNC: &str = "disk::failed_sync::a_failed_sync_of_the_log_is_unknown_and_the_end_of_the_server";
const CLOCK_JUMP: &str = "disk::clock_jump::a_clock_that_jumps_ends_no_lease_and_repeats_nothing";
const FAKETIME: &str = "/usr/bin/faketime";
/// Few kills are enough for a mistake that each of them may show.
const KILLS_MAX: (&str, &str) = ("KILLS", "2");
/// Whoever makes a mistake may never come to an end; nobody waits for that.
const FINISH: (&str, &str) = ("FINISH", "15");

/// What the check says of the server that makes this mistake, or of one that could and does not.
fn said(check: &str, mistake: Option<&str>) -> (bool, String) {
    let mut command = Command::new(std::env::current_exe().expect("a test has a path"));
    command.args(["--exact", check, "--nocapture"]).envs([KILLS_MAX]).env_remove("KVERN_KNOWN_BAD");
    command.env("KVERN_BIN", kvern_known_bad());
    command.envs(mistake.map(|name| [("KVERN_KNOWN_BAD", name), FINISH]).into_iter().flatten());
    let output = command.output().expect("it runs");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(said.contains("running 1 test"), "there is no check {check}: {said}");
    (output.status.success(), said)
}

/// The check fails with the mistake, in these words.
fn assert_noticed(mistake: &str, check: &str, words: &str) {
    let (passes, said) = said(check, Some(mistake));
    assert!(!passes, "{check} passes with {mistake}: {said}");
    assert!(said.contains(words), "{check} fails with {mistake}, but not because of it: {said}");
}

#[test]
fn kills_notice_an_acknowledgement_before_the_commit() {
    if needs::programs(&["python3"]) {
        assert_noticed("ack_before_commit", KILLS, "was accepted and is not there");
    }
}

#[test]
fn kills_notice_attempts_that_are_not_counted() {
    if needs::programs(&["python3"]) {
        assert_noticed("no_attempt_counter", KILLS, "ran again, and no kill cut it off");
    }
}

#[test]
fn a_failing_disk_notices_a_second_try_after_a_failed_sync() {
    if needs::programs(&["strace"]) {
        assert_noticed("retry_failed_sync", FAILED_SYNC, "in vain for the server to end");
    }
}

#[test]
fn a_clock_that_jumps_notices_leases_by_the_wall_clock() {
    if needs::is_given("faketime", Path::new(FAKETIME).exists()) {
        assert_noticed("wall_clock_leases", CLOCK_JUMP, "clock_jump.rs");
    }
}

/// It is the mistake that is noticed, and not the binary that could make one.
#[test]
fn a_server_that_could_make_mistakes_and_does_not_passes() {
    if needs::is_given("faketime", Path::new(FAKETIME).exists()) {
        let (passes, said) = said(CLOCK_JUMP, None);
        assert!(passes, "{said}");
    }
}
