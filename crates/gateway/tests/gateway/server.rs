//! The one setup: a gateway on a port of its own, with the functions `hello`, `small` and three with routes.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kvern_core::{
    Attempt, Door, Failure, Function, FunctionName, Keep, Memory, Mode, Next, Outcome, RetryPolicy, Route, Scale,
    UnixMs, limits,
};
use kvern_gateway::{Condition, Drained, Functions, Limits, Metrics, Parts, Settings, run};
use kvern_queue::{Ask, Clock, Leased, MemoryQueue, Payload, Queue, Settlement, Want};
use kvern_runtime::{Call, CallError, Reply};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::client::{self, Answer, within};
use crate::fakes::{Rigged, Theatre};

/// The time at which every test begins: 2027-01-15T08:00:00.123Z.
pub(crate) const START: UnixMs = UnixMs(1_800_000_000_123);

/// A gateway and everything around it.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) queue: Arc<Rigged>,
    pub(crate) theatre: Arc<Theatre>,
    pub(crate) functions: watch::Sender<Arc<Functions>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Clock,
    pub(crate) stop: CancellationToken,
    pub(crate) ended: JoinHandle<Drained>,
}

/// A function with defaults.
pub(crate) fn function(name: &str) -> Function {
    Function {
        name: name.parse().expect("a name"),
        door: Door::Exec { argv: vec!["./bin".to_owned()] },
        home: "/".into(),
        route: None,
        mode: Mode::Async,
        timeout: limits::TIMEOUT_DEFAULT,
        retry: RetryPolicy::default(),
        concurrency: 1,
        scale: Scale { min: 0, max: 1, idle: Duration::from_secs(60) },
        memory: NonZeroU64::new(1 << 20).map(Memory),
        env: vec![("SECRET".to_owned(), "hidden".to_owned())],
        max_input: 1 << 20,
        max_output: 1 << 20,
        max_queued: 100,
        keep: Keep { succeeded: Duration::from_secs(3600), failed: Duration::from_secs(7200), ..Keep::default() },
    }
}

fn with_route(name: &str, method: &str, path: &str, mode: Mode) -> Function {
    let route = Some(Route { method: method.to_owned(), path: path.to_owned() });
    Function { route, mode, ..function(name) }
}

fn functions() -> Vec<Function> {
    vec![
        function("hello"),
        Function { max_input: 1000, max_queued: 2, ..function("small") },
        with_route("upload", "POST", "/submit-job", Mode::Async),
        with_route("report", "GET", "/report", Mode::Sync),
        with_route("visit", "GET", "/hook", Mode::Async),
    ]
}

/// A page, and a stream that says one thing and then waits for a next one.
fn pages() -> axum::Router {
    let events = async || {
        let first = futures_util::stream::once(async { Ok::<_, std::convert::Infallible>("data: 1\n\n") });
        axum::body::Body::from_stream(futures_util::StreamExt::chain(first, futures_util::stream::pending()))
    };
    axum::Router::new()
        .route("/ui", axum::routing::get(async || "a page"))
        .route("/ui/events", axum::routing::get(events))
}

// === impl Server ===

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(Settings::default()).await
    }

    pub(crate) async fn with_limits(limits: Limits) -> Self {
        Self::with(Settings { limits, ..Settings::default() }).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        let clock = Clock::manual(START);
        let queue = Arc::new(Rigged::new(MemoryQueue::new(clock.clone())));
        let theatre = Arc::new(Theatre::echo());
        let metrics = Arc::new(Metrics::new());
        let (sender, receiver) = watch::channel(Arc::new(Functions::new(functions(), &metrics)));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let broken = |name: &FunctionName| Condition {
            version: Some("abc123".to_owned()),
            error: (name.as_str() == "small").then(|| "no such file".to_owned()),
            started: true,
        };
        let parts = Parts {
            queue: Arc::clone(&queue) as _,
            invoke: Arc::clone(&theatre) as _,
            functions: receiver,
            conditions: Arc::new(broken),
            workers: None,
            clock: clock.clone(),
            settings,
            metrics: Arc::clone(&metrics),
            fsync: Some(Arc::new(|| kvern_gateway::HistogramValues {
                buckets: vec![(0.001, 2), (f64::INFINITY, 1)],
                sum: 0.5,
                count: 3,
            })),
            extra: pages(),
        };
        let stop = CancellationToken::new();
        let ended = tokio::spawn(run(listener, parts, stop.clone()));
        Self { address, queue, theatre, functions: sender, metrics, clock, stop, ended }
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        client::send(self.address, method, path, headers, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.send("POST", path, &[], body).await
    }

    /// Submits a job of `hello` and gives its id.
    pub(crate) async fn submit(&self) -> String {
        let answer = self.post("/v1/functions/hello/jobs", "hi").await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.id()
    }

    /// Says what the functions do with calls.
    pub(crate) fn play<F>(&self, play: impl Fn(Call) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<Reply, CallError>> + Send + 'static,
    {
        *self.theatre.play.lock().expect("no test panics in here") = Arc::new(move |call| Box::pin(play(call)));
    }

    /// Takes the lease of the next job of `hello`, as a worker would.
    pub(crate) async fn lease(&self) -> Leased {
        let name: FunctionName = "hello".parse().expect("a name");
        let ask = Ask {
            worker: "w".to_owned(),
            wants: vec![Want { function: name, slots: 1 }],
            max: 1,
            wait: Duration::from_secs(10),
        };
        within(self.queue.lease(ask)).await.expect("the queue is open").pop().expect("a job waits")
    }

    /// Ends an attempt: with a result, or with the failure that makes it a dead letter.
    pub(crate) async fn settle(&self, leased: Leased, ending: Result<&'static str, Failure>) {
        let now = self.clock.now();
        let (outcome, next, result) = match ending {
            Ok(result) => {
                let result = ("text/plain".to_owned(), Payload::Inline(Bytes::from_static(result.as_bytes())));
                (Outcome::Succeeded, Next::Succeed, Some(result))
            }
            Err(failure) => (Outcome::Failed(failure), Next::Fail, None),
        };
        let attempt = Attempt {
            number: leased.lease.token().attempt,
            outcome: outcome.as_str().to_owned(),
            started_at: now,
            finished_at: now,
            version: Some("abc123".to_owned()),
            error: outcome.failure().map(|failure| failure.message.clone()),
        };
        let settlement = Settlement::Finish { outcome, next, result, attempt, log: Bytes::from_static(b"last line\n") };
        self.queue.settle(leased.lease, settlement).await.expect("the lease stands");
    }

    /// Submits a job of `hello` and ends it.
    pub(crate) async fn finished(&self, ending: Result<&'static str, Failure>) -> String {
        let id = self.submit().await;
        let leased = self.lease().await;
        self.settle(leased, ending).await;
        id
    }

    /// Waits until this line stands in the metrics. The asking connection is counted there too.
    pub(crate) async fn until_metric(&self, wanted: &str) {
        within(async { while !self.get("/metrics").await.text().lines().any(|line| line == wanted) {} }).await;
    }

    /// How many jobs the queue has.
    pub(crate) fn jobs(&self) -> u64 {
        use kvern_core::State;
        let stats = self.queue.stats();
        stats.functions.iter().map(|(_, counts)| State::ALL.iter().map(|state| counts.of(*state)).sum::<u64>()).sum()
    }
}
