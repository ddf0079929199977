//! The answer to each question that has one: what the queue says, in the words of the socket.

use kvern_queue::{Cursor, Error, Filter, Lease, LeaseState, LeaseToken, Page, Payload, Queue};

use crate::frame::PIECE_BYTES;
use crate::runs::End;
use crate::session::Session;
use crate::words::{Answer, Look, Number, Question, WireJob, WirePayload, WireSettlement, WireStored};

/// Answers a question; none for one that has no answer.
pub(crate) async fn to(session: &Session, question: Question) -> Option<Result<Answer, Error>> {
    let queue = &*session.server.queue;
    Some(match question {
        Question::Submit(job) => submit(session, *job).await,
        Question::Renew(leases) => renew(session, &leases).await,
        Question::Settle(token, settlement) => settle(session, token, *settlement).await,
        Question::GiveBack(token) => {
            session.give_back([token]).await;
            return None;
        }
        Question::Cancel(id) => queue.cancel(id).await.map(|job| Answer::Job(Box::new(job))),
        Question::Retry(id) => queue.retry(id).await.map(|job| Answer::Job(Box::new(job))),
        Question::Forget(id) => queue.forget(id).await.map(|()| Answer::Done),
        Question::Pause(function, paused) => queue.pause(&function, paused).await.map(|()| Answer::Done),
        Question::Get(id) => queue.get(id).await.map(|job| Answer::Job(Box::new(job))),
        Question::Input(id) => queue.input(id).await.map(|input| Answer::Stored(Some(WireStored::of(&input)))),
        Question::Result(id) => {
            queue.result(id).await.map(|result| Answer::Stored(result.as_ref().map(WireStored::of)))
        }
        Question::List(filter, cursor, limit) => {
            list(queue, &filter, cursor.as_ref(), count(limit)).await.map(Answer::Page)
        }
        Question::AppendLog(token, bytes) => queue.append_log(token, bytes).await.map(|()| Answer::Done),
        Question::ReadLog(id, offset, limit) => {
            queue.read_log(id, offset, count(limit).min(PIECE_BYTES)).await.map(Answer::Log)
        }
        Question::Announce(worker) => {
            let announced = queue.announce(worker.clone()).await;
            announced.map(|()| {
                session.server.came(session.number, worker);
                Answer::Done
            })
        }
        Question::Workers => queue.workers().await.map(Answer::Workers),
        Question::Sweep(retention, limit) => queue.sweep(&retention, count(limit)).await.map(Answer::Swept),
        Question::Look => Ok(Answer::Look(Look { stats: queue.stats(), room: queue.room() })),
        Question::Finish(stage) => finish(session, stage).await,
        // Taken where they are read.
        Question::Lease(_) | Question::Withdraw | Question::Watch | Question::Write(..) | Question::Drop(_) => {
            return None;
        }
    })
}

async fn submit(session: &Session, job: WireJob) -> Result<Answer, Error> {
    let input = match &job.input {
        WirePayload::Inline(bytes) => Payload::Inline(bytes.clone()),
        WirePayload::Staged(stage) => session.stages.whole(*stage).await?,
        WirePayload::Blob(_) => return Err(Error::Broken("an input by its path".to_owned())),
    };
    session.server.queue.submit(job.into_job(input)).await.map(Answer::Submitted)
}

async fn renew(session: &Session, leases: &[LeaseToken]) -> Result<Answer, Error> {
    let states = session.server.queue.renew(leases).await?;
    for (token, _) in leases.iter().zip(&states).filter(|(_, state)| **state == LeaseState::Over) {
        session.runs.end(*token);
    }
    Ok(Answer::Renewed(states))
}

async fn settle(session: &Session, token: LeaseToken, settlement: WireSettlement) -> Result<Answer, Error> {
    let staged = match settlement.staged() {
        Some(stage) => Some(session.stages.whole(stage).await?),
        None => None,
    };
    let settlement = settlement.into_settlement(staged);
    let end = End::of(&settlement);
    let state = session.server.queue.settle(Lease::new(token), settlement).await?;
    session.runs.settled(token, end, &*session.server.hears);
    Ok(Answer::State(state))
}

async fn finish(session: &Session, stage: Number) -> Result<Answer, Error> {
    let place = session.stages.place(stage)?;
    let finished = place.lock().await.finish().await;
    finished.map(Answer::Finished)
}

/// A page that fits into a frame. A page may always be shorter than it was asked for.
async fn list(queue: &dyn Queue, filter: &Filter, cursor: Option<&Cursor>, limit: usize) -> Result<Page, Error> {
    let mut limit = limit;
    loop {
        let page = queue.list(filter, cursor, limit).await?;
        if page.jobs.len() <= 1 || crate::frame::encode(&page).is_ok() {
            return Ok(page);
        }
        limit = page.jobs.len() / 2;
    }
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
