//! Every bound that Kvern sets, by name. Compile-time asserts hold the relations between them.

use std::time::Duration;

/// Longest function name, in bytes.
pub const NAME_BYTES_MAX: usize = 63;
/// Largest input of a job unless the manifest says otherwise.
pub const INPUT_BYTES_DEFAULT: u64 = 16 << 20;
/// Largest result of a job unless the manifest says otherwise.
pub const OUTPUT_BYTES_DEFAULT: u64 = 6 << 20;
/// Inputs and results above this go to a file beside the database, and never whole into memory.
pub const INLINE_BYTES_MAX: usize = 64 << 10;
/// Jobs are accepted while at least this much is free on the disk of the data directory, so that what runs can end. What
/// is free in the database counts, for the most part.
pub const FREE_BYTES_MIN: u64 = 64 << 20;
/// Jobs waiting (queued or scheduled) per function unless the manifest says otherwise.
pub const QUEUED_JOBS_DEFAULT: u64 = 1_000_000;
/// The longest that a submit waits for the disk. After that its fate is told to be unknown, and a disk that has not
/// answered anybody for so long is taken to hang: new jobs are refused at once.
pub const SUBMIT_WITHIN: Duration = Duration::from_secs(10);
/// Time for one attempt unless the manifest says otherwise.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// Attempts of a job unless the manifest says otherwise.
pub const ATTEMPTS_DEFAULT: u32 = 5;
/// Most attempts that a manifest may ask for; also bounds the history kept with a job.
pub const ATTEMPTS_MAX: u32 = 100;
/// Crashes of the function's process after which a job fails even if retries remain.
pub const STRIKES_MAX: u32 = 3;
/// Attempts cut off by the death of the server or worker after which a job fails.
pub const INTERRUPTIONS_MAX: u32 = 20;
/// Results are kept this long unless the manifest says otherwise.
pub const KEEP_SUCCEEDED_DEFAULT: Duration = Duration::from_secs(24 * 3600);
/// Dead letters are kept this long unless the manifest says otherwise.
pub const KEEP_FAILED_DEFAULT: Duration = Duration::from_secs(14 * 24 * 3600);
/// Finished jobs of one function take this much together, unless the manifest says otherwise; past it the oldest go.
pub const KEEP_BYTES_DEFAULT: u64 = 10 << 30;
/// What a finished job counts beside its input, result and log: its record, roughly.
pub const RECORD_BYTES: u64 = 512;
/// The first bytes of an attempt's log that are kept.
pub const LOG_HEAD_BYTES_MAX: usize = 1 << 20;
/// The last bytes of an attempt's log that are kept beside the head.
pub const LOG_TAIL_BYTES_MAX: usize = 64 << 10;
/// The log of a job, all its attempts together. A line at its end says that more came.
pub const LOG_BYTES_MAX: u64 = 8 << 20;
/// Longest error message kept with a job, in bytes.
pub const ERROR_MESSAGE_BYTES_MAX: usize = 4 << 10;
/// Longest stack trace kept with a job, in bytes.
pub const ERROR_TRACE_BYTES_MAX: usize = 16 << 10;
/// Longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// An idempotency key is kept at least this long, and at least as long as its job.
pub const IDEMPOTENCY_KEEP: Duration = Duration::from_secs(24 * 3600);
/// The longest that one look-up waits for a job to finish.
pub const WAIT_MAX: Duration = Duration::from_secs(60);
/// How long a lease stands without renewal. With a sweep, the jobs of a lost worker run again within [`RESCUED_WITHIN`].
pub const LEASE_TTL: Duration = Duration::from_secs(9);
/// The jobs of a lost worker run again within this time.
pub const RESCUED_WITHIN: Duration = Duration::from_secs(10);
/// How long a worker is listed after its last word. Nothing hangs on it, as leases do on theirs, so an idle server need not
/// wake up for it often.
pub const WORKER_LISTED_FOR: Duration = Duration::from_secs(60);
/// How often leases that have run out are looked for while jobs run.
pub const SWEEP_EVERY: Duration = Duration::from_millis(500);
/// How often a worker renews its leases; a cancellation reaches an attempt within this time.
pub const RENEW_EVERY: Duration = Duration::from_millis(500);
/// Settlements that a worker may have handed over and not yet seen on disk.
pub const SETTLEMENTS_UNSYNCED_MAX: usize = 256;
/// Time between TERM and KILL for a function's process.
pub const STOP_GRACE: Duration = Duration::from_secs(5);
/// Processes and threads that one instance may have at once, where a cgroup can be made: far more than any function
/// needs, and far fewer than the machine has room for.
pub const PROCESSES_MAX: u32 = 1024;
/// Time that a stopping server gives its running jobs.
pub const DRAIN_TIME: Duration = Duration::from_secs(20);
/// Open files that a server keeps for what is not a connection: the database and its readers, the files of large inputs
/// and results, connections beyond the bound.
pub const FILES_RESERVED: u64 = 256;
/// Open files of one running function: its pipes, its channel, input and result.
pub const FILES_PER_SLOT: u64 = 16;
/// Most jobs on one page of a list.
pub const PAGE_JOBS_MAX: usize = 500;
/// Priorities go from 0 (last) to this (first).
pub const PRIORITY_MAX: u8 = 9;
/// The priority of a job that names none.
pub const PRIORITY_DEFAULT: u8 = 4;
/// Tags on one job.
pub const TAGS_MAX: usize = 16;

const _: () = {
    assert!(LEASE_TTL.as_millis() + SWEEP_EVERY.as_millis() < RESCUED_WITHIN.as_millis());
    assert!(RENEW_EVERY.as_millis() * 4 <= LEASE_TTL.as_millis(), "a lease survives three lost renewals");
    assert!(RENEW_EVERY.as_millis() <= 1000, "cancel reaches a running attempt within a second");
    assert!(ATTEMPTS_DEFAULT <= ATTEMPTS_MAX);
    let log_bytes = (LOG_HEAD_BYTES_MAX + LOG_TAIL_BYTES_MAX) as u64;
    assert!(
        log_bytes * ATTEMPTS_DEFAULT as u64 <= LOG_BYTES_MAX,
        "unless told otherwise, no attempt goes without a log"
    );
    assert!(INLINE_BYTES_MAX as u64 <= INPUT_BYTES_DEFAULT);
    assert!(PRIORITY_DEFAULT <= PRIORITY_MAX);
    assert!(STOP_GRACE.as_secs() < DRAIN_TIME.as_secs(), "a stop inside a drain ends before the drain does");
};
