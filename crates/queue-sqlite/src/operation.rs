//! Everything that the writer can be asked for. Each kind is a file; this one only tells them apart.

use kvern_queue::Error;
use rusqlite::Result as SqlResult;

use crate::effects::Effects;
use crate::forget::Forget;
use crate::inbox::Inbox;
use crate::log::AppendLog;
use crate::long::MarkLong;
use crate::memory::Memory;
use crate::pause::Pause;
use crate::redirect::Redirect;
use crate::settle::Settle;
use crate::submit::Submit;
use crate::sweep::Sweep;
use crate::transaction::Transaction;

/// What a row takes beside the bytes that it carries.
const ROW_BYTES: u64 = 512;

/// One thing to make durable.
#[derive(Debug)]
pub(crate) enum Operation {
    Submit(Box<Submit>),
    Settle(Box<Settle>),
    Redirect(Redirect),
    Forget(Forget),
    Pause(Pause),
    AppendLog(AppendLog),
    MarkLong(MarkLong),
    Sweep(Sweep),
}

/// What the writer is to do with an operation: three steps around the commit.
pub(crate) trait Step {
    /// What applying found, for after the commit.
    type Found;

    /// Writes into the open transaction. May run again after a rollback, so it changes nothing outside of it but marks
    /// that another run sets again. A refusal is a value; an error spoils the transaction.
    fn apply(&self, tx: &mut Transaction<'_, '_>) -> SqlResult<Result<Self::Found, Error>>;

    /// After the commit: changes the memory, and leaves the answer and the news in `effects`.
    fn finish(self, found: Self::Found, memory: &mut Memory, effects: &mut Effects);

    /// It was refused, or could not be stored: undoes marks and leaves the answer in `effects`.
    fn refuse(self, why: Error, memory: &mut Memory, effects: &mut Effects);
}

/// [`Step::Found`] of any operation.
#[derive(Debug)]
pub(crate) enum Found {
    Submit(<Submit as Step>::Found),
    Settle(<Settle as Step>::Found),
    Redirect(<Redirect as Step>::Found),
    Forget(<Forget as Step>::Found),
    Pause(<Pause as Step>::Found),
    AppendLog(<AppendLog as Step>::Found),
    MarkLong(<MarkLong as Step>::Found),
    Sweep(<Sweep as Step>::Found),
}

// === impl Operation ===

impl Operation {
    /// The room in the inbox that it takes.
    pub(crate) fn units(&self) -> usize {
        Inbox::units(self.bytes()) as usize
    }

    /// What it takes of the disk, roughly: in the log and then in the database, and what is staged already but was not
    /// there at the last look.
    pub(crate) fn disk_bytes(&self) -> u64 {
        let staged = if let Self::Submit(submit) = self { submit.staged_bytes() } else { 0 };
        staged + 2 * (self.bytes() as u64 + ROW_BYTES)
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Submit(submit) => submit.bytes(),
            Self::Settle(settle) => settle.bytes(),
            Self::AppendLog(append) => append.bytes.len(),
            Self::Redirect(_) | Self::Forget(_) | Self::Pause(_) | Self::MarkLong(_) | Self::Sweep(_) => 0,
        }
    }

    /// Whether it may be refused for want of space; the others are what makes room in the end.
    pub(crate) fn is_submit(&self) -> bool {
        matches!(self, Self::Submit(_))
    }

    /// As [`Step::apply`].
    pub(crate) fn apply(&self, tx: &mut Transaction<'_, '_>) -> SqlResult<Result<Found, Error>> {
        Ok(match self {
            Self::Submit(it) => it.apply(tx)?.map(Found::Submit),
            Self::Settle(it) => it.apply(tx)?.map(Found::Settle),
            Self::Redirect(it) => it.apply(tx)?.map(Found::Redirect),
            Self::Forget(it) => it.apply(tx)?.map(Found::Forget),
            Self::Pause(it) => it.apply(tx)?.map(Found::Pause),
            Self::AppendLog(it) => it.apply(tx)?.map(Found::AppendLog),
            Self::MarkLong(it) => it.apply(tx)?.map(Found::MarkLong),
            Self::Sweep(it) => it.apply(tx)?.map(Found::Sweep),
        })
    }

    /// As [`Step::finish`] or [`Step::refuse`].
    pub(crate) fn end(self, found: Result<Found, Error>, memory: &mut Memory, effects: &mut Effects) {
        match (self, found) {
            (Self::Submit(it), Ok(Found::Submit(found))) => it.finish(found, memory, effects),
            (Self::Settle(it), Ok(Found::Settle(found))) => it.finish(found, memory, effects),
            (Self::Redirect(it), Ok(Found::Redirect(found))) => it.finish(found, memory, effects),
            (Self::Forget(it), Ok(Found::Forget(found))) => it.finish(found, memory, effects),
            (Self::Pause(it), Ok(Found::Pause(found))) => it.finish(found, memory, effects),
            (Self::AppendLog(it), Ok(Found::AppendLog(found))) => it.finish(found, memory, effects),
            (Self::MarkLong(it), Ok(Found::MarkLong(found))) => it.finish(found, memory, effects),
            (Self::Sweep(it), Ok(Found::Sweep(found))) => it.finish(found, memory, effects),
            (it, Ok(_)) => it.refuse(&Error::Broken("an answer to another operation".to_owned()), memory, effects),
            (it, Err(why)) => it.refuse(&why, memory, effects),
        }
    }

    fn refuse(self, why: &Error, memory: &mut Memory, effects: &mut Effects) {
        let why = why.clone();
        match self {
            Self::Submit(it) => it.refuse(why, memory, effects),
            Self::Settle(it) => it.refuse(why, memory, effects),
            Self::Redirect(it) => it.refuse(why, memory, effects),
            Self::Forget(it) => it.refuse(why, memory, effects),
            Self::Pause(it) => it.refuse(why, memory, effects),
            Self::AppendLog(it) => it.refuse(why, memory, effects),
            Self::MarkLong(it) => it.refuse(why, memory, effects),
            Self::Sweep(it) => it.refuse(why, memory, effects),
        }
    }
}
