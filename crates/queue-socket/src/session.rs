//! One connection, from its hello to its end.
//!
//! Questions are answered side by side, each by a task of its own, and no more of them at once than a bounded number of
//! bytes. What must keep its order is done as it is read: a watch, a withdrawal, the begin of a stage.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt;
use kvern_core::limits::{LEASE_TTL, RENEW_EVERY};
use kvern_queue::{Ask, Error, Event, Lease, LeaseToken, Leased, Settlement, Watch};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};
use tokio_util::codec::FramedRead;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::answers;
use crate::frame::{FRAME_BYTES_MAX, PIECE_BYTES, codec, decode, encode};
use crate::hello::{self, VERSION, Welcome};
use crate::outbox::{Outbox, outbox};
use crate::runs::Runs;
use crate::server::{Server, Stop};
use crate::staging::{Place, Stages};
use crate::words::{Answer, Number, Question, WAIT_MAX, WireLeased, Word};

/// Bytes of questions that are being answered, in units of this many.
const UNIT_BYTES: usize = 4 << 10;
const UNITS: usize = 4 * FRAME_BYTES_MAX / UNIT_BYTES;

/// A client that holds leases and has said nothing for so long gets no more of them.
const SILENT_AFTER: Duration = Duration::from_secs(3);

const _: () = {
    assert!(SILENT_AFTER.as_millis() >= 4 * RENEW_EVERY.as_millis(), "a few late renewals are no silence");
    assert!(SILENT_AFTER.as_millis() * 2 < LEASE_TTL.as_millis(), "it has ended before its leases do");
};

/// One connection.
pub(crate) struct Session {
    pub(crate) server: Arc<Server>,
    pub(crate) number: u64,
    pub(crate) stages: Stages,
    pub(crate) runs: Runs,
    outbox: Outbox,
    leases: Mutex<HashMap<Number, CancellationToken>>,
    heard_at: Mutex<Instant>,
    drain: CancellationToken,
    /// Cancelled when the connection is over.
    over: CancellationToken,
}

/// Serves one connection to its end.
pub(crate) async fn serve(server: &Arc<Server>, number: u64, mut stream: UnixStream, stop: &Stop) {
    match hello::exchange(&mut stream).await {
        Ok(Some(VERSION)) => {}
        Ok(Some(version)) => {
            tracing::warn!(version, ours = VERSION, "a worker of another release came: both must be of the same");
            return;
        }
        // What says nothing is a server that looks whether we live.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return,
        Ok(None) | Err(_) => {
            tracing::warn!("a stranger came to the socket of the queue");
            return;
        }
    }
    let (reader, socket) = stream.into_split();
    let (outbox, writer) = outbox();
    let over = CancellationToken::new();
    let session = Arc::new(Session {
        server: Arc::clone(server),
        number,
        stages: Stages::default(),
        runs: Runs::default(),
        outbox,
        leases: Mutex::default(),
        heard_at: Mutex::new(Instant::now()),
        drain: stop.drain.clone(),
        over: over.clone(),
    });
    let welcome = Welcome { life: server.life, durability: server.queue.durability() };
    session.say(&welcome).await;
    let tasks = TaskTracker::new();
    let writing = tokio::spawn(write(writer.run(socket), over.clone().drop_guard()));
    let frames = FramedRead::new(reader, codec());
    tokio::select! {
        // All may be dropped: what was asked is in tasks of its own.
        () = session.read(frames, &tasks) => {}
        () = stop.end.cancelled() => {}
        () = over.cancelled() => {}
    }
    session.server.went(number);
    over.cancel();
    // A settlement is not dropped midway, and its answer is on its way before the last write.
    tasks.close();
    tasks.wait().await;
    session.outbox.finish();
    if let Err(panicked) = writing.await {
        tracing::error!(%panicked, "the writer of a connection broke");
    }
}

/// The connection is over when its writer is.
async fn write(writer: impl Future<Output = io::Result<()>>, _over: DropGuard) {
    if let Err(error) = writer.await
        && error.kind() == io::ErrorKind::TimedOut
    {
        tracing::warn!("a worker takes no answers any more; its connection is closed");
    }
}

// === impl Session ===

impl Session {
    async fn read(
        self: &Arc<Self>,
        mut frames: FramedRead<tokio::net::unix::OwnedReadHalf, tokio_util::codec::LengthDelimitedCodec>,
        tasks: &TaskTracker,
    ) {
        let room = Arc::new(Semaphore::new(UNITS));
        while let Some(frame) = frames.next().await {
            let heard = frame.ok().and_then(|frame: BytesMut| Some((decode(&frame)?, frame.len())));
            let Some(((number, question), bytes)) = heard else {
                tracing::warn!("what came is no word of ours; the connection is closed");
                return;
            };
            *self.heard_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            let units = u32::try_from(1 + bytes / UNIT_BYTES).unwrap_or(u32::MAX);
            match question {
                Question::Withdraw => self.withdraw(number),
                Question::Drop(stage) => self.stages.drop(stage),
                Question::Watch => drop(tasks.spawn(Arc::clone(self).watch(self.server.queue.watch(Watch::All)))),
                question => {
                    let Ok(permit) = Arc::clone(&room).acquire_many_owned(units).await else { return };
                    self.take(number, question, permit, tasks);
                }
            }
        }
    }

    /// Begins to answer a question.
    fn take(self: &Arc<Self>, number: Number, question: Question, permit: OwnedSemaphorePermit, tasks: &TaskTracker) {
        let session = Arc::clone(self);
        match question {
            Question::Lease(ask) => {
                let withdrawn = CancellationToken::new();
                self.lock().insert(number, withdrawn.clone());
                tasks.spawn(async move {
                    session.lease(number, ask, &withdrawn).await;
                    session.lock().remove(&number);
                    drop(permit);
                });
            }
            Question::Write(stage, bytes) => {
                // Made here, so that a drop which comes next finds it.
                let place = self.stages.place(stage);
                tasks.spawn(async move {
                    let write = async |place: Place| place.lock().await.write(&*session.server.queue, bytes).await;
                    let written = match place {
                        Ok(place) => write(place).await,
                        Err(error) => Err(error),
                    };
                    session.answer(number, written.map(|()| Answer::Done)).await;
                    drop(permit);
                });
            }
            question => {
                tasks.spawn(async move {
                    if let Some(answer) = answers::to(&session, question).await {
                        session.answer(number, answer).await;
                    }
                    drop(permit);
                });
            }
        }
    }

    /// Gives an answer; one that does not fit into a frame is said to be too large.
    async fn answer(&self, number: Number, answer: Result<Answer, Error>) {
        let answer = Word::Answer(number, answer.unwrap_or_else(Answer::Refused));
        match encode(&answer) {
            // A connection that has ended hears nothing.
            Ok(frame) => drop(self.outbox.send(frame).await),
            Err(error) => self.say(&Word::Answer(number, Answer::Refused(error))).await,
        }
    }

    /// Says a word that is always small enough.
    async fn say(&self, word: &impl serde::Serialize) {
        match encode(word) {
            Ok(frame) => drop(self.outbox.send(frame).await),
            Err(error) => tracing::error!(%error, "a word cannot be said"),
        }
    }

    /// Leases, unless the caller goes away before there is something.
    async fn lease(&self, number: Number, ask: Ask, withdrawn: &CancellationToken) {
        let until = Instant::now() + ask.wait.min(WAIT_MAX);
        let leased = loop {
            let wait = until.saturating_duration_since(Instant::now());
            tokio::select! {
                biased;
                () = withdrawn.cancelled() => return,
                () = self.over.cancelled() => return,
                // Answered by the end of the connection: an empty answer would be followed by the same question.
                () = self.drain.cancelled() => return,
                // A dropped lease leaves none behind (rule 11).
                () = self.falls_silent() => {}
                leased = self.server.queue.lease(Ask { wait, ..ask.clone() }) => break leased,
            }
            tokio::select! {
                // All only wait.
                () = withdrawn.cancelled() => return,
                () = self.over.cancelled() => return,
                () = self.speaks_again() => {}
            }
        };
        match leased {
            Ok(leased) => {
                if !leased.is_empty() {
                    self.server.hears.leased();
                }
                self.give(number, leased).await;
            }
            Err(error) => self.answer(number, Err(error)).await,
        }
    }

    /// A client that holds leases renews them, twice a second. One that does not is stopped, or its machine has no time for
    /// it: what it were given now would wait with it, and others may be there. Ticks only while it holds some.
    async fn falls_silent(&self) {
        loop {
            self.runs.some().await;
            sleep(RENEW_EVERY).await;
            if self.is_silent() {
                return;
            }
        }
    }

    async fn speaks_again(&self) {
        while self.is_silent() {
            sleep(RENEW_EVERY).await;
        }
    }

    fn is_silent(&self) -> bool {
        let heard_at = *self.heard_at.lock().unwrap_or_else(PoisonError::into_inner);
        !self.runs.is_empty() && heard_at.elapsed() >= SILENT_AFTER
    }

    /// Sends leases in parts that fit. Those that cannot be sent go back.
    async fn give(&self, number: Number, leased: Vec<Leased>) {
        let mut left = leased.into_iter().map(WireLeased::of).peekable();
        loop {
            let (mut part, mut bytes) = (Vec::new(), 0);
            while let Some(one) = left.next_if(|one| bytes == 0 || bytes + one.bytes() <= PIECE_BYTES) {
                bytes += one.bytes();
                part.push(one);
            }
            let is_last = left.peek().is_none();
            let tokens: Vec<LeaseToken> = part.iter().map(|one| one.token).collect();
            self.runs.begin(&part);
            let word = Word::Answer(number, Answer::Leases(part, is_last));
            let sent = match encode(&word) {
                Ok(frame) => self.outbox.send(frame).await.is_ok(),
                Err(error) => {
                    tracing::error!(%error, "leases cannot be given");
                    false
                }
            };
            if !sent {
                let unsent = tokens.into_iter().chain(left.map(|one| one.token));
                return self.give_back(unsent).await;
            }
            if is_last {
                return;
            }
        }
    }

    /// Leases that nobody got.
    pub(crate) async fn give_back(&self, leases: impl IntoIterator<Item = LeaseToken>) {
        for token in leases {
            self.runs.end(token);
            // Whatever is wrong with it, it ends by itself.
            let _ = self.server.queue.settle(Lease::new(token), Settlement::Release).await;
        }
    }

    fn withdraw(&self, number: Number) {
        if let Some(withdrawn) = self.lock().remove(&number) {
            withdrawn.cancel();
        }
    }

    /// Tells every move until the connection is over.
    async fn watch(self: Arc<Self>, mut watcher: kvern_queue::Watcher) {
        loop {
            let event = tokio::select! {
                () = self.over.cancelled() => return,
                event = watcher.next() => event,
            };
            match event {
                Some(Event::Moved { id, function, state }) => self.say(&Word::Moved(id, function, state)).await,
                Some(Event::Missed) => self.say(&Word::Missed).await,
                None => return,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Number, CancellationToken>> {
        // A map is whole at any time.
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
