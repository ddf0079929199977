//! Rules 25 and 31: what a watcher hears, and the end.

use std::collections::HashSet;
use std::sync::Arc;

use kvern_core::limits::LEASE_TTL;
use kvern_core::{JobId, Next, State};

use super::Subject;
use super::setup::{Setup, failed, finish, job, secs, soon};
use crate::error::Error;
use crate::events::{Event, Watch, Watcher};
use crate::job::{NewJob, Settlement};

pub(super) async fn a_watcher_hears_of_every_move(subject: Arc<dyn Subject>) {
    let t = Setup::new(subject).await;
    let mut all = t.queue.watch(Watch::All);
    let id = t.submit(job("f")).await;
    expect_move(&t, &mut all, id, State::Queued).await;
    let mut own = t.queue.watch(Watch::Job(id));

    let leased = t.lease_one("f").await;
    expect_move(&t, &mut all, id, State::Running).await;
    soon("news of the job", own.next()).await.expect("the queue lives");
    t.settle(leased.lease, Settlement::Release).await;
    expect_move(&t, &mut all, id, State::Queued).await;
    let leased = t.lease_one("f").await;
    let settlement = finish(&leased, failed(), Next::RetryAt(t.clock.now().after(secs(5))));
    t.settle(leased.lease, settlement).await;
    expect_move(&t, &mut all, id, State::Scheduled).await;
    t.clock.advance(secs(5));
    t.sweep(&Vec::new()).await;
    expect_move(&t, &mut all, id, State::Queued).await;
    t.lease_one("f").await;
    t.clock.advance(LEASE_TTL);
    t.sweep(&Vec::new()).await;
    expect_move(&t, &mut all, id, State::Running).await;
    expect_move(&t, &mut all, id, State::Queued).await;
    t.fail(t.lease_one("f").await).await;
    expect_move(&t, &mut all, id, State::Failed).await;
    t.queue.retry(id).await.expect("a dead letter");
    expect_move(&t, &mut all, id, State::Queued).await;
    t.queue.cancel(id).await.expect("a waiting job is cancelled");
    expect_move(&t, &mut all, id, State::Cancelled).await;
    soon("news of the job", own.next()).await.expect("the queue lives");

    let id = t.submit(NewJob { expires_at: Some(t.clock.now().after(secs(5))), ..job("f") }).await;
    t.clock.advance(secs(5));
    t.sweep(&Vec::new()).await;
    expect_move(&t, &mut all, id, State::Failed).await;
    moves_made_together(&t).await;
    each_move_of_one_job(&t).await;
    a_slow_watcher(&t).await;
}

/// One operation that moves many jobs tells of each.
async fn moves_made_together(t: &Setup) {
    let mut all = t.queue.watch(Watch::All);
    let not_before = Some(t.clock.now().after(secs(1)));
    let mut ids = HashSet::new();
    for _ in 0..5 {
        ids.insert(t.submit(NewJob { not_before, ..job("many") }).await);
    }
    hear_all(&mut all, &ids, State::Scheduled).await;
    t.clock.advance(secs(1));
    t.sweep(&Vec::new()).await;
    hear_all(&mut all, &ids, State::Queued).await;
    let leased = t.lease("many", 5).await;
    assert_eq!(leased.len(), 5);
    hear_all(&mut all, &ids, State::Running).await;
    t.clock.advance(LEASE_TTL);
    t.sweep(&Vec::new()).await;
    hear_all(&mut all, &ids, State::Queued).await;
    for leased in t.lease("many", 5).await {
        t.succeed(leased).await;
    }
    hear_all(&mut all, &ids, State::Succeeded).await;
}

async fn hear_all(watcher: &mut Watcher, ids: &HashSet<JobId>, expected: State) {
    let mut unheard = ids.clone();
    let heard = async {
        while !unheard.is_empty() {
            let event = watcher.next().await.expect("the queue lives");
            assert_ne!(event, Event::Missed, "nothing was missed by a watcher that reads at once");
            if let Event::Moved { id, state, .. } = event
                && state == expected
            {
                unheard.remove(&id);
            }
        }
    };
    soon(&format!("each of several jobs {expected}"), heard).await;
}

/// Waits for this move, and sees that the record shows it.
pub(super) async fn the_end_is_heard(subject: Arc<dyn Subject>) {
    let t = Setup::new(subject).await;
    t.submit(job("f")).await;
    let queue = Arc::clone(&t.queue);
    let mut closed = tokio::spawn(async move { queue.closed().await });
    t.lease_one("f").await;
    assert!(!closed.is_finished() && t.queue.health().is_ok(), "it works");
    t.queue.close().await;
    let why = soon("the end", &mut closed).await.expect("no panic");
    assert!(matches!(why, Error::Closed(_)), "{why}");
    let again = soon("the end, asked for later", t.queue.closed()).await;
    assert_eq!(
        (again.to_string(), t.queue.health().map_err(|e| e.to_string())),
        (why.to_string(), Err(why.to_string()))
    );
}

async fn expect_move(t: &Setup, watcher: &mut Watcher, job: JobId, expected: State) {
    let heard = async {
        loop {
            match watcher.next().await.expect("the queue lives") {
                Event::Moved { id, state, function } if id == job && state == expected => return function,
                Event::Moved { .. } => {}
                Event::Missed => panic!("{expected}: nothing was missed by a watcher that reads at once"),
            }
        }
    };
    let function = soon(&format!("the event of a job {expected}"), heard).await;
    assert_eq!(function, t.get(job).await.function);
}

/// One who watches a job before each of its moves hears of each, and then the record shows it.
async fn each_move_of_one_job(t: &Setup) {
    let id = t.submit(job("f")).await;
    for n in 0..50 {
        let mut watcher = t.queue.watch(Watch::Job(id));
        let queue = Arc::clone(&t.queue);
        let mover = tokio::spawn(async move {
            let ask = super::setup::ask(&[("f", 1)], 1, secs(5));
            let leased = queue.lease(ask).await.expect("leases").remove(0);
            let settlement = finish(&leased, failed(), Next::RetryNow);
            queue.settle(leased.lease, settlement).await.expect("the lease stands")
        });
        let heard = async {
            while t.get(id).await.tally.attempts <= n {
                watcher.next().await.expect("the queue lives");
            }
        };
        soon("news of the settlement", heard).await;
        assert_eq!(mover.await.expect("no panic"), State::Queued);
    }
    t.queue.cancel(id).await.expect("a waiting job is cancelled");
}

/// One who does not read is told that something was missed, or hears everything after all.
async fn a_slow_watcher(t: &Setup) {
    let mut slow = t.queue.watch(Watch::All);
    let mut unheard: HashSet<JobId> = t.submit_many("many", 1500).await.into_iter().collect();
    let heard = async {
        while !unheard.is_empty() {
            match slow.next().await.expect("the queue lives") {
                Event::Moved { id, .. } => drop(unheard.remove(&id)),
                Event::Missed => return,
            }
        }
    };
    soon("every move, or the news that some were missed", heard).await;
}
