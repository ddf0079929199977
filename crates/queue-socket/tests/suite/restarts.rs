//! What a client does while its server is gone, and after it came back.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use kvern_core::{Attempt, FunctionName, JobId, Next, Outcome, State, UnixMs, limits};
use kvern_queue::{
    Ask, Clock, Error, LeaseState, Leased, MemoryQueue, NewJob, Payload, Queue, Settlement, Want, WorkerInfo,
};
use kvern_queue_socket::{ConnectError, Ended, Hears, SocketError, SocketQueue};
use tempfile::TempDir;

use crate::server::{SOON, Served, until};

/// A queue in memory, its server, and a client.
pub(crate) struct Setup {
    pub(crate) queue: Arc<MemoryQueue>,
    pub(crate) served: Option<Served>,
    pub(crate) client: Arc<SocketQueue>,
    pub(crate) path: PathBuf,
    _dir: TempDir,
}

// === impl Setup ===

impl Setup {
    pub(crate) async fn new() -> Self {
        let dir = TempDir::new().expect("a directory");
        let path = dir.path().join("queue.sock");
        let queue = Arc::new(MemoryQueue::new(Clock::manual(UnixMs(1_700_000_000_000))));
        let served = Some(Served::start(Arc::clone(&queue) as _, &path));
        let client = SocketQueue::open(&path).await.expect("it connects");
        Self { queue, served, client, path, _dir: dir }
    }

    /// Kills the server; the queue lives on, as nothing real would.
    async fn kill(&mut self) {
        self.served.take().expect("it runs").kill().await;
        until("the client hears of it", || self.client.connected().is_none()).await;
    }

    fn start(&mut self) -> &Served {
        self.served.insert(Served::start(Arc::clone(&self.queue) as _, &self.path))
    }

    pub(crate) async fn submit(&self) -> JobId {
        self.client.submit(job()).await.expect("it is accepted").id
    }

    async fn lease_one(&self) -> Leased {
        self.client.lease(ask(Duration::ZERO)).await.expect("it leases").pop().expect("a job waits")
    }

    async fn state(&self, id: JobId) -> State {
        self.client.get(id).await.expect("it is there").state
    }
}

fn name() -> FunctionName {
    "f".parse().expect("a name")
}

fn job() -> NewJob {
    NewJob {
        function: name(),
        input: Payload::Inline(Bytes::from_static(b"input")),
        content_type: None,
        idempotency: None,
        not_before: None,
        expires_at: None,
        priority: limits::PRIORITY_DEFAULT,
        tags: Vec::new(),
        max_queued: 1000,
    }
}

fn ask(wait: Duration) -> Ask {
    Ask { worker: "w".to_owned(), wants: vec![Want { function: name(), slots: 8 }], max: 1, wait }
}

fn success(leased: &Leased, result: Payload) -> Settlement {
    let started_at = leased.job.started_at.expect("it has started");
    let attempt = Attempt {
        number: 1,
        outcome: "succeeded".to_owned(),
        started_at,
        finished_at: started_at.after(Duration::from_millis(1500)),
        version: None,
        error: None,
    };
    let result = Some(("text/plain".to_owned(), result));
    Settlement::Finish { outcome: Outcome::Succeeded, next: Next::Succeed, result, attempt, log: Bytes::new() }
}

fn done() -> Payload {
    Payload::Inline(Bytes::from_static(b"done"))
}

/// What is begun while nobody listens, and ends once somebody does.
async fn over_a_gap<T: Send + 'static>(t: &mut Setup, work: impl Future<Output = T> + Send + 'static) -> T {
    t.kill().await;
    let working = tokio::spawn(work);
    tokio::task::yield_now().await;
    t.start();
    tokio::time::timeout(SOON, working).await.expect("soon").expect("no panic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settlement_waits_for_the_server() {
    let mut t = Setup::new().await;
    let id = t.submit().await;
    let leased = t.lease_one().await;
    let (client, settlement) = (Arc::clone(&t.client), success(&leased, done()));
    let settled = over_a_gap(&mut t, async move { client.settle(leased.lease, settlement).await }).await;
    assert_eq!((settled.expect("the lease stood"), t.state(id).await), (State::Succeeded, State::Succeeded));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_of_a_dead_server_is_over() {
    let mut t = Setup::new().await;
    let id = t.submit().await;
    let leased = t.lease_one().await;
    let (client, queue) = (Arc::clone(&t.client), Arc::clone(&t.queue));
    let (token, settlement) = (leased.lease.token(), success(&leased, done()));
    let late = over_a_gap(&mut t, async move {
        queue.reboot();
        client.settle(leased.lease, settlement).await
    });
    assert!(matches!(late.await, Err(Error::StaleLease(job)) if job == id), "the lease went with the server");
    assert_eq!(t.client.renew(&[token]).await.expect("it answers"), [LeaseState::Over]);
    let record = t.client.get(id).await.expect("it is there");
    assert_eq!((record.state, record.tally.attempts), (State::Queued, 0), "neither a retry nor a strike");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_goes_with_the_connection_that_took_it() {
    let mut t = Setup::new().await;
    t.submit().await;
    let leased = t.lease_one().await;
    let mut stage = t.client.stage().await.expect("a stage");
    stage.write(vec![7; 3 * limits::INLINE_BYTES_MAX].into()).await.expect("there is room");
    let result = stage.finish().await.expect("it is whole");
    let (client, settlement) = (Arc::clone(&t.client), success(&leased, result));
    let settled = over_a_gap(&mut t, async move { client.settle(leased.lease, settlement).await }).await;
    assert!(matches!(settled, Err(Error::Broken(_))), "half a result is none: {settled:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_lease_is_asked_again() {
    let mut t = Setup::new().await;
    let client = Arc::clone(&t.client);
    let leasing = tokio::spawn(async move { client.lease(ask(Duration::from_secs(60))).await });
    t.kill().await;
    t.start();
    until("the client connects again", || t.client.connected().is_some()).await;
    let id = t.submit().await;
    let leased = tokio::time::timeout(SOON, leasing).await.expect("soon").expect("no panic").expect("it leases");
    assert_eq!(leased.iter().map(|one| one.job.id).collect::<Vec<_>>(), [id]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_server_hears_who_works() {
    let mut t = Setup::new().await;
    let worker = WorkerInfo { name: "w".to_owned(), functions: vec![(name(), "v1".to_owned())], seen_at: UnixMs(1) };
    t.client.announce(worker.clone()).await.expect("it is heard");
    assert_eq!(t.served.as_ref().expect("it runs").server.workers(), std::slice::from_ref(&worker));
    t.kill().await;
    let server = Arc::clone(&t.start().server);
    until("the worker is announced", || server.workers() == [worker.clone()]).await;
    drop(t.client);
    until("a client that is gone is no worker", || server.workers().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_drains_gives_no_more_leases_and_takes_what_ends() {
    let t = Setup::new().await;
    let id = t.submit().await;
    let leased = t.lease_one().await;
    t.submit().await;
    t.served.as_ref().expect("it runs").stop.drain.cancel();
    let mut refused = std::pin::pin!(t.client.lease(ask(Duration::from_secs(60))));
    // Asked before the settlement, and so heard before it.
    assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(refused.as_mut().poll(cx))).await.is_pending());
    let settlement = success(&leased, done());
    assert_eq!(t.client.settle(leased.lease, settlement).await.expect("it is taken"), State::Succeeded);
    assert_eq!(t.state(id).await, State::Succeeded);
    let running = t.queue.stats().functions.iter().map(|(_, counts)| counts.running).sum::<u64>();
    assert_eq!(running, 0, "nothing was leased");
}

/// Remembers what it heard.
#[derive(Default)]
struct Heard(Mutex<Vec<(String, &'static str, Duration, Duration)>>);

impl Hears for Heard {
    fn leased(&self) {}

    fn settled(&self, ended: &Ended<'_>) {
        let one = (ended.function.to_string(), ended.outcome, ended.wait, ended.run);
        self.0.lock().expect("no test panics here").push(one);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_hears_how_attempts_end() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("queue.sock");
    let clock = Clock::manual(UnixMs(1_700_000_000_000));
    let (queue, heard) = (Arc::new(MemoryQueue::new(clock.clone())), Arc::new(Heard::default()));
    let _served = Served::heard(queue, &path, Arc::clone(&heard) as _);
    let client = SocketQueue::open(&path).await.expect("it connects");
    for _ in 0..2 {
        client.submit(job()).await.expect("it is accepted");
    }
    clock.advance(Duration::from_secs(3));
    let leased = client.lease(ask(Duration::ZERO)).await.expect("it leases").remove(0);
    let settlement = success(&leased, done());
    client.settle(leased.lease, settlement).await.expect("it stands");
    let released = client.lease(ask(Duration::ZERO)).await.expect("it leases").remove(0);
    client.settle(released.lease, Settlement::Release).await.expect("it stands");
    let expected = ("f".to_owned(), "succeeded", Duration::from_secs(3), Duration::from_millis(1500));
    assert_eq!(*heard.0.lock().expect("no test panics here"), [expected], "a release is no attempt");
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_of_nobody_is_answered_in_time() {
    let dir = TempDir::new().expect("a directory");
    let client = SocketQueue::open(&dir.path().join("queue.sock")).await.expect("it may come");
    let id: JobId = "01890a5d-ac96-774b-bcce-b302099a8057".parse().expect("an id");
    let began = tokio::time::Instant::now();
    assert!(matches!(client.get(id).await, Err(Error::Busy(why)) if why.contains("does not answer")));
    assert!(matches!(client.submit(job()).await, Err(Error::Busy(_))), "nothing was stored");
    assert!(client.lease(ask(Duration::from_secs(5))).await.expect("it waits").is_empty());
    assert!(began.elapsed() < Duration::from_secs(26), "{:?}", began.elapsed());
    assert!(matches!(client.room(), Err(Error::Busy(_))) && client.stats().functions.is_empty());
    client.close().await;
    assert!(matches!(client.submit(job()).await, Err(Error::Closed(_))));
}

#[tokio::test]
async fn what_waiting_does_not_mend_is_said_at_once() {
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("notes");
    std::fs::write(&file, "").expect("a file");
    let unfit = SocketQueue::open(&file).await.expect_err("no socket");
    assert!(matches!(&unfit, ConnectError::Unfit(SocketError::NotASocket { .. })), "{unfit}");
    let long = dir.path().join("x".repeat(120));
    let unfit = SocketQueue::open(&long).await.expect_err("too long");
    assert!(matches!(&unfit, ConnectError::Unfit(SocketError::TooLong { .. })), "{unfit}");
}
