//! The bounds of the manifest's values, by name; the defaults are in [`kvern_core::limits`].
//!
//! An upper bound keeps a slip of the finger from becoming a promise, and every later sum inside 64 bits.

use std::ops::RangeInclusive;
use std::time::Duration;

use kvern_core::limits::ATTEMPTS_MAX;

use crate::units::{Length, Size};

/// Largest manifest, in bytes. Ours are a few kilobytes; a longer file is another file.
pub const MANIFEST_BYTES_MAX: usize = 1 << 20;
/// Most attempts at once of one function on one worker.
pub const CONCURRENCY_MAX: u32 = 1024;

pub(crate) const TIMEOUT: RangeInclusive<Length> = Length(Duration::from_millis(1))..=Length::days(1);
pub(crate) const ATTEMPTS: RangeInclusive<i64> = 1..=ATTEMPTS_MAX as i64;
pub(crate) const BACKOFF: RangeInclusive<Length> = Length::ZERO..=Length::days(30);
pub(crate) const CONCURRENCY: RangeInclusive<i64> = 1..=CONCURRENCY_MAX as i64;
pub(crate) const SCALE_MIN: RangeInclusive<i64> = 0..=CONCURRENCY_MAX as i64;
pub(crate) const SCALE_MAX: RangeInclusive<i64> = 1..=CONCURRENCY_MAX as i64;
pub(crate) const IDLE: RangeInclusive<Length> = Length::ZERO..=Length::days(30);
/// Under a megabyte nothing starts: who writes `256` means `"256M"`.
pub(crate) const MEMORY: RangeInclusive<Size> = Size(1 << 20)..=Size(16 << 40);
pub(crate) const BODY: RangeInclusive<Size> = Size(1)..=Size(1 << 40);
pub(crate) const QUEUED: RangeInclusive<i64> = 1..=1_000_000_000;
pub(crate) const KEEP: RangeInclusive<Length> = Length::ZERO..=Length::days(3650);
pub(crate) const KEEP_BYTES: RangeInclusive<Size> = Size(0)..=Size(1 << 50);

/// An instance without work is stopped after this long unless the manifest says otherwise.
pub(crate) const IDLE_DEFAULT: Duration = Duration::from_secs(10 * 60);
