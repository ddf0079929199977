//! Submit: a job becomes a row, unless its key has made one already or its function's queue is full.

use std::sync::Arc;

use kvern_core::{Job, JobId, State};
use kvern_queue::{Error, Idempotency, NewJob, Payload, Submitted, record};
use rusqlite::{Result as SqlResult, params};

use crate::blob::BlobDir;
use crate::effects::Effects;
use crate::keys;
use crate::memory::Memory;
use crate::operation::Step;
use crate::rank::Rank;
use crate::rows::{self, Body, stored_time};
use crate::shared::Answer;
use crate::transaction::{Transaction, to_json};
use crate::window::Ready;

/// A job to be accepted.
#[derive(Debug)]
pub(crate) struct Submit {
    new: NewJob,
    crc32c: u32,
    /// The name of the file that holds the input, if one does.
    file: Option<String>,
    answer: Answer<Submitted>,
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// A new job.
    New { function: usize, job: Arc<Job> },
    /// A twin of this job.
    Twin { id: JobId, state: State },
}

// === impl Submit ===

impl Submit {
    /// Checks what can be checked before the job goes to the writer.
    pub(crate) fn new(new: NewJob, blobs: &BlobDir, answer: Answer<Submitted>) -> Result<Self, Error> {
        let (crc32c, file) = blobs.card(&new.input)?;
        Ok(Self { new, crc32c, file, answer })
    }

    /// What it carries.
    pub(crate) fn bytes(&self) -> usize {
        inline_bytes(&self.new.input)
    }

    /// What it has on the disk already.
    pub(crate) fn staged_bytes(&self) -> u64 {
        self.new.input.len() - self.bytes() as u64
    }

    fn insert(&self, tx: &mut Transaction<'_, '_>, function: usize, job: &Job) -> SqlResult<()> {
        let key = rows::key(job.id);
        let body = body(&self.new.input, self.file.as_deref());
        let rank = Rank::on_arrival(job.state, job.priority);
        let tags = if job.tags.is_empty() { None } else { Some(to_json(&job.tags)?) };
        tx.desk.prepared.insert_job.execute(params![
            key,
            job.id.random().cast_signed(),
            function.cast_signed() as i64,
            rank.get(),
            rows::position(job),
            stored_time(job.ready_at),
            job.priority,
            job.expires_at.map(stored_time),
            job.content_type,
            tags,
            self.new.idempotency.map(|idempotency| idempotency.key),
            self.new.idempotency.map(|idempotency| idempotency.body),
            job.input_bytes.cast_signed(),
            self.crc32c,
            body,
        ])?;
        tx.own_file(body, key)?;
        self.new.input.staged().inspect(|staged| staged.keep());
        if let Some(at) = job.expires_at {
            tx.run("INSERT INTO expiries VALUES (?1, ?2)", params![stored_time(at), key])?;
        }
        tx.count_new(function, job.state);
        if rank == Rank::fresh() {
            tx.count_arrival(function, key);
        }
        Ok(())
    }
}

impl Step for Submit {
    type Found = Accepted;

    fn apply(&self, tx: &mut Transaction<'_, '_>) -> SqlResult<Result<Accepted, Error>> {
        if let Some(idempotency) = &self.new.idempotency
            && let Some(twin) = find_twin(tx, idempotency)?
        {
            return Ok(twin);
        }
        // Not before: what the twin has stored is there, room or not.
        if let Some(why) = &tx.no_room {
            return Ok(Err(why.clone()));
        }
        let function = tx.function(&self.new.function)?;
        if tx.waiting(function) >= self.new.max_queued {
            return Ok(Err(Error::Full { function: self.new.function.clone(), limit: self.new.max_queued }));
        }
        let id = tx.desk.next_id(tx.now);
        let job = record::accept(id, &self.new, tx.now);
        self.insert(tx, function, &job)?;
        if let Some(idempotency) = &self.new.idempotency {
            keys::insert(tx, idempotency, id);
        }
        Ok(Ok(Accepted::New { function, job: Arc::new(job) }))
    }

    fn finish(self, found: Accepted, memory: &mut Memory, effects: &mut Effects) {
        let submitted = match found {
            Accepted::Twin { id, state } => {
                effects.payloads.push(self.new.input);
                Submitted { id, state, duplicate: true }
            }
            Accepted::New { function, job } => {
                let (id, state) = (job.id, job.state);
                effects.moved.push((id, self.new.function, state));
                match job.due_at {
                    Some(due_at) => memory.schedule(function, due_at),
                    None => memory.offer(function, Ready { job, input: self.new.input }),
                }
                Submitted { id, state, duplicate: false }
            }
        };
        effects.answer_submit(self.answer, Ok(submitted));
    }

    fn refuse(self, why: Error, _: &mut Memory, effects: &mut Effects) {
        // Whether an unknown submit is stored shows when the queue opens again; then its file is wanted or removed.
        if let (Some(staged), false) = (self.new.input.staged(), matches!(why, Error::Unknown(_))) {
            staged.give_back();
        }
        effects.payloads.push(self.new.input);
        effects.answer_submit(self.answer, Err(why));
    }
}

fn find_twin(tx: &Transaction<'_, '_>, idempotency: &Idempotency) -> SqlResult<Option<Result<Accepted, Error>>> {
    let Some(first) = keys::find(tx, idempotency)? else { return Ok(None) };
    if first.body != idempotency.body {
        return Ok(Some(Err(Error::KeyReused(first.id))));
    }
    let runs = !tx.ended.contains(&first.id) && tx.shared.memory().running.contains_key(&first.id);
    let state = if runs { State::Running } else { first.rank.and_then(Rank::state).unwrap_or(State::Queued) };
    Ok(Some(Ok(Accepted::Twin { id: first.id, state })))
}

/// The bytes of a payload as a row keeps them.
pub(crate) fn body<'a>(payload: &'a Payload, file: Option<&'a str>) -> Body<'a> {
    match (payload, file) {
        (Payload::Inline(bytes), None) => Body::Inline(bytes),
        (_, Some(name)) => Body::File(name),
        (Payload::Blob(_), None) => Body::Inline(&[]),
    }
}

/// The bytes that a payload takes on its way to the disk.
pub(crate) fn inline_bytes(payload: &Payload) -> usize {
    match payload {
        Payload::Inline(bytes) => bytes.len(),
        Payload::Blob(_) => 0,
    }
}
