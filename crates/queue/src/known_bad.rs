//! Mistakes on purpose, so that a test can show that the checks notice them.
//!
//! They are there only with the feature `known-bad`, which no build of the product has, and then only the one that
//! [`VARIABLE`] names is made. Each is one place in the code, which asks [`KnownBad::is_made`]. See
//! `docs/decisions/0012-known-bad-variants.md`.

#[cfg(all(feature = "known-bad", not(debug_assertions)))]
compile_error!("the feature `known-bad` makes mistakes on purpose: it is for tests and never for a release");

/// The environment variable that chooses a mistake by its name.
pub const VARIABLE: &str = "KVERN_KNOWN_BAD";

/// A mistake on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownBad {
    /// Answers are given before the commit, which waits for the next batch.
    AckBeforeCommit,
    /// A commit whose sync failed is tried again.
    RetryFailedSync,
    /// Whoever holds any lease of a job may settle it.
    NoFencing,
    /// Leases go by the wall clock.
    WallClockLeases,
    /// Attempts, failures, strikes and interruptions are not counted.
    NoAttemptCounter,
    /// The writer panics when a function is paused, in the middle of a transaction.
    PanicInWriter,
}

impl KnownBad {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::AckBeforeCommit,
        Self::RetryFailedSync,
        Self::NoFencing,
        Self::WallClockLeases,
        Self::NoAttemptCounter,
        Self::PanicInWriter,
    ];

    /// What it is called in [`VARIABLE`].
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AckBeforeCommit => "ack_before_commit",
            Self::RetryFailedSync => "retry_failed_sync",
            Self::NoFencing => "no_fencing",
            Self::WallClockLeases => "wall_clock_leases",
            Self::NoAttemptCounter => "no_attempt_counter",
            Self::PanicInWriter => "panic_in_writer",
        }
    }

    /// Whether this mistake is to be made.
    #[must_use]
    #[inline]
    pub fn is_made(self) -> bool {
        made() == Some(self)
    }
}

/// The mistake that this process makes.
///
/// # Panics
/// If it is asked for one that is not known.
#[cfg(feature = "known-bad")]
#[must_use]
pub fn made() -> Option<KnownBad> {
    static MADE: std::sync::OnceLock<Option<KnownBad>> = std::sync::OnceLock::new();
    *MADE.get_or_init(|| {
        let asked = std::env::var(VARIABLE).ok()?;
        let known = KnownBad::ALL.into_iter().find(|bad| bad.name() == asked);
        assert!(known.is_some(), "{VARIABLE}={asked} is not known");
        known
    })
}

/// None: this build makes no mistakes on purpose.
#[cfg(not(feature = "known-bad"))]
#[must_use]
#[inline]
pub const fn made() -> Option<KnownBad> {
    None
}
