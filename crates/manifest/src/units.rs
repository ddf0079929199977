//! The units of the manifest: durations such as `"30s"` and sizes such as `"16M"`.
//!
//! A duration without a unit is refused, because nobody can tell seconds from milliseconds by looking. Months and years
//! are refused too: their lengths vary, and `M` beside `m` is a trap. Size suffixes are powers of 1024, with or without
//! the `i` and the `B`, in either case: `64k`, `256M`, `16MiB`, `2GB`.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// A length of time as written: `"30s"`, `"1h 30m"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Length(pub(crate) Duration);

/// A number of bytes as written: `"16M"`, or a plain integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(pub(crate) u64);

// === impl Length ===

impl Length {
    pub(crate) const ZERO: Self = Self(Duration::ZERO);

    pub(crate) const fn days(days: u64) -> Self {
        Self(Duration::from_secs(days * 24 * 3600))
    }

    /// None if `text` is not a duration.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(|c: char| !c.is_alphabetic());
        if words.any(|word| word == "M" || word.starts_with("month") || word.starts_with('y')) {
            return None;
        }
        // humantime takes a bare zero; we do not, so that every duration has its unit.
        if !text.contains(char::is_alphabetic) {
            return None;
        }
        humantime::parse_duration(text).ok().map(Self)
    }
}

impl fmt::Display for Length {
    /// As the manifest would write it, in the largest unit that needs no remainder; up to two days in hours.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u128, &str); 4] = [(3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")];
        const DAY: u128 = 24 * 3_600_000;
        if !self.0.subsec_nanos().is_multiple_of(1_000_000) {
            return humantime::format_duration(self.0).fmt(f);
        }
        let ms = self.0.as_millis();
        if ms == 0 {
            return f.write_str("0s");
        }
        if ms > 2 * DAY && ms.is_multiple_of(DAY) {
            return write!(f, "{}d", ms / DAY);
        }
        let (unit, word) = UNITS.into_iter().find(|(unit, _)| ms.is_multiple_of(*unit)).unwrap_or((1, "ms"));
        write!(f, "{}{word}", ms / unit)
    }
}

impl JsonSchema for Length {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "title": "duration", "pattern": r"^\s*([0-9]+(\.[0-9]+)?\s*[a-zµ]+\s*)+$" })
    }
}

// === impl Size ===

impl Size {
    /// None if `text` is not a size.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let number: u64 = text[..digits].parse().ok()?;
        let shift = match text[digits..].trim_start().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return None,
        };
        number.checked_mul(1 << shift).map(Self)
    }
}

impl fmt::Display for Size {
    /// As the manifest would write it, in the largest unit that needs no remainder.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] = [(1 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "k")];
        match UNITS.into_iter().find(|(unit, _)| self.0 >= *unit && self.0.is_multiple_of(*unit)) {
            Some((unit, word)) => write!(f, "{}{word}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "title": "size",
            "pattern": r"^\s*[0-9]+\s*([kKmMgGtT]([iI]?[bB])?|[bB])?\s*$",
            "minimum": 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_need_a_unit_of_fixed_length() {
        for (text, ms) in [("30s", 30_000), ("2m", 120_000), ("1h 30m", 5_400_000), ("24h", 86_400_000), ("5ms", 5)] {
            assert_eq!(Length::parse(text), Some(Length(Duration::from_millis(ms))), "{text}");
        }
        for text in ["", "0", "30", "s", "5M", "1month", "2years", "1y", "-3s", "3 apples", "99999999999999999999s"] {
            assert_eq!(Length::parse(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512B", 512),
            ("64k", 65_536),
            ("16MiB", 16 << 20),
            ("2 GB", 2 << 30),
            ("1T", 1 << 40),
        ] {
            assert_eq!(Size::parse(text), Some(Size(bytes)), "{text}");
        }
        for text in ["", "M", "1.5G", "-1", "16 MM", "16i", "99999999999T", "١"] {
            assert_eq!(Size::parse(text), None, "{text}");
        }
    }

    #[test]
    fn units_are_shown_as_one_would_write_them() {
        for text in ["1ms", "1500ms", "30s", "1m", "90s", "24h", "48h", "14d", "3650d", "0s"] {
            assert_eq!(Length::parse(text).expect(text).to_string(), text);
        }
        for text in ["0", "1", "1000", "64k", "16M", "1T", "1025"] {
            assert_eq!(Size::parse(text).expect(text).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(ms in 0..u64::from(u32::MAX), bytes in any::<u64>()) {
            let length = Length(Duration::from_millis(ms));
            prop_assert_eq!(Length::parse(&length.to_string()), Some(length));
            prop_assert_eq!(Size::parse(&Size(bytes).to_string()), Some(Size(bytes)));
        }
    }
}
