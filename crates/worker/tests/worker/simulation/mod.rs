//! Random worlds: seeded functions, faults, poison, clock jumps, cancels, calls, reloads, lost leases and drains, and what must hold in all.
//!
//! Every job ends in one final state or still waits; no two attempts of a job run at once, no more attempts than slots,
//! no more instances than allowed; when `run` has returned, nothing runs and nobody holds the worker. If nothing stops
//! the worker, every job ends.
//!
//! `KVERN_SEED=n` runs one seed, `KVERN_SEEDS=n` so many; those in `seeds.txt` failed once and always run.

use std::env;
use std::sync::Arc;

pub(crate) mod dice;
pub(crate) mod faulty;
pub(crate) mod judge;
mod life;

use life::Life;

/// Seeds of one run, unless the environment says otherwise.
const SEEDS_DEFAULT: u64 = 1000;

#[test]
fn every_promise_holds_in_every_world() {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("KVERN_SEED") {
        return live(seed);
    }
    let kept = include_str!("seeds.txt").lines().filter(|line| !line.starts_with('#'));
    kept.filter_map(|line| line.trim().parse().ok()).for_each(live);
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
    assert!(broken.is_empty(), "seed {seed}: run it again with KVERN_SEED={seed}\n{}", broken.join("\n"));
}
