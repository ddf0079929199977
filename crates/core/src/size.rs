//! A number of bytes, for people: `6 MiB (6291456 bytes)`.

use std::fmt;

/// A number of bytes. Shown with its unit, as the manifest would have it, and exactly, for whoever compares it with the
/// length of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = *self;
        let Some((shift, unit)) = UNITS.into_iter().find(|(shift, _)| bytes >> shift > 0) else {
            return write!(f, "{bytes} byte{}", if bytes == 1 { "" } else { "s" });
        };
        let whole = bytes >> shift;
        if whole << shift == bytes {
            return write!(f, "{whole} {unit} ({bytes} bytes)");
        }
        // Rounded down: what is just above a limit is not shown as less than it.
        let tenth = (bytes - (whole << shift)) / ((1 << shift) / 10);
        write!(f, "{whole}.{} {unit} ({bytes} bytes)", tenth.min(9))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit_and_stay_exact() {
        let shown = |bytes: u64| Size(bytes).to_string();
        assert_eq!(shown(0), "0 bytes");
        assert_eq!(shown(1), "1 byte");
        assert_eq!(shown(1000), "1000 bytes");
        assert_eq!(shown(64 << 10), "64 KiB (65536 bytes)");
        assert_eq!(shown(1_500_000), "1.4 MiB (1500000 bytes)");
        assert_eq!(shown(6 << 20), "6 MiB (6291456 bytes)");
        assert_eq!(shown((2 << 20) - 1), "1.9 MiB (2097151 bytes)");
        assert_eq!(shown(1 << 40), "1 TiB (1099511627776 bytes)");
        assert!(shown(u64::MAX).starts_with("16777215.9 TiB"));
    }
}
