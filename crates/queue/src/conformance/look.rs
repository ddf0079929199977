//! Rules 23, 24, 26, 27 and 32: what can be seen from outside.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use kvern_core::limits::{LOG_BYTES_MAX, PAGE_JOBS_MAX, WORKER_LISTED_FOR};
use kvern_core::{FunctionName, Job, JobId, Next, Outcome, State, UnixMs};

use super::Subject;
use super::setup::{Dice, Setup, attempt, crashed, failed, finish, hours, job, millis, name, secs, until};
use crate::error::Error;
use crate::job::{Cursor, Filter, LeaseState, Leased, NewJob, Settlement, WorkerInfo};
use crate::log::LOG_IS_FULL;

const FUNCTIONS: [&str; 3] = ["a", "b", "c"];

pub(super) async fn lists_are_whole_and_in_order(subject: Arc<dyn Subject>) {
    let mut dice = Dice::new(23);
    let t = Setup::new(subject).await;
    let began = t.clock.now();
    let jobs = jobs_in_all_states(&t, &mut dice, 260).await;
    all_filters(&t, &mut dice, &jobs, began).await;
    while_jobs_move(&t, &jobs).await;
    bad_cursors(&t).await;

    let most = t.queue.list(&Filter::default(), None, usize::MAX).await.expect("a list");
    assert!(most.jobs.len() <= PAGE_JOBS_MAX);
    let least = t.queue.list(&Filter::default(), None, 0).await.expect("a list");
    assert_eq!(least.jobs.len(), 1, "a page has at least one job");
    let t = t.reopen().await;
    let again = t.queue.list(&Filter::default(), None, 50).await.expect("a list").jobs;
    assert!(again.is_sorted_by_key(|job| Reverse(oracle_place(job))), "in order after a restart");
}

/// Jobs of every state and function, with times that often coincide.
async fn jobs_in_all_states(t: &Setup, dice: &mut Dice, count: usize) -> Vec<JobId> {
    let mut ids = Vec::new();
    for n in 0..count {
        let function = FUNCTIONS[dice.below(3)];
        t.clock.advance(millis(dice.next() % 3));
        let is_later = n % 6 == 0;
        let not_before = is_later.then(|| t.clock.now().after(hours(1 + dice.next() % 4)));
        ids.push(t.submit(NewJob { not_before, ..job(function) }).await);
        match n % 6 {
            0 | 1 => continue,
            2 => drop(t.queue.cancel(ids[n]).await.expect("a waiting job is cancelled")),
            _ => {
                let Some(leased) = t.lease(function, 1).await.pop() else { continue };
                let settlement = match n % 4 {
                    0 => finish(&leased, failed(), Next::Fail),
                    1 => finish(&leased, failed(), Next::RetryAt(t.clock.now().after(hours(1 + dice.next() % 4)))),
                    2 => continue,
                    _ => super::setup::success(&leased, b""),
                };
                t.settle(leased.lease, settlement).await;
            }
        }
    }
    let states: HashSet<State> = records(t, &ids).await.iter().map(|job| job.state).collect();
    assert_eq!(states.len(), State::ALL.len(), "the test has jobs in every state");
    ids
}

async fn records(t: &Setup, ids: &[JobId]) -> Vec<Job> {
    let mut jobs = Vec::new();
    for id in ids {
        jobs.push(t.get(*id).await);
    }
    jobs
}

/// The order in words of its own, so that an error in [`crate::list`] is found.
fn oracle_place(job: &Job) -> (UnixMs, JobId) {
    let at = match job.state {
        State::Scheduled => job.due_at,
        State::Queued | State::Running => Some(job.created_at),
        State::Succeeded | State::Failed | State::Cancelled => job.finished_at,
    };
    (at.expect("each state has its time"), job.id)
}

async fn all_filters(t: &Setup, dice: &mut Dice, ids: &[JobId], began: UnixMs) {
    let records = records(t, ids).await;
    let mut state_sets: Vec<Vec<State>> = vec![Vec::new(), State::ALL.to_vec()];
    state_sets.extend(State::ALL.map(|state| vec![state]));
    state_sets.extend((0..6).map(|_| State::ALL.into_iter().filter(|_| dice.below(2) == 0).collect()));
    let ends = records.iter().map(|job| oracle_place(job).0);
    let latest = ends.max().expect("there are jobs");
    for function in [None, Some("a"), Some("b"), Some("c"), Some("nobody")] {
        for states in &state_sets {
            for since in
                [None, Some(began), Some(oracle_place(&records[100]).0), Some(latest), Some(UnixMs(latest.0 + 1))]
            {
                let filter = Filter { function: function.map(name), states: states.clone(), since };
                check_list(t, &records, &filter).await;
            }
        }
    }
}

async fn check_list(t: &Setup, records: &[Job], filter: &Filter) {
    let mut expected: Vec<&Job> = records.iter().filter(|job| is_wanted(filter, job)).collect();
    expected.sort_by_key(|job| Reverse(oracle_place(job)));
    let listed = t.list(filter, 7).await;
    let ids = |jobs: &[&Job]| jobs.iter().map(|job| (job.id, job.state)).collect::<Vec<_>>();
    assert_eq!(ids(&listed.iter().collect::<Vec<_>>()), ids(&expected), "pages of 7 under {filter:?}");
    assert!(listed.iter().eq(expected), "records of the list under {filter:?}");
}

fn is_wanted(filter: &Filter, job: &Job) -> bool {
    let function = filter.function.as_ref().is_none_or(|function| *function == job.function);
    let state = filter.states.is_empty() || filter.states.contains(&job.state);
    function && state && filter.since.is_none_or(|since| oracle_place(job).0 >= since)
}

/// Jobs come and finish between the pages; those that stay are each seen once.
async fn while_jobs_move(t: &Setup, ids: &[JobId]) {
    let filter = Filter::default();
    let mut moved = HashSet::new();
    let mut seen: Vec<JobId> = Vec::new();
    let mut cursor = None;
    for page in 0.. {
        let listed = t.queue.list(&filter, cursor.as_ref(), 7).await.expect("the cursor is the list's own");
        seen.extend(listed.jobs.iter().map(|job| job.id));
        cursor = listed.next;
        if cursor.is_none() {
            break;
        }
        moved.insert(t.submit(job(FUNCTIONS[page % 3])).await);
        if let Some(leased) = t.lease(FUNCTIONS[(page + 1) % 3], 1).await.pop() {
            moved.insert(leased.job.id);
            t.succeed(leased).await;
        }
    }
    let stayed: Vec<JobId> = ids.iter().copied().filter(|id| !moved.contains(id)).collect();
    assert!(stayed.len() > 100);
    for id in stayed {
        assert_eq!(seen.iter().filter(|one| **one == id).count(), 1, "{id} stayed where it was");
    }
}

async fn bad_cursors(t: &Setup) {
    let own = Filter { function: Some(name("a")), ..Filter::default() };
    let cursor = t.queue.list(&own, None, 3).await.expect("a list").next.expect("more than three");
    let others = [
        Filter::default(),
        Filter { function: Some(name("b")), ..Filter::default() },
        Filter { states: vec![State::Queued], ..own.clone() },
        Filter { since: Some(UnixMs(0)), ..own.clone() },
    ];
    for other in others {
        let answer = t.queue.list(&other, Some(&cursor), 3).await;
        assert!(matches!(answer, Err(Error::BadCursor)), "another filter's cursor gave {answer:?}");
    }
    for text in ["", "x", "0", "%00", "\u{1f600}", &cursor.0[1..], &format!("{}0", cursor.0), &"f".repeat(5000)] {
        let answer = t.queue.list(&own, Some(&Cursor(text.to_owned())), 3).await;
        assert!(matches!(answer, Err(Error::BadCursor)), "the cursor {text:?} gave {answer:?}");
    }
}

pub(super) async fn counts_are_right(subject: Arc<dyn Subject>) {
    let mut dice = Dice::new(24);
    let mut t = Setup::new(subject).await;
    for round in 0..6 {
        churn(&t, &mut dice).await;
        check_counts(&t).await;
        t.clock.advance(secs(40));
        t.sweep(&super::setup::keep(&["a", "b"], secs(30), secs(60))).await;
        check_counts(&t).await;
        if round % 2 == 1 {
            t = t.reopen().await;
            check_counts(&t).await;
        }
    }
    t.queue.pause(&name("b"), true).await.expect("pauses");
    let paused = t.queue.stats().functions.into_iter().filter(|(_, stats)| stats.paused);
    assert_eq!(paused.map(|(function, _)| function).collect::<Vec<_>>(), [name("b")]);
}

async fn churn(t: &Setup, dice: &mut Dice) {
    for _ in 0..60 {
        let function = FUNCTIONS[dice.below(3)];
        let not_before = (dice.below(4) == 0).then(|| t.clock.now().after(secs(dice.next() % 60)));
        let expires_at = (dice.below(4) == 0).then(|| t.clock.now().after(secs(dice.next() % 60)));
        let id = t.submit(NewJob { not_before, expires_at, ..job(function) }).await;
        if dice.below(6) == 0 {
            t.queue.cancel(id).await.expect("a waiting job is cancelled");
        }
        let Some(leased) = t.lease(function, dice.below(2)).await.pop() else { continue };
        let settlement = match dice.below(6) {
            0 => finish(&leased, failed(), Next::Fail),
            1 => finish(&leased, failed(), Next::RetryAt(t.clock.now().after(secs(20)))),
            2 => finish(&leased, crashed(), Next::RetryNow),
            3 => Settlement::Release,
            4 => continue,
            _ => super::setup::success(&leased, b""),
        };
        t.settle(leased.lease, settlement).await;
    }
}

async fn check_counts(t: &Setup) {
    for function in FUNCTIONS {
        for state in State::ALL {
            let filter = Filter { function: Some(name(function)), states: vec![state], since: None };
            let listed = t.list(&filter, 100).await.len() as u64;
            assert_eq!(t.count(function, state).await, listed, "jobs of `{function}` that are {state}");
        }
        assert_eq!(t.stats_of(function).finished_bytes, t.finished_bytes(function).await, "bytes of `{function}`");
    }
    let names: Vec<FunctionName> = t.queue.stats().functions.into_iter().map(|(function, _)| function).collect();
    assert!(names.is_sorted(), "stats go by name: {names:?}");
}

pub(super) async fn logs_append(subject: Arc<dyn Subject>) {
    let mut dice = Dice::new(26);
    let t = Setup::new(subject).await;
    let id = t.submit(job("f")).await;
    assert!(t.log(id).await.is_empty());
    let mut expected = Vec::new();
    for next in [Next::RetryNow, Next::Fail] {
        let leased = t.lease_one("f").await;
        for _ in 0..20 {
            let piece = some_bytes(&mut dice, 700);
            expected.extend_from_slice(&piece);
            t.queue.append_log(leased.lease.token(), piece).await.expect("the lease stands");
        }
        until("the log of a running job", async || t.log(id).await == expected).await;
        let rest = some_bytes(&mut dice, 5000);
        expected.extend_from_slice(&rest);
        let attempt = attempt(&leased, &failed());
        let token = leased.lease.token();
        let settlement = Settlement::Finish { outcome: failed(), next, result: None, attempt, log: rest };
        t.settle(leased.lease, settlement).await;
        assert!(t.log(id).await == expected, "the log after the settlement");
        let late = t.queue.append_log(token, Bytes::from_static(b"late")).await;
        assert!(matches!(late, Err(Error::StaleLease(job)) if job == id), "a stale lease's log gave {late:?}");
    }
    any_piece(&t, &mut dice, id, &expected).await;
    let t = t.reopen().await;
    any_piece(&t, &mut dice, id, &expected).await;
    let nobody = JobId::new(id.sequence(), id.random() ^ 1);
    assert!(matches!(t.queue.read_log(nobody, 0, 1).await, Err(Error::UnknownJob(_))));
}

pub(super) async fn a_log_is_bounded(subject: Arc<dyn Subject>) {
    let t = Setup::new(subject).await;
    let id = t.submit(job("f")).await;
    let bytes_max = usize::try_from(LOG_BYTES_MAX).expect("it fits into memory");
    // The first attempt leaves room for a piece and a half.
    let piece = Bytes::from(vec![b'p'; bytes_max / 10]);
    let leased = t.lease_one("f").await;
    for _ in 0..8 {
        t.queue.append_log(leased.lease.token(), piece.clone()).await.expect("the lease stands");
    }
    let first = piece.slice(..piece.len() / 2);
    let settlement = retried(&leased, first);
    t.settle(leased.lease, settlement).await;
    let mut expected = vec![b'p'; piece.len() * 8 + piece.len() / 2];
    assert!(whole_log(&t, id).await == expected, "nothing is dropped below the bound");

    expected.resize(bytes_max, b'p');
    expected.extend_from_slice(LOG_IS_FULL);
    for _ in 0..2 {
        let leased = t.lease_one("f").await;
        for _ in 0..2 {
            t.queue.append_log(leased.lease.token(), piece.clone()).await.expect("what is dropped is no error");
        }
        let settlement = retried(&leased, piece.clone());
        t.settle(leased.lease, settlement).await;
        assert!(whole_log(&t, id).await == expected, "the first bytes, and one line");
    }
    let t = t.reopen().await;
    assert!(whole_log(&t, id).await == expected, "also after a restart");
}

/// The end of an attempt that printed this last, and is followed by another.
fn retried(leased: &Leased, log: Bytes) -> Settlement {
    let outcome = failed();
    Settlement::Finish { attempt: attempt(leased, &outcome), outcome, next: Next::RetryNow, result: None, log }
}

async fn whole_log(t: &Setup, id: JobId) -> Bytes {
    t.queue.read_log(id, 0, usize::MAX).await.expect("the job is there")
}

fn some_bytes(dice: &mut Dice, most: usize) -> Bytes {
    let count = dice.below(most);
    dice.bytes(count)
}

async fn any_piece(t: &Setup, dice: &mut Dice, id: JobId, expected: &[u8]) {
    assert!(t.log(id).await == expected, "the whole log");
    for _ in 0..60 {
        let (offset, limit) = (dice.below(expected.len() + 50), 1 + dice.below(3000));
        let piece = t.queue.read_log(id, offset as u64, limit).await.expect("the job is there");
        let rest = expected.get(offset..).unwrap_or_default();
        assert!(piece.len() <= limit && rest.starts_with(&piece), "{limit} bytes from {offset}");
        assert_eq!(piece.is_empty(), rest.is_empty(), "empty at the end only");
    }
    let beyond = t.queue.read_log(id, u64::MAX, 10).await.expect("the job is there");
    assert!(beyond.is_empty());
}

pub(super) async fn workers_are_seen(subject: Arc<dyn Subject>) {
    let t = Setup::new(subject).await;
    let seen = async || {
        let mut workers = t.queue.workers().await.expect("an open queue answers");
        workers.sort_by(|a, b| a.name.cmp(&b.name));
        workers.into_iter().map(|worker| worker.name).collect::<Vec<_>>()
    };
    assert!(seen().await.is_empty());
    let info = |who: &str, version: &str| WorkerInfo {
        name: who.to_owned(),
        functions: vec![(name("f"), version.to_owned())],
        seen_at: t.clock.now(),
    };
    t.queue.announce(info("one", "v1")).await.expect("announces");
    t.clock.advance(WORKER_LISTED_FOR - millis(1));
    t.queue.announce(info("two", "v1")).await.expect("announces");
    assert_eq!(seen().await, ["one", "two"]);
    t.clock.jump_to(t.clock.now().after(hours(1)));
    assert_eq!(seen().await, ["one", "two"], "the wall clock has no say");
    t.clock.advance(millis(1));
    assert_eq!(seen().await, ["two"]);
    t.clock.advance(secs(1));
    let latest = info("two", "v2");
    t.queue.announce(latest.clone()).await.expect("announces again");
    t.clock.advance(WORKER_LISTED_FOR - millis(1));
    assert_eq!(t.queue.workers().await.expect("an open queue answers"), [latest], "as it announced itself last");
    t.clock.advance(millis(1));
    assert!(seen().await.is_empty());

    // Leases are not tied to announcements.
    t.submit(job("f")).await;
    let leased = t.lease_one("f").await;
    assert_eq!(t.renew(&leased).await, LeaseState::Held);
    let settlement = finish(&leased, Outcome::Cancelled, Next::Cancel);
    assert_eq!(t.settle(leased.lease, settlement).await, State::Cancelled);
}
