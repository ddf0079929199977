//! What can be done to a queue, drawn at random. Choices are few and small, so that they collide often and shrink well.

use kvern_core::State;
use kvern_core::limits::{INLINE_BYTES_MAX, RECORD_BYTES};
use proptest::prelude::*;

/// One step. Numbers name things by their place: a function, a job so far accepted, a lease so far given (modulo how
/// many there are).
#[derive(Debug, Clone)]
pub(super) enum Operation {
    Submit(Submit),
    /// The same job with the same key, so many times at once.
    Twins {
        submit: Submit,
        count: u8,
    },
    Lease {
        wants: Vec<(u8, u8)>,
    },
    Renew {
        leases: Vec<Pick>,
    },
    Settle {
        lease: Pick,
        how: How,
    },
    AppendLog {
        lease: Pick,
        bytes: u16,
    },
    Cancel {
        job: u16,
    },
    Retry {
        job: u16,
    },
    Forget {
        job: u16,
    },
    Pause {
        function: u8,
        paused: bool,
    },
    Announce {
        worker: u8,
    },
    Advance {
        ms: u64,
    },
    Jump {
        ms: i64,
    },
    Sweep {
        limit: usize,
        succeeded_secs: u64,
        failed_secs: u64,
        bytes: u64,
    },
    List(List),
    ReadLog {
        job: u16,
        offset: u64,
        limit: usize,
    },
    Watch {
        job: u16,
    },
    Unknown {
        job: u16,
    },
    /// No room for new jobs from now on, or room again.
    Disk {
        is_full: bool,
    },
    /// A stop in order, and a new start.
    Close,
    /// A kill: what was acknowledged is there.
    Reboot,
    /// A power cut before this was acknowledged: it is there as a whole, or not at all.
    DirtyReboot {
        during: Box<Operation>,
        seed: u64,
    },
}

/// A job to submit. Times are milliseconds from now.
#[derive(Debug, Clone)]
pub(super) struct Submit {
    pub(super) function: u8,
    pub(super) key: Option<u8>,
    pub(super) body: u8,
    pub(super) size: Size,
    pub(super) not_before: Option<i64>,
    pub(super) expires: Option<u64>,
    pub(super) priority: u8,
    pub(super) max_queued: u64,
}

/// A size of a payload, on either side of the bound for inline ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    Empty,
    Small,
    Large,
}

/// A lease: one that was not used up yet (as far as is known), or any that ever was.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pick {
    Open(u16),
    Any(u16),
}

/// How an attempt ends. Times are milliseconds from now.
#[derive(Debug, Clone, Copy)]
pub(super) enum How {
    Succeed(Size),
    FailAndWait(u64),
    TimeOutAndWait(u64),
    Fail,
    CrashAndRetry,
    CrashAndFail,
    Cancel,
    Release,
}

/// A list to read page by page, and whether to try its cursor on another list.
#[derive(Debug, Clone)]
pub(super) struct List {
    pub(super) function: Option<u8>,
    pub(super) states: Vec<State>,
    pub(super) since_ms: Option<i64>,
    pub(super) page: usize,
}

/// Sequences of operations.
pub(super) fn sequences() -> impl Strategy<Value = Vec<Operation>> {
    proptest::collection::vec(operation(), 1..50)
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        30 => one_step(),
        8 => proptest::collection::vec((0u8..3, 1u8..4), 1..3).prop_map(|wants| Operation::Lease { wants }),
        1 => (0u8..2).prop_map(|worker| Operation::Announce { worker }),
        4 => prop::sample::select(vec![1, 400, 1_001, 2_000, 5_000, 9_999, 10_000, 60_000, 3_600_000])
            .prop_map(|ms| Operation::Advance { ms }),
        1 => prop::sample::select(vec![-7_200_000, -5_000, 5_000, 90_000_000]).prop_map(|ms| Operation::Jump { ms }),
        2 => sweep(),
        2 => list().prop_map(Operation::List),
        1 => (any::<u16>(), 0u64..2000, 0usize..2000)
            .prop_map(|(job, offset, limit)| Operation::ReadLog { job, offset, limit }),
        1 => any::<u16>().prop_map(|job| Operation::Watch { job }),
        1 => any::<u16>().prop_map(|job| Operation::Unknown { job }),
        1 => any::<bool>().prop_map(|is_full| Operation::Disk { is_full }),
        1 => Just(Operation::Close),
        1 => Just(Operation::Reboot),
        2 => (one_step(), any::<u64>())
            .prop_map(|(during, seed)| Operation::DirtyReboot { during: Box::new(during), seed }),
    ]
}

/// What a queue stores as a whole or not at all.
fn one_step() -> impl Strategy<Value = Operation> {
    prop_oneof![
        8 => submit().prop_map(Operation::Submit),
        1 => (submit(), 2u8..6).prop_map(|(submit, count)| Operation::Twins { submit, count }),
        4 => proptest::collection::vec(pick(), 1..4).prop_map(|leases| Operation::Renew { leases }),
        8 => (pick(), how()).prop_map(|(lease, how)| Operation::Settle { lease, how }),
        2 => (pick(), 0u16..3000).prop_map(|(lease, bytes)| Operation::AppendLog { lease, bytes }),
        2 => any::<u16>().prop_map(|job| Operation::Cancel { job }),
        2 => any::<u16>().prop_map(|job| Operation::Retry { job }),
        1 => any::<u16>().prop_map(|job| Operation::Forget { job }),
        1 => (0u8..3, any::<bool>()).prop_map(|(function, paused)| Operation::Pause { function, paused }),
    ]
}

fn submit() -> impl Strategy<Value = Submit> {
    let identity = (0u8..3, prop::option::weighted(0.4, 0u8..3), 0u8..2, size());
    let not_before = prop::option::weighted(0.25, prop::sample::select(vec![-1_000, 0, 1, 5_000, 3_600_000]));
    let expires = prop::option::weighted(0.25, prop::sample::select(vec![0, 1, 5_000, 60_000]));
    let max_queued = prop_oneof![4 => Just(1_000u64), 1 => Just(2u64)];
    (identity, not_before, expires, 3u8..6, max_queued).prop_map(
        |((function, key, body, size), not_before, expires, priority, max_queued)| Submit {
            function,
            key,
            body,
            size,
            not_before,
            expires,
            priority,
            max_queued,
        },
    )
}

fn size() -> impl Strategy<Value = Size> {
    prop_oneof![2 => Just(Size::Empty), 8 => Just(Size::Small), 1 => Just(Size::Large)]
}

fn pick() -> impl Strategy<Value = Pick> {
    prop_oneof![4 => any::<u16>().prop_map(Pick::Open), 1 => any::<u16>().prop_map(Pick::Any)]
}

fn how() -> impl Strategy<Value = How> {
    let wait = || prop::sample::select(vec![1u64, 5_000, 60_000]);
    prop_oneof![
        4 => size().prop_map(How::Succeed),
        3 => wait().prop_map(How::FailAndWait),
        1 => wait().prop_map(How::TimeOutAndWait),
        2 => Just(How::Fail),
        2 => Just(How::CrashAndRetry),
        1 => Just(How::CrashAndFail),
        1 => Just(How::Cancel),
        2 => Just(How::Release),
    ]
}

fn sweep() -> impl Strategy<Value = Operation> {
    let limit = prop::sample::select(vec![1, 3, 1_000]);
    let secs = || prop::sample::select(vec![1, 60]);
    // Everything fits, or some records, or one large body, or nothing.
    let bytes = prop::sample::select(vec![u64::MAX, 3 * RECORD_BYTES, 2 * INLINE_BYTES_MAX as u64, 0]);
    (limit, secs(), secs(), bytes).prop_map(|(limit, succeeded_secs, failed_secs, bytes)| Operation::Sweep {
        limit,
        succeeded_secs,
        failed_secs,
        bytes,
    })
}

fn list() -> impl Strategy<Value = List> {
    let function = prop::option::of(0u8..3);
    let states = prop::sample::subsequence(State::ALL.to_vec(), 0..=State::ALL.len());
    let since_ms = prop::option::of(prop::sample::select(vec![-60_000, -1, 0, 5_000]));
    (function, states, since_ms, 0usize..4).prop_map(|(function, states, since_ms, page)| List {
        function,
        states,
        since_ms,
        page,
    })
}
