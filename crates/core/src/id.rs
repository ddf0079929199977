//! The id of a job, and how ids are made.
//!
//! A [`JobId`] is a UUID version 7 (RFC 9562, section 5.7) whose bits after the time carry a counter
//! (section 6.2, method 1), so that ids made by one [`Clockwork`] only ever grow:
//!
//! ```text
//! 48 bits  Unix time in milliseconds
//!  4 bits  version (7)
//! 12 bits  counter, high part
//!  2 bits  variant (0b10)
//!  9 bits  counter, low part
//! 53 bits  random
//! ```
//!
//! Time and counter together are the [`Sequence`]: 63 bits that order jobs by acceptance and can serve as an integer
//! key. What makes an id invalid: another version or variant, or a time beyond 42 bits (the year 2109).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::time::UnixMs;

const COUNTER_BITS: u32 = 21;
const COUNTER_LOW_BITS: u32 = 9;
const RANDOM_BITS: u32 = 53;
const TIME_BITS_MAX: u32 = 42;

/// Characters of an id, and which of them are hyphens.
const TEXT_BYTES: usize = 36;
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// The public id of a job. Ordered by acceptance on one queue.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobId(u128);

/// The part of a [`JobId`] that orders: milliseconds and counter in 63 bits, never zero for a real job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(u64);

/// The text is not the id of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadId;

/// Makes ids that only grow, also when the wall clock goes back or stands still.
#[derive(Debug, Clone, Copy)]
pub struct Clockwork {
    last: Sequence,
}

// === impl JobId ===

impl JobId {
    /// The id with this order and these random bits (the lowest 53 of `random` are used).
    #[must_use]
    pub fn new(sequence: Sequence, random: u64) -> Self {
        let time = u128::from(sequence.0 >> COUNTER_BITS);
        let counter = u128::from(sequence.0 & ((1 << COUNTER_BITS) - 1));
        let high = counter >> COUNTER_LOW_BITS;
        let low = counter & ((1 << COUNTER_LOW_BITS) - 1);
        let random = u128::from(random & ((1 << RANDOM_BITS) - 1));
        Self(time << 80 | 7 << 76 | high << 64 | 0b10 << 62 | low << RANDOM_BITS | random)
    }

    /// Where the job stands in the order of acceptance.
    #[must_use]
    pub fn sequence(self) -> Sequence {
        let time = (self.0 >> 80) as u64;
        let high = (self.0 >> 64) as u64 & 0xfff;
        let low = (self.0 >> RANDOM_BITS) as u64 & ((1 << COUNTER_LOW_BITS) - 1);
        Sequence(time << COUNTER_BITS | high << COUNTER_LOW_BITS | low)
    }

    /// The random part: 53 bits.
    #[must_use]
    pub fn random(self) -> u64 {
        self.0 as u64 & ((1 << RANDOM_BITS) - 1)
    }

    /// When the job was accepted, by the clock of the queue.
    #[must_use]
    pub fn accepted_at(self) -> UnixMs {
        self.sequence().at()
    }

    /// The id as the 128 bits of the UUID.
    #[must_use]
    pub fn as_u128(self) -> u128 {
        self.0
    }

    fn from_u128(bits: u128) -> Result<Self, BadId> {
        let version_is_7 = bits >> 76 & 0xf == 7;
        let variant_is_rfc = bits >> 62 & 0b11 == 0b10;
        let time_fits = bits >> (80 + TIME_BITS_MAX) == 0;
        if version_is_7 && variant_is_rfc && time_fits { Ok(Self(bits)) } else { Err(BadId) }
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not through formatted numbers: an id is written several times for each request.
        let (mut text, mut bits) = ([b'-'; TEXT_BYTES], self.0);
        for at in (0..TEXT_BYTES).rev().filter(|at| !HYPHENS.contains(at)) {
            text[at] = b"0123456789abcdef"[(bits & 0xf) as usize];
            bits >>= 4;
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for JobId {
    type Err = BadId;

    /// Reads the hyphenated form only (36 characters, either case): one id, one spelling in URLs.
    fn from_str(text: &str) -> Result<Self, BadId> {
        let bytes = text.as_bytes();
        if bytes.len() != TEXT_BYTES {
            return Err(BadId);
        }
        let mut bits = 0u128;
        for (at, byte) in bytes.iter().enumerate() {
            if HYPHENS.contains(&at) {
                if *byte != b'-' {
                    return Err(BadId);
                }
            } else {
                let digit = char::from(*byte).to_digit(16).ok_or(BadId)?;
                bits = bits << 4 | u128::from(digit);
            }
        }
        Self::from_u128(bits)
    }
}

impl TryFrom<String> for JobId {
    type Error = BadId;

    fn try_from(text: String) -> Result<Self, BadId> {
        text.parse()
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> Self {
        id.to_string()
    }
}

// === impl Sequence ===

impl Sequence {
    /// The first sequence of a millisecond: a bound for searches by time.
    #[must_use]
    pub fn first_of(at: UnixMs) -> Self {
        let time = at.0.min((1 << TIME_BITS_MAX) - 1);
        Self(time << COUNTER_BITS)
    }

    /// From the integer that [`Sequence::get`] gave; the sign bit is dropped.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self(bits & (u64::MAX >> 1))
    }

    /// As an integer below 2^63.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }

    /// The time in it.
    #[must_use]
    pub fn at(self) -> UnixMs {
        UnixMs(self.0 >> COUNTER_BITS)
    }
}

// === impl Clockwork ===

impl Clockwork {
    /// Goes on after `last`, the greatest sequence that was ever given out (zero for a new queue).
    #[must_use]
    pub fn after(last: Sequence) -> Self {
        Self { last }
    }

    /// The next sequence: the given time, or one more than the last if the clock has not moved on.
    pub fn tick(&mut self, now: UnixMs) -> Sequence {
        let by_clock = Sequence::first_of(now).0;
        self.last = Sequence(by_clock.max(self.last.0 + 1));
        self.last
    }
}

// === impl BadId ===

impl fmt::Display for BadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a job id: a job id is a UUID of version 7, such as 01890a5d-ac96-774b-bcce-b302099a8057")
    }
}

impl std::error::Error for BadId {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_keeps_its_parts(ms in 0u64..1 << TIME_BITS_MAX, counter in 0u64..1 << COUNTER_BITS, random: u64) {
            let sequence = Sequence(ms << COUNTER_BITS | counter);
            let id = JobId::new(sequence, random);
            prop_assert_eq!(id.sequence(), sequence);
            prop_assert_eq!(id.random(), random & ((1 << RANDOM_BITS) - 1));
            prop_assert_eq!(id.accepted_at(), UnixMs(ms));
            prop_assert_eq!(id.to_string().parse::<JobId>(), Ok(id));
        }

        #[test]
        fn order_of_ids_is_order_of_sequences(a in 1u64..1 << 62, b in 1u64..1 << 62, ra: u64, rb: u64) {
            prop_assume!(a != b);
            let (x, y) = (JobId::new(Sequence(a), ra), JobId::new(Sequence(b), rb));
            prop_assert_eq!(x < y, a < b);
        }

        #[test]
        fn ticks_only_grow(times in proptest::collection::vec(0u64..1 << 40, 1..50)) {
            let mut clockwork = Clockwork::after(Sequence(0));
            let mut last = Sequence(0);
            for time in times {
                let next = clockwork.tick(UnixMs(time));
                prop_assert!(next > last);
                last = next;
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            let _ = text.parse::<JobId>();
        }
    }

    #[test]
    fn other_uuids_are_refused() {
        for bad in [
            "",
            "01890a5d-ac96-474b-bcce-b302099a8057",
            "01890a5d-ac96-774b-3cce-b302099a8057",
            "f1890a5d-ac96-774b-bcce-b302099a8057",
            "01890a5dac96774bbcceb302099a8057",
            "01890a5d-ac96-774b-bcce-b302099a805g",
        ] {
            assert_eq!(bad.parse::<JobId>(), Err(BadId), "{bad}");
        }
        assert!("01890a5d-ac96-774b-bcce-b302099a8057".parse::<JobId>().is_ok());
    }
}
