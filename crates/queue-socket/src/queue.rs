//! The queue of another process, as the contract has it.
//!
//! When the connection ends under a question, what follows depends on the question. What may be asked twice is asked again.
//! A submit, a cancel, a retry and log lines are not: their fate is unknown, and that is the answer. A settlement is asked
//! again too, because it is fenced: either it was not stored, or its lease is over. It waits for the server as long as the
//! caller does: to give up would only make its job run again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use kvern_core::limits::SUBMIT_WITHIN;
use kvern_core::{FunctionName, Job, JobId, State};
use kvern_queue::{
    Ask, Cursor, Durability, Error, Filter, Lease, LeaseState, LeaseToken, Leased, NewJob, Page, Queue, Retention,
    Settlement, Stage, Stats, Stored, Submitted, Swept, Watch, Watcher, WorkerInfo,
};
use tokio::time::{Instant, timeout, timeout_at};

use crate::claim::Claim;
use crate::connect::{ConnectError, connect};
use crate::link::{Link, closed};
use crate::live::{Live, Unanswered};
use crate::look::look;
use crate::stage::SocketStage;
use crate::words::{Answer, Question, WAIT_MAX, WireJob, WireSettlement};

/// The longest that a question waits for a connection.
pub(crate) const CONNECT_WITHIN: Duration = SUBMIT_WITHIN;
/// The longest that a question waits for its answer. Longer than a submit may take.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// The longest wait for the last words of a client that closes.
const FLUSHED_WITHIN: Duration = Duration::from_secs(1);
/// Leases that are renewed with one question.
const RENEWALS_AT_ONCE: usize = 4096;

const _: () = assert!(SUBMIT_WITHIN.as_secs() * 2 < ANSWER_WITHIN.as_secs());

/// The queue of the server on a Unix socket.
pub struct SocketQueue {
    /// Its task ends with this.
    link: Arc<Link>,
}

/// What kind of question it is: whether it may be asked twice, and of a client that is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It changes nothing.
    Read,
    /// The second time it changes nothing more.
    Again,
    Once,
}

// === impl SocketQueue ===

impl SocketQueue {
    /// The queue on this socket. A server that is not there yet is waited for, and so is one that restarts.
    ///
    /// # Errors
    /// [`ConnectError`] where waiting would not help.
    pub async fn open(path: &Path) -> Result<Arc<Self>, ConnectError> {
        let first = match connect(path).await {
            Ok(connected) => Some(connected),
            Err(error) if error.is_final() => return Err(error),
            Err(_) => None,
        };
        let is_there = first.is_some();
        let link = Arc::new(Link::new(path));
        tokio::spawn(Arc::clone(&link).keep(first));
        if is_there {
            // What is asked without waiting finds it connected. It may have ended already: then it is as if it came later.
            let _ = timeout(CONNECT_WITHIN, link.live()).await;
        }
        Ok(Arc::new(Self { link }))
    }

    /// The life of the server that is connected now: another number for each start.
    #[must_use]
    pub fn connected(&self) -> Option<u64> {
        self.link.live_now().map(|live| live.life)
    }

    /// The path of the socket.
    #[must_use]
    pub fn path(&self) -> &PathBuf {
        &self.link.path
    }

    async fn ask(&self, question: Question, kind: Kind) -> Result<Answer, Error> {
        self.ask_over(kind, |_| Ok(question.clone())).await
    }

    /// Asks a question that may depend on the connection.
    async fn ask_over(
        &self,
        kind: Kind,
        question: impl Fn(&Arc<Live>) -> Result<Question, Error>,
    ) -> Result<Answer, Error> {
        let began = Instant::now();
        loop {
            let live = match kind {
                Kind::Read => timeout_at(began + CONNECT_WITHIN, self.link.live()).await,
                Kind::Again | Kind::Once => timeout_at(began + CONNECT_WITHIN, self.link.live_for_work()).await,
            };
            let live = live.map_err(|_| Error::Busy(self.link.silent()))??;
            let question = question(&live)?;
            let why = match timeout_at(began + ANSWER_WITHIN, live.ask(&question)).await {
                Ok(Ok(Answer::Refused(error)) | Err(Unanswered::Unsayable(error))) => return Err(error),
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(Unanswered::NotAsked)) => continue,
                Ok(Err(Unanswered::CutOff)) if kind != Kind::Once => continue,
                Ok(Err(Unanswered::CutOff)) => self.cut_off(),
                Err(_) => self.link.silent(),
            };
            return Err(if kind == Kind::Once { Error::Unknown(why) } else { Error::Busy(why) });
        }
    }

    fn cut_off(&self) -> String {
        format!("the queue at {} went away in the middle", self.link.path.display())
    }
}

/// The answer that a question has, or the error of a server that gives another.
macro_rules! expect {
    ($answer:expr, $pattern:pat => $value:expr) => {
        match $answer {
            $pattern => Ok($value),
            other => Err(Error::Broken(format!("the queue gave another answer: {other:?}"))),
        }
    };
}

#[async_trait]
impl Queue for SocketQueue {
    fn durability(&self) -> Durability {
        self.link.durability()
    }

    async fn stage(&self) -> Result<Box<dyn Stage>, Error> {
        self.health()?;
        Ok(Box::new(SocketStage::new(Arc::clone(&self.link))))
    }

    async fn submit(&self, job: NewJob) -> Result<Submitted, Error> {
        let submit = |live: &Arc<Live>| {
            let input = Claim::travels(&job.input, live)?;
            Ok(Question::Submit(Box::new(WireJob::of(job.clone(), input))))
        };
        expect!(self.ask_over(Kind::Once, submit).await?, Answer::Submitted(submitted) => submitted)
    }

    async fn lease(&self, ask: Ask) -> Result<Vec<Leased>, Error> {
        let until = Instant::now() + ask.wait.min(WAIT_MAX);
        loop {
            let Ok(live) = timeout_at(until, self.link.live_for_work()).await else { return Ok(Vec::new()) };
            let wait = until.saturating_duration_since(Instant::now());
            // A server that is stopped gives no answer, and one that stops gives none either.
            let leased = timeout_at(until + CONNECT_WITHIN, live?.lease(Ask { wait, ..ask.clone() })).await;
            match leased.map_err(|_| Error::Busy(self.link.silent()))? {
                Ok(leased) => return leased,
                Err(Unanswered::Unsayable(error)) => return Err(error),
                Err(Unanswered::NotAsked | Unanswered::CutOff) => {}
            }
        }
    }

    async fn renew(&self, leases: &[LeaseToken]) -> Result<Vec<LeaseState>, Error> {
        self.health()?;
        let mut states = Vec::with_capacity(leases.len());
        for leases in leases.chunks(RENEWALS_AT_ONCE) {
            let answer = self.ask(Question::Renew(leases.to_vec()), Kind::Again).await?;
            states.append(&mut expect!(answer, Answer::Renewed(states) => states)?);
        }
        Ok(states)
    }

    async fn settle(&self, lease: Lease, settlement: Settlement) -> Result<State, Error> {
        let token = lease.token();
        let mut is_unknown = false;
        loop {
            let live = self.link.live_for_work().await?;
            let travels = WireSettlement::of(&settlement, |payload| Claim::travels(payload, &live));
            match live.ask(&Question::Settle(token, Box::new(travels?))).await {
                // It may be stale because it is stored.
                Ok(Answer::Refused(Error::StaleLease(_))) if is_unknown => return Err(Error::Unknown(self.cut_off())),
                Ok(Answer::Refused(error)) | Err(Unanswered::Unsayable(error)) => return Err(error),
                Ok(answer) => return expect!(answer, Answer::State(state) => state),
                Err(Unanswered::NotAsked) => {}
                Err(Unanswered::CutOff) => is_unknown = true,
            }
        }
    }

    async fn cancel(&self, id: JobId) -> Result<Job, Error> {
        expect!(self.ask(Question::Cancel(id), Kind::Once).await?, Answer::Job(job) => *job)
    }

    async fn retry(&self, id: JobId) -> Result<Job, Error> {
        expect!(self.ask(Question::Retry(id), Kind::Once).await?, Answer::Job(job) => *job)
    }

    async fn pause(&self, function: &FunctionName, paused: bool) -> Result<(), Error> {
        expect!(self.ask(Question::Pause(function.clone(), paused), Kind::Again).await?, Answer::Done => ())
    }

    async fn get(&self, id: JobId) -> Result<Job, Error> {
        expect!(self.ask(Question::Get(id), Kind::Read).await?, Answer::Job(job) => *job)
    }

    async fn input(&self, id: JobId) -> Result<Stored, Error> {
        let answer = self.ask(Question::Input(id), Kind::Read).await?;
        expect!(answer, Answer::Stored(Some(stored)) => stored.into_stored())
    }

    async fn result(&self, id: JobId) -> Result<Option<Stored>, Error> {
        let answer = self.ask(Question::Result(id), Kind::Read).await?;
        expect!(answer, Answer::Stored(stored) => stored.map(crate::words::WireStored::into_stored))
    }

    async fn list(&self, filter: &Filter, cursor: Option<&Cursor>, limit: usize) -> Result<Page, Error> {
        let question = Question::List(filter.clone(), cursor.cloned(), limit as u64);
        expect!(self.ask(question, Kind::Read).await?, Answer::Page(page) => page)
    }

    fn stats(&self) -> Stats {
        // The contract knows no counts that cannot be had. Whoever asks this of us only looks for what there is to do.
        look(&self.link.path).map(|look| look.stats).unwrap_or_default()
    }

    fn watch(&self, what: Watch) -> Watcher {
        self.link.watch(what)
    }

    async fn append_log(&self, lease: LeaseToken, bytes: Bytes) -> Result<(), Error> {
        expect!(self.ask(Question::AppendLog(lease, bytes), Kind::Once).await?, Answer::Done => ())
    }

    async fn read_log(&self, id: JobId, offset: u64, limit: usize) -> Result<Bytes, Error> {
        let mut log = BytesMut::new();
        loop {
            let left = limit - log.len();
            let question = Question::ReadLog(id, offset.saturating_add(log.len() as u64), left as u64);
            let piece = expect!(self.ask(question, Kind::Read).await?, Answer::Log(piece) => piece)?;
            if log.is_empty() && (piece.is_empty() || piece.len() >= left) {
                return Ok(piece);
            }
            log.extend_from_slice(&piece);
            if piece.is_empty() || log.len() >= limit {
                return Ok(log.freeze());
            }
        }
    }

    async fn announce(&self, worker: WorkerInfo) -> Result<(), Error> {
        self.link.announced(worker.clone());
        expect!(self.ask(Question::Announce(worker), Kind::Again).await?, Answer::Done => ())
    }

    async fn workers(&self) -> Result<Vec<WorkerInfo>, Error> {
        expect!(self.ask(Question::Workers, Kind::Again).await?, Answer::Workers(workers) => workers)
    }

    async fn sweep(&self, retention: &Retention, limit: usize) -> Result<Swept, Error> {
        let question = Question::Sweep(retention.clone(), limit as u64);
        expect!(self.ask(question, Kind::Again).await?, Answer::Swept(swept) => swept)
    }

    async fn forget(&self, id: JobId) -> Result<(), Error> {
        expect!(self.ask(Question::Forget(id), Kind::Once).await?, Answer::Done => ())
    }

    /// Closes the client: the queue goes on for others.
    async fn close(&self) {
        self.link.closing.cancel();
        // Leases that nobody took may be on their way back: what is answered after them was read after them.
        if let Some(live) = self.link.live_now() {
            let _ = timeout(FLUSHED_WITHIN, live.ask(&Question::Look)).await;
        }
    }

    async fn closed(&self) -> Error {
        self.link.closing.cancelled().await;
        closed()
    }

    fn health(&self) -> Result<(), Error> {
        if self.link.closing.is_cancelled() { Err(closed()) } else { Ok(()) }
    }

    fn room(&self) -> Result<(), Error> {
        self.health()?;
        let silent = || Error::Busy(self.link.silent());
        self.link.live_now().ok_or_else(silent)?;
        look(&self.link.path).map_err(|_| silent())?.room
    }
}

impl Drop for SocketQueue {
    fn drop(&mut self) {
        self.link.closing.cancel();
        self.link.ended.cancel();
    }
}

impl std::fmt::Debug for SocketQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SocketQueue").field("path", &self.link.path).finish_non_exhaustive()
    }
}
