//! What a queue refuses, and why.

use std::io;

use kvern_core::{FunctionName, JobId, State};
use serde::{Deserialize, Serialize};

/// Every way in which a queue can say no. The text is for a person; the gateway maps the variant to a status.
#[derive(Debug, Clone, thiserror::Error, Serialize, Deserialize)]
pub enum Error {
    /// `max_queued` jobs of this function wait already. Nothing was stored. Try again later.
    #[error("the queue of `{function}` is full: {limit} jobs wait")]
    Full {
        /// The function.
        function: FunctionName,
        /// Its `max_queued`.
        limit: u64,
    },
    /// The payload is larger than this queue stores.
    #[error("{bytes} bytes are more than the {limit} bytes that this queue stores")]
    TooLarge {
        /// Size of the payload.
        bytes: u64,
        /// What the queue stores at most.
        limit: u64,
    },
    /// The idempotency key was used with another body.
    #[error("the idempotency key was already used for job {0} with another body")]
    KeyReused(JobId),
    /// No such job, or it was forgotten.
    #[error("there is no job {0}")]
    UnknownJob(JobId),
    /// The job is in a state in which this cannot be done.
    #[error("job {id} is {state}")]
    WrongState {
        /// The job.
        id: JobId,
        /// Where it stands.
        state: State,
    },
    /// The lease is over: it expired, the job was given to another, or the server restarted. The outcome is not stored.
    #[error("the lease on job {0} is over; another attempt owns the job now")]
    StaleLease(JobId),
    /// The cursor does not belong to this list.
    #[error("the cursor belongs to another list")]
    BadCursor,
    /// The stored bytes of the job do not match their checksum.
    #[error("the stored bytes of job {0} are damaged")]
    Damaged(JobId),
    /// There is no room: the disk, or the bound on unsynced bytes. Nothing was stored. Try again later.
    #[error("there is no room to store the job: {0}")]
    NoSpace(String),
    /// The system has too little of something for the moment, such as open files. Nothing was stored. Try again later.
    #[error("the system has too little of something for the moment: {0}")]
    Busy(String),
    /// The disk refused it, or has not answered for a while. Nothing was stored. Try again later.
    #[error("the disk does not take it: {0}")]
    Disk(String),
    /// The queue cannot tell whether it stored this. The same idempotency key makes a retry safe.
    #[error("whether the job was kept is unknown: {0}")]
    Unknown(String),
    /// The queue takes nothing any more: it is sealed after a failed write, or closing.
    #[error("the queue is closed: {0}")]
    Closed(String),
    /// Anything else that broke, as the log should have it.
    #[error("the queue failed: {0}")]
    Broken(String),
}

impl Error {
    /// What a failed operation on a file means. `what` says what could not be done.
    #[must_use]
    pub fn of_io(what: &str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::NoSpace(error.to_string())
            }
            _ if is_scarcity(error) => Self::Busy(format!("{what}: {error}")),
            _ => Self::Broken(format!("{what}: {error}")),
        }
    }
}

/// Whether the system lacks something that it will have again once others give it back: open files or memory.
#[must_use]
pub fn is_scarcity(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}
