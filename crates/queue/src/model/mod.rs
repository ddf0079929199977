//! Random operations on an adapter and on the specification side by side: whatever one shows, the other must show too.
//!
//! [`compare`] draws sequences of operations, applies each to a [`MemoryQueue`](crate::MemoryQueue) and to the subject
//! (on one clock), and compares answers, records, lists, counts, payloads and logs. A sequence that tells them apart is
//! made as short as it can be. What runs at the same time is for the conformance suite; here one thing follows another,
//! but for twins of a submit.
//!
//! What the contract leaves open is not compared: the order across functions, how many jobs one call leases, when exactly a due job begins to be
//! shown as queued, log lines of an attempt that the queue's own death cut off, workers after a restart, and how long
//! a key is remembered beyond [`kvern_core::limits::IDEMPOTENCY_KEEP`]. Of a step that a power cut interrupts, both
//! outcomes are allowed, and no third: the specification is forked before it.

use proptest::test_runner::{Config, FailurePersistence, FileFailurePersistence, TestError, TestRunner};

use crate::conformance::{Subject, setup};
use crate::known_bad;

mod check;
mod end;
mod news;
mod operation;
mod steps;
mod view;
mod world;

use world::World;

/// Where sequences that once failed are kept, in the folder of the crate under test; they are tried first.
const FAILURES: &str = "proptest-regressions/model.txt";

/// The longest search for a shorter sequence: one that waits in vain takes seconds each time.
const SHRINK_MS_MAX: u32 = 60_000;

/// Plays `cases` random sequences of operations on the subject and on the specification.
///
/// # Panics
/// If the two can be told apart; the message has the shortest sequence that was found.
#[expect(clippy::needless_pass_by_value, reason = "a comparison uses its subject up")]
pub fn compare(subject: impl Subject, cases: u32) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime for the subject");
    let config = Config {
        cases,
        max_shrink_time: SHRINK_MS_MAX,
        // What a mistake on purpose fails with is not worth keeping.
        failure_persistence: known_bad::made()
            .is_none()
            .then(|| Box::new(FileFailurePersistence::Direct(FAILURES)) as Box<dyn FailurePersistence>),
        ..Config::default()
    };
    let played = TestRunner::new(config).run(&operation::sequences(), |operations| {
        runtime.block_on(async {
            let mut world = World::new(&subject).await;
            for (at, operation) in operations.iter().enumerate() {
                let played = setup::soon(&format!("step {at}, {operation:?}"), world.play(operation)).await;
                played.map_err(|difference| difference.at(at, operation))?;
            }
            Ok(world.check_everything().await?)
        })
    });
    match played {
        Ok(()) => {}
        Err(TestError::Abort(why)) => panic!("the comparison gave up: {why}"),
        Err(TestError::Fail(why, operations)) => {
            let steps: Vec<String> = operations.iter().enumerate().map(|(at, op)| format!("{at:>3}  {op:?}")).collect();
            panic!("{} is not the model: {why}\nthe shortest sequence:\n{}", subject.name(), steps.join("\n"));
        }
    }
}
