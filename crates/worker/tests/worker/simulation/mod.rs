//! Random worlds: seeded functions, faults, poison, clock jumps, cancels, calls, reloads, lost leases and drains, and what must hold in all.
//!
//! Every job ends in one final state or still waits; no two attempts of a job run at once, no more attempts than slots,
//! no more instances than allowed; when `run` has returned, nothing runs and nobody holds the worker. If nothing stops
//! the worker, every job ends.
//!
//! `KVERN_SEED=n` runs one seed, `KVERN_SEEDS=n` so many; those in `seeds.txt` failed once and always run (`KVERN_KEPT` names
//! another file).

use std::env;
use std::path::PathBuf;
use std::sync::Arc;

pub(crate) mod dice;
pub(crate) mod faulty;
pub(crate) mod judge;
mod life;

use life::Life;

/// Seeds of one run, unless the environment says otherwise.
const SEEDS_DEFAULT: u64 = 1000;
/// One a line.
const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/worker/simulation/seeds.txt");

#[test]
fn every_promise_holds_in_every_world() {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("KVERN_SEED") {
        return live(seed);
    }
    kept().into_iter().for_each(live);
    let seeds = number("KVERN_SEEDS").unwrap_or(SEEDS_DEFAULT);
    // Each half in its own thread: a world is one thread's.
    std::thread::scope(|scope| {
        let even = scope.spawn(move || (0..seeds).step_by(2).for_each(live));
        (1..seeds).step_by(2).for_each(live);
        if let Err(broken) = even.join() {
            std::panic::resume_unwind(broken);
        }
    });
}

/// The seeds that failed once.
fn kept() -> Vec<u64> {
    let file = env::var_os("KVERN_KEPT").map_or_else(|| KEPT.into(), PathBuf::from);
    let text = std::fs::read_to_string(&file).expect("the kept seeds");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.parse().unwrap_or_else(|_| panic!("`{line}` in {} is no seed", file.display()))).collect()
}

#[test]
fn a_seed_lives_the_same_life_again() {
    for seed in 0..30 {
        let (first, again) = (record(seed).1, record(seed).1);
        let differs = first.lines().zip(again.lines()).find(|(first, again)| first != again);
        assert!(first == again, "seed {seed}: {differs:?}");
    }
}

/// One life of a worker: the promises that it broke, and what became of its jobs.
fn record(seed: u64) -> (Vec<String>, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let life = Arc::new(Life::new(seed));
        (life.live().await, life.records().await)
    })
}

fn live(seed: u64) {
    let (broken, _) = record(seed);
    let what = broken.join("\n");
    assert!(broken.is_empty(), "seed {seed}: run it again with KVERN_SEED={seed}, keep it as a line of {KEPT}\n{what}");
}
