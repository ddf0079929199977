//! What the callers and the writer share.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kvern_core::{FunctionName, JobId};
use kvern_queue::{Clock, Error, Hub};
use tokio::sync::oneshot;

use crate::blob::BlobDir;
use crate::commits::Commits;
use crate::inbox::Inbox;
use crate::memory::{Memory, Moved};
use crate::operation::Operation;
use crate::pulse::Pulse;
use crate::space::Space;

/// Where the answer to an operation goes.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, Error>>;

/// What the callers and the writer share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) memory: Mutex<Memory>,
    pub(crate) inbox: Inbox,
    pub(crate) hub: Hub,
    pub(crate) clock: Clock,
    pub(crate) commits: Commits,
    pub(crate) pulse: Pulse,
    pub(crate) blobs: BlobDir,
    pub(crate) space: Mutex<Space>,
    /// What [`Shared::room`] found last.
    pub(crate) room: Mutex<Result<(), Error>>,
    /// Long attempts could not be marked, and the log has said so.
    pub(crate) is_marking_broken: AtomicBool,
    /// Waiting jobs whose input the scrub found damaged: the writer fails them.
    found_damaged: Mutex<BTreeSet<JobId>>,
}

impl Shared {
    /// With nothing handed over yet.
    pub(crate) fn new(memory: Memory, clock: Clock, blobs: BlobDir, space: Space) -> Self {
        Self {
            memory: Mutex::new(memory),
            inbox: Inbox::new(),
            hub: Hub::default(),
            clock,
            commits: Commits::default(),
            pulse: Pulse::new(),
            blobs,
            space: Mutex::new(space),
            room: Mutex::new(Ok(())),
            is_marking_broken: AtomicBool::new(false),
            found_damaged: Mutex::default(),
        }
    }

    /// Asks the writer to fail these jobs, as far as they still wait.
    pub(crate) fn tell_damaged(&self, jobs: impl IntoIterator<Item = JobId>) {
        self.damaged().extend(jobs);
        self.inbox.poke();
    }

    /// The jobs that it was asked to fail.
    pub(crate) fn take_damaged(&self) -> BTreeSet<JobId> {
        std::mem::take(&mut self.damaged())
    }

    fn damaged(&self) -> MutexGuard<'_, BTreeSet<JobId>> {
        // A set is whole at any time.
        self.found_damaged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The memory. Never held over an await or a system call.
    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        // A panic under this lock is a bug; what it left is still better than to stop every running job.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The room on the disk.
    pub(crate) fn space(&self) -> MutexGuard<'_, Space> {
        // Nothing in it is worse than a look at the disk that is a second old.
        self.space.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// Why a submit would be refused. Waits for nothing: a worker of the runtime asks.
    pub(crate) fn room(&self) -> Result<(), Error> {
        self.memory().check_open()?;
        self.pulse.check()?;
        let mut last = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        // The writer may have the space, and a disk that hangs the writer.
        if let Ok(mut space) = self.space.try_lock() {
            *last = space.room();
        }
        last.clone()
    }

    /// Hands an operation to the writer and waits for its answer.
    pub(crate) async fn ask<T>(
        &self,
        bytes: usize,
        operation: impl FnOnce(Answer<T>) -> Operation,
    ) -> Result<T, Error> {
        self.inbox.take_room(Inbox::units(bytes)).await;
        let (answer, answered) = oneshot::channel();
        self.push(operation(answer))?;
        self.answered(answered).await
    }

    /// Hands an operation to the writer. Room for it has been taken.
    pub(crate) fn push(&self, operation: Operation) -> Result<(), Error> {
        self.inbox.push(operation).map_err(|operation| {
            self.inbox.give_back(operation.units());
            self.memory().check_open().err().unwrap_or_else(|| Error::Closed("it is closing".to_owned()))
        })
    }

    /// The writer's answer.
    pub(crate) async fn answered<T>(&self, answered: oneshot::Receiver<Result<T, Error>>) -> Result<T, Error> {
        // The writer answers everything it takes, unless it dies.
        answered.await.unwrap_or_else(|_| Err(Error::Unknown("the writer ended".to_owned())))
    }

    /// The name of the function with this id.
    pub(crate) fn name(&self, function: i64) -> Option<FunctionName> {
        let memory = self.memory();
        let index = usize::try_from(function).ok()?;
        memory.functions.get(index).map(|function| function.name.clone())
    }

    /// Tells moves, after the record shows them.
    pub(crate) fn tell(&self, moved: &[Moved]) {
        for (id, function, state) in moved {
            self.hub.tell(*id, function, *state);
        }
    }
}
