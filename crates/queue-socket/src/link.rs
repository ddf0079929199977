//! The link to the server: one connection, made again whenever it ends, until the client is closed.
//!
//! A question that the server cannot have heard is asked again over the next connection. What was cut off is for the
//! caller to judge: only some questions may be asked twice.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use kvern_queue::{Durability, Error, Hub, Watch, Watcher, WorkerInfo};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};
use tokio_util::sync::CancellationToken;

use crate::connect::{ConnectError, Connected, connect};
use crate::frame::decode;
use crate::live::Live;
use crate::outbox::outbox;
use crate::words::{Answer, Question, Word};

/// The pause before the first try after a connection has ended; it doubles up to the longest, and chance takes up to half.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// While nothing answers, the log says so this often.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// At the end, what was said is on its way within this time.
const FLUSHED_WITHIN: Duration = Duration::from_secs(1);

/// The link of one client.
pub(crate) struct Link {
    pub(crate) path: PathBuf,
    /// The client takes no more work. It may still read.
    pub(crate) closing: CancellationToken,
    /// Nobody has the client any more.
    pub(crate) ended: CancellationToken,
    live: watch::Sender<Option<Arc<Live>>>,
    hub: Hub,
    known: Mutex<Known>,
}

/// What outlives a connection.
struct Known {
    durability: Durability,
    /// What the worker said of itself last: a new server must hear it too.
    announced: Option<WorkerInfo>,
    /// Somebody wanted to hear of moves.
    is_watched: bool,
}

/// What the log has said of a server that does not answer.
struct Complaint {
    said_at: Option<Instant>,
}

// === impl Link ===

impl Link {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            closing: CancellationToken::new(),
            ended: CancellationToken::new(),
            live: watch::Sender::new(None),
            hub: Hub::default(),
            known: Mutex::new(Known { durability: Durability::Memory, announced: None, is_watched: false }),
        }
    }

    /// Keeps the link up until nobody has the client any more. `first` is a connection that was made before.
    pub(crate) async fn keep(self: Arc<Self>, first: Option<Connected>) {
        let (mut next, mut pause, mut complaint) = (first, PAUSE_FIRST, Complaint { said_at: None });
        while !self.ended.is_cancelled() {
            let connected = match next.take() {
                Some(connected) => Ok(connected),
                None => tokio::select! {
                    biased;
                    // A connection that is dropped has asked nothing.
                    () = self.ended.cancelled() => return,
                    connected = connect(&self.path) => connected,
                },
            };
            match connected {
                Ok(connected) => {
                    complaint.end(&self.path);
                    pause = PAUSE_FIRST;
                    self.serve(connected).await;
                    if self.ended.is_cancelled() {
                        return;
                    }
                    complaint.cut_off(&self.path);
                }
                Err(error) => complaint.say(&self.path, &error),
            }
            tokio::select! {
                // Both only wait.
                () = sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)) => {}
                () = self.ended.cancelled() => return,
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Uses a connection until it ends, or until nobody has the client any more and everything is said.
    async fn serve(&self, connected: Connected) {
        let Connected { frames, socket, welcome } = connected;
        let (outbox, writer) = outbox();
        let live = Arc::new(Live::new(welcome.life, outbox));
        self.begin(&live, welcome.durability);
        let mut writing = std::pin::pin!(writer.run(socket));
        tokio::select! {
            // All may be dropped: with the connection ends all that is under way on it.
            () = self.hear(&live, frames) => {}
            _ = &mut writing => {}
            () = self.ended.cancelled() => {
                live.outbox.finish();
                // Leases that nobody took are given back with the last words.
                let _ = timeout(FLUSHED_WITHIN, writing).await;
            }
        }
        self.live.send_replace(None);
        live.end();
    }

    fn begin(&self, live: &Arc<Live>, durability: Durability) {
        let mut known = self.known();
        known.durability = durability;
        if let Some(worker) = &known.announced {
            live.tell(&Question::Announce(worker.clone()));
        }
        if known.is_watched {
            live.tell(&Question::Watch);
            // Of those who watched before; whoever comes from now on misses nothing.
            self.hub.tell_missed();
        }
        self.live.send_replace(Some(Arc::clone(live)));
    }

    async fn hear(&self, live: &Live, mut frames: FramedRead<tokio::net::unix::OwnedReadHalf, LengthDelimitedCodec>) {
        while let Some(Ok(frame)) = frames.next().await {
            match decode(&frame) {
                Some(Word::Answer(number, Answer::Leases(part, is_last))) => live.leased(number, part, is_last),
                Some(Word::Answer(number, answer)) => live.answered(number, answer),
                Some(Word::Moved(id, function, state)) => self.hub.tell(id, &function, state),
                Some(Word::Missed) => self.hub.tell_missed(),
                None => {
                    tracing::error!(socket = %self.path.display(), "what the queue said is no word of ours");
                    return;
                }
            }
        }
    }

    /// The live connection, once there is one. May be dropped.
    ///
    /// # Errors
    /// [`Error::Closed`] once nobody has the client any more.
    pub(crate) async fn live(&self) -> Result<Arc<Live>, Error> {
        let mut news = self.live.subscribe();
        let found = async {
            // The sender is in `self`.
            let found = news.wait_for(|live| live.as_ref().is_some_and(|live| !live.is_over())).await;
            found.ok().and_then(|live| live.clone())
        };
        tokio::select! {
            biased;
            // Both only wait.
            () = self.ended.cancelled() => Err(closed()),
            found = found => found.ok_or_else(closed),
        }
    }

    /// As [`Link::live`], for work: refused once the client is closed.
    pub(crate) async fn live_for_work(&self) -> Result<Arc<Live>, Error> {
        tokio::select! {
            biased;
            // Both only wait.
            () = self.closing.cancelled() => Err(closed()),
            live = self.live() => live,
        }
    }

    /// The live connection, if there is one now.
    pub(crate) fn live_now(&self) -> Option<Arc<Live>> {
        self.live.borrow().clone().filter(|live| !live.is_over())
    }

    /// Moves from now on: what is asked next is heard by the server after this.
    pub(crate) fn watch(&self, what: Watch) -> Watcher {
        let watcher = self.hub.watch(what);
        let mut known = self.known();
        if !std::mem::replace(&mut known.is_watched, true)
            && let Some(live) = self.live_now()
        {
            live.tell(&Question::Watch);
        }
        watcher
    }

    pub(crate) fn announced(&self, worker: WorkerInfo) {
        self.known().announced = Some(worker);
    }

    pub(crate) fn durability(&self) -> Durability {
        self.known().durability
    }

    /// Why a question has no answer.
    pub(crate) fn silent(&self) -> String {
        format!("the queue at {} does not answer", self.path.display())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        // What is in it is whole at any time.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a client says once it is closed.
pub(crate) fn closed() -> Error {
    Error::Closed("it was asked to close".to_owned())
}

// === impl Complaint ===

impl Complaint {
    fn say(&mut self, socket: &Path, error: &ConnectError) {
        if self.said_at.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
            self.said_at = Some(Instant::now());
            tracing::warn!(socket = %socket.display(), %error, "the queue does not answer; trying again");
        }
    }

    fn cut_off(&mut self, socket: &Path) {
        self.said_at = Some(Instant::now());
        tracing::warn!(socket = %socket.display(), "the connection to the queue has ended; trying again");
    }

    fn end(&mut self, socket: &Path) {
        match self.said_at.take() {
            Some(_) => tracing::info!(socket = %socket.display(), "the queue answers again"),
            None => tracing::info!(socket = %socket.display(), "connected to the queue"),
        }
    }
}
