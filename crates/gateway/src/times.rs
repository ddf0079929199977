//! Times and durations as they stand in the API: RFC 3339 in UTC with milliseconds, and `30s`, `5m`, `1h 30m`.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kvern_core::UnixMs;
use serde::{Serialize, Serializer};

/// The last moment that RFC 3339 can write: 9999-12-31T23:59:59.999Z.
const LAST_MS: u64 = 253_402_300_799_999;

/// A time that is written as RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rfc3339(pub(crate) UnixMs);

// === impl Rfc3339 ===

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = Duration::from_millis(self.0.0.min(LAST_MS));
        humantime::format_rfc3339_millis(UNIX_EPOCH + since).fmt(f)
    }
}

impl Serialize for Rfc3339 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A duration with its unit; none if `text` is not one. A bare number is refused, because nobody can tell its unit by
/// looking; months and years are, because their lengths vary and `M` beside `m` is a trap. The manifest reads the same.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut units = text.split(|c: char| !c.is_alphabetic()).filter(|unit| !unit.is_empty()).peekable();
    units.peek()?;
    if units.any(|unit| unit == "M" || unit.starts_with("month") || unit.starts_with('y')) {
        return None;
    }
    humantime::parse_duration(text).ok()
}

/// A moment: RFC 3339 with any offset, or a duration before `now`.
pub(crate) fn moment(text: &str, now: UnixMs) -> Option<UnixMs> {
    if let Some(ago) = duration(text) {
        let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        return Some(UnixMs(now.0.saturating_sub(ago)));
    }
    let (local, offset_ms) = split_offset(text)?;
    let local = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    let local = local.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let local = i64::try_from(local.as_millis()).ok()?;
    u64::try_from(local - offset_ms).ok().map(UnixMs)
}

/// Splits `2026-01-02T03:04:05+01:30` into the local time and its offset. A blank stands for the `+` that a query lost.
fn split_offset(text: &str) -> Option<(&str, i64)> {
    if let Some(local) = text.strip_suffix(['Z', 'z']) {
        return Some((local, 0));
    }
    let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let (sign, clock) = offset.split_at_checked(1)?;
    let sign = match sign {
        "+" | " " => 1,
        "-" => -1,
        _ => return None,
    };
    let (hours, minutes) = clock.split_once(':')?;
    let (hours, minutes) = (hours.parse::<u8>().ok()?, minutes.parse::<u8>().ok()?);
    let is_valid = hours < 24 && minutes < 60;
    is_valid.then(|| (local, sign * (i64::from(hours) * 60 + i64::from(minutes)) * 60_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_800_000_000_123);

    #[test]
    fn times_are_written_in_utc_with_milliseconds() {
        assert_eq!(Rfc3339(NOW).to_string(), "2027-01-15T08:00:00.123Z");
        assert_eq!(Rfc3339(UnixMs(0)).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Rfc3339(UnixMs(u64::MAX)).to_string(), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn moments_are_read_in_any_offset_or_as_an_age() {
        for text in ["2027-01-15T08:00:00.123Z", "2027-01-15T10:00:00.123+02:00", "2027-01-15T10:00:00.123 02:00"] {
            assert_eq!(moment(text, UnixMs(0)), Some(NOW), "{text}");
        }
        assert_eq!(moment("2027-01-15T06:30:00.123-01:30", UnixMs(0)), Some(NOW));
        assert_eq!(moment("1h", NOW), Some(UnixMs(NOW.0 - 3_600_000)));
        assert_eq!(moment("90 days", UnixMs(5)), Some(UnixMs(0)));
    }

    #[test]
    fn no_text_makes_it_panic() {
        for bad in ["", "1", "1700000000", "yesterday", "2027-01-15", "2027-01-15T08:00:00", "é+01:00", "+1é:00", "0"]
        {
            assert_eq!(moment(bad, NOW), None, "{bad}");
        }
        for bad in ["30", "", "1M", "2 months", "1y", "1h 1year"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
        assert_eq!(duration("1m 30s"), Some(Duration::from_secs(90)));
    }
}
