//! The simulation notices mistakes that are made on purpose, which it does in a process of its own.

use std::path::Path;
use std::process::Command;

use kvern_queue::KnownBad;
use kvern_queue::known_bad::VARIABLE;

const SIMULATION: &str = "simulation::every_promise_holds_in_every_world";

/// Whether the simulation passes with this mistake and so many seeds besides the kept ones, and what it says.
fn simulate(bad: KnownBad, seeds: &str, kept: &Path) -> (bool, String) {
    let mut command = Command::new(std::env::current_exe().expect("a test has a path"));
    command.args(["--exact", SIMULATION]).env_remove("KVERN_SEED").env("KVERN_SEEDS", seeds).env("KVERN_KEPT", kept);
    let output = command.env(VARIABLE, bad.name()).output().expect("it runs");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(said.contains("running 1 test"), "there is no {SIMULATION}: {said}");
    (output.status.success(), said)
}

/// The mistake is noticed, in these words; and once the seed that showed it is kept, that seed alone shows it again.
fn assert_noticed(bad: KnownBad, words: &str) {
    let folder = tempfile::TempDir::new().expect("a folder");
    let file = folder.path().join("seeds.txt");
    std::fs::write(&file, "# none is kept\n").expect("a file");
    let (passes, said) = simulate(bad, "300", &file);
    assert!(!passes, "it passes with {}: {said}", bad.name());
    assert!(said.contains(words), "it fails with {}, but not because of it: {said}", bad.name());
    let (_, seed) = said.split_once("run it again with KVERN_SEED=").expect("it names the seed");
    assert!(said.contains("keep it as a line of"), "it says how to keep it: {said}");
    let seed: String = seed.chars().take_while(char::is_ascii_digit).collect();

    let (passes, said) = simulate(bad, "0", &file);
    assert!(passes, "nothing was to be lived: {said}");
    std::fs::write(&file, format!("# failed once\n{seed}\n")).expect("a file");
    let (passes, said) = simulate(bad, "0", &file);
    assert!(!passes && said.contains(&format!("seed {seed}:")), "{seed} is kept and does not fail again: {said}");
}

#[test]
fn the_simulation_notices_leases_by_the_wall_clock() {
    assert_noticed(KnownBad::WallClockLeases, "was interrupted without a cause");
}

#[test]
fn the_simulation_notices_attempts_that_are_not_counted() {
    assert_noticed(KnownBad::NoAttemptCounter, "jobs never ended");
}
