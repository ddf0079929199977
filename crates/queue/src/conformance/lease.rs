//! Rules 6 to 13: who gets which job, and when.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use kvern_core::limits::LEASE_TTL;
use kvern_core::{JobId, Next, State, UnixMs};
use tokio::task::JoinSet;

use super::Subject;
use super::setup::{Dice, Setup, ask, crashed, failed, finish, hours, job, millis, name, secs, soon, success, until};
use crate::contract::Queue;
use crate::job::{Leased, NewJob, Settlement};

pub(super) async fn one_job_one_lease(subject: Arc<dyn Subject>) {
    const JOBS: usize = 500;
    let t = Setup::new(subject).await;
    t.submit_many("f", JOBS).await;
    let held = Arc::new(Mutex::new(HashSet::new()));
    let finished = Arc::new(AtomicUsize::new(0));
    let mut leasers = JoinSet::new();
    for seed in 0..8 {
        let (queue, held, finished) = (Arc::clone(&t.queue), Arc::clone(&held), Arc::clone(&finished));
        leasers.spawn(async move {
            let mut dice = Dice::new(seed);
            while finished.load(Ordering::SeqCst) < JOBS {
                let slots = 1 + dice.below(7);
                let leased = queue.lease(ask(&[("f", slots)], slots, millis(5))).await.expect("leases");
                hold_and_settle(queue.as_ref(), &mut dice, &held, &finished, leased).await;
            }
        });
    }
    soon("500 jobs through 8 workers", leasers.join_all()).await;
    assert_eq!(t.count("f", State::Succeeded).await, JOBS as u64);
    assert_eq!(t.count("f", State::Running).await + t.count("f", State::Queued).await, 0);
}

/// Notes the jobs as held while they are, and gives back a fifth of them.
async fn hold_and_settle(
    queue: &dyn Queue,
    dice: &mut Dice,
    held: &Mutex<HashSet<JobId>>,
    finished: &AtomicUsize,
    leased: Vec<Leased>,
) {
    for one in &leased {
        let is_free = held.lock().expect("no panic while held").insert(one.job.id);
        assert!(is_free, "{} was leased to two workers", one.job.id);
    }
    tokio::task::yield_now().await;
    for one in leased {
        held.lock().expect("no panic while held").remove(&one.job.id);
        if dice.below(5) == 0 {
            queue.settle(one.lease, Settlement::Release).await.expect("the lease stands");
        } else {
            let settlement = success(&one, b"done");
            queue.settle(one.lease, settlement).await.expect("the lease stands");
            finished.fetch_add(1, Ordering::SeqCst);
        }
    }
}

pub(super) async fn higher_priority_first_then_older_first(subject: Arc<dyn Subject>) {
    let t = Setup::new(subject).await;
    let mut dice = Dice::new(7);
    let mut expected = Vec::new();
    for _ in 0..90 {
        let priority = u8::try_from(dice.below(10)).expect("a digit");
        let id = t.submit(NewJob { priority, ..job("f") }).await;
        expected.push((Reverse(priority), id));
    }
    expected.sort_unstable();
    let t = t.reopen().await;
    let mut given = Vec::new();
    while given.len() < expected.len() {
        let leased = t.lease("f", 1 + dice.below(7)).await;
        assert!(!leased.is_empty(), "jobs are left");
        given.extend(leased.iter().map(|one| (Reverse(one.job.priority), one.job.id)));
    }
    assert_eq!(given, expected);
}

pub(super) async fn functions_share(subject: Arc<dyn Subject>) {
    let t = Setup::new(subject).await;
    for function in ["a", "b", "c"] {
        t.submit_many(function, 40).await;
    }
    let mut one_by_one = Vec::new();
    for _ in 0..30 {
        one_by_one.extend(t.ask(&[("a", 9), ("b", 9), ("c", 9)], 1).await);
    }
    assert_eq!(shares(&one_by_one), [10, 10, 10], "leases taken one at a time");
    let at_once = t.ask(&[("a", 9), ("b", 9), ("c", 9)], 9).await;
    assert_eq!(shares(&at_once), [3, 3, 3], "leases taken together");
    let few_slots = t.ask(&[("a", 1), ("b", 9), ("c", 9)], 9).await;
    assert_eq!(shares(&few_slots), [1, 4, 4], "what one cannot take is shared by the others");

    // One job of a quiet function is not behind a busy function's many.
    t.submit(job("quiet")).await;
    let turns = t.ask(&[("a", 9), ("quiet", 1)], 2).await;
    assert!(turns.iter().any(|one| one.job.function == name("quiet")), "the quiet function gets its turn");
}

fn shares(leased: &[Leased]) -> [usize; 3] {
    ["a", "b", "c"].map(|function| leased.iter().filter(|one| one.job.function == name(function)).count())
}

pub(super) async fn no_more_than_asked(subject: Arc<dyn Subject>) {
    let t = Setup::new(subject).await;
    let mut dice = Dice::new(9);
    for _ in 0..80 {
        t.submit_many("a", 2).await;
        t.submit_many("b", 1).await;
        let (a, b, max) = (1 + dice.below(4), 1 + dice.below(4), 1 + dice.below(6));
        let leased = t.ask(&[("a", a), ("b", b), ("none", 3)], max).await;
        let [of_a, of_b, _] = shares(&leased);
        assert_eq!(of_a + of_b, leased.len(), "only functions asked for");
        assert!(!leased.is_empty() && leased.len() <= max, "{} leases, at most {max} asked for", leased.len());
        assert!(of_a <= a && of_b <= b, "{of_a} and {of_b} leases for {a} and {b} slots");
    }
    t.submit(job("other")).await;
    assert!(t.ask(&[("other", 1)], 0).await.is_empty(), "asked for none");
}

pub(super) async fn a_lease_waits_and_wakes(subject: Arc<dyn Subject>) {
    let t = Setup::new(subject).await;
    let began = Instant::now();
    let none = t.queue.lease(ask(&[("f", 1)], 1, millis(60))).await.expect("leases");
    assert!(none.is_empty() && began.elapsed() >= millis(50), "an empty answer came after {:?}", began.elapsed());

    wakes(&t, "a submit", async || _ = t.submit(job("f")).await).await;

    let not_before = Some(t.clock.now().after(secs(30)));
    t.submit(NewJob { not_before, ..job("f") }).await;
    wakes(&t, "a due job", async || t.clock.advance(secs(30))).await;
    wakes(&t, "a job due soon", async || {
        let not_before = Some(t.clock.now().after(secs(30)));
        t.submit(NewJob { not_before, ..job("f") }).await;
        t.clock.advance(secs(30));
    })
    .await;

    t.queue.pause(&name("f"), true).await.expect("pauses");
    t.submit(job("f")).await;
    wakes(&t, "a resume", async || t.queue.pause(&name("f"), false).await.expect("resumes")).await;
    wakes_by_settlement(&t).await;

    t.submit(job("f")).await;
    let lost = t.lease_one("f").await;
    wakes(&t, "a lost lease", async || {
        t.clock.advance(LEASE_TTL);
        t.sweep(&Vec::new()).await;
    })
    .await;
    drop(lost);
    wakes_every_waiter(&t).await;
}

async fn wakes_by_settlement(t: &Setup) {
    t.submit(job("f")).await;
    let leased = t.lease_one("f").await;
    wakes(t, "a release", async || _ = t.settle(leased.lease, Settlement::Release).await).await;

    t.submit(job("f")).await;
    let leased = t.lease_one("f").await;
    let crash = finish(&leased, crashed(), Next::RetryNow);
    wakes(t, "a crash", async || _ = t.settle(leased.lease, crash).await).await;

    let id = t.submit(job("f")).await;
    t.fail(t.lease_one("f").await).await;
    wakes(t, "a retry by hand", async || drop(t.queue.retry(id).await.expect("a dead letter"))).await;
}

/// Something makes a job ready while a lease waits, and the lease gets it; the job is finished.
async fn wakes(t: &Setup, what: &str, cause: impl AsyncFnOnce()) {
    let queue = Arc::clone(&t.queue);
    let mut lease = std::pin::pin!(queue.lease(ask(&[("f", 1)], 1, secs(60))));
    // Polled once before the cause: then it waits. After that either may be done first.
    let first = std::future::poll_fn(|context| Poll::Ready(lease.as_mut().poll(context))).await;
    assert!(first.is_pending(), "{what}: the lease did not wait but gave {first:?}");
    let (leased, ()) = tokio::join!(soon(what, lease), cause());
    let mut leased = leased.expect("leases");
    assert_eq!(leased.len(), 1, "{what} wakes a lease");
    t.succeed(leased.remove(0)).await;
}

/// Four workers wait and four jobs come: nobody sleeps on.
async fn wakes_every_waiter(t: &Setup) {
    let mut waiters = JoinSet::new();
    for _ in 0..4 {
        let queue = Arc::clone(&t.queue);
        waiters.spawn(async move { queue.lease(ask(&[("many", 1)], 1, secs(60))).await.expect("leases").len() });
    }
    tokio::task::yield_now().await;
    t.submit_many("many", 4).await;
    assert_eq!(soon("four waiting leases", waiters.join_all()).await, [1, 1, 1, 1]);
}

pub(super) async fn a_dropped_lease_call_leaves_no_lease_behind(subject: Arc<dyn Subject>) {
    let t = Setup::new(subject).await;
    let mut dice = Dice::new(11);
    let mut submitted = HashSet::new();
    let mut given = HashSet::new();
    for _ in 0..300 {
        let queue = Arc::clone(&t.queue);
        let lease = async move { queue.lease(ask(&[("f", 3)], 3, secs(60))).await.expect("leases") };
        let patience = Duration::from_micros(dice.next() % 400);
        let caller = tokio::spawn(tokio::time::timeout(patience, lease));
        submitted.extend(t.submit_many("f", 1 + dice.below(2)).await);
        if dice.below(3) == 0 {
            caller.abort();
        }
        let leased = caller.await.ok().and_then(Result::ok).unwrap_or_default();
        given.extend(leased.iter().map(|one| one.job.id));
        assert!(given.is_subset(&submitted));
    }
    // What nobody was given can be leased, without waiting for leases to run out (the clock stands still).
    until("every job that nobody was given is leasable", async || {
        for one in t.lease("f", 100).await {
            assert!(given.insert(one.job.id), "{} was leased twice", one.job.id);
        }
        given.len() == submitted.len()
    })
    .await;
    assert_eq!(t.count("f", State::Running).await, submitted.len() as u64);
}

pub(super) async fn a_scheduled_job_waits_for_its_time(subject: Arc<dyn Subject>) {
    let t = Setup::new(subject).await;
    let now = t.clock.now();
    let past = t.queue.submit(NewJob { not_before: Some(now), ..job("f") }).await.expect("accepted");
    assert_eq!(past.state, State::Queued, "a time that has come is no wait");
    assert_eq!((t.state(past.id).await, t.get(past.id).await.due_at), (State::Queued, None));
    t.succeed(t.lease_one("f").await).await;

    let due_at = now.after(secs(10));
    let id = t.submit(NewJob { not_before: Some(due_at), ..job("f") }).await;
    let record = t.get(id).await;
    assert_eq!((record.state, record.due_at), (State::Scheduled, Some(due_at)));
    t.clock.advance(secs(10) - millis(1));
    t.lease_none("f").await;
    t.clock.advance(millis(1));
    let leased = t.lease_one("f").await;
    assert_eq!((leased.job.id, leased.job.state, leased.job.due_at), (id, State::Running, None));
    assert_eq!(leased.job.ready_at, due_at, "so long has it waited");
    t.succeed(leased).await;

    // By the wall: a jump counts, and a sweep shows what is due.
    let id = t.submit(NewJob { not_before: Some(t.clock.now().after(hours(5))), ..job("f") }).await;
    let far = t.submit(NewJob { not_before: Some(UnixMs(u64::MAX >> 22)), ..job("f") }).await;
    let t = t.reopen().await;
    t.clock.jump_to(t.clock.now().after(hours(5)));
    t.sweep(&Vec::new()).await;
    let record = t.get(id).await;
    assert_eq!((record.state, record.due_at), (State::Queued, None), "after a sweep");
    assert_eq!((t.count("f", State::Queued).await, t.count("f", State::Scheduled).await), (1, 1));
    assert_eq!(t.lease_one("f").await.job.id, id);
    t.lease_none("f").await;
    assert_eq!(t.state(far).await, State::Scheduled);

    // Due while the queue was dead.
    t.submit(NewJob { not_before: Some(t.clock.now().after(secs(9))), ..job("g") }).await;
    t.clock.advance(secs(9));
    let t = t.reopen().await;
    t.lease_one("g").await;
}

pub(super) async fn paused_functions_are_not_leased(subject: Arc<dyn Subject>) {
    let t = Setup::new(subject).await;
    t.submit_many("f", 3).await;
    let running = t.lease_one("f").await;
    t.queue.pause(&name("f"), true).await.expect("pauses");
    t.queue.pause(&name("f"), true).await.expect("pausing twice is pausing");
    t.lease_none("f").await;
    t.submit_many("f", 2).await;
    t.submit(job("g")).await;
    let others = t.ask(&[("f", 5), ("g", 5)], 5).await;
    assert_eq!(others.iter().map(|one| one.job.function.clone()).collect::<Vec<_>>(), [name("g")]);

    assert_eq!(t.renew(&running).await, crate::job::LeaseState::Held, "a running attempt goes on");
    let settlement = finish(&running, failed(), Next::RetryNow);
    assert_eq!(t.settle(running.lease, settlement).await, State::Queued);
    t.lease_none("f").await;

    let t = t.reopen().await;
    t.lease_none("f").await;
    let is_paused = |t: &Setup| t.queue.stats().functions.iter().any(|(f, stats)| *f == name("f") && stats.paused);
    assert!(is_paused(&t), "a pause outlives a restart");
    t.queue.pause(&name("f"), false).await.expect("resumes");
    assert!(!is_paused(&t));
    assert_eq!(t.lease("f", 9).await.len(), 5);
    let t = t.reopen().await;
    assert!(!is_paused(&t), "a resume outlives a restart");
    t.lease_one("f").await;
}
