//! The bound on the log of a job, which every adapter keeps. Pure.
//!
//! Each attempt may print as much as [`kvern_core::limits::LOG_HEAD_BYTES_MAX`] and more, and attempts have no bound once
//! somebody retries by hand; so the log of a job has one of its own.

use kvern_core::limits::LOG_BYTES_MAX;

/// The last line of a log that is full. It is not counted, so a log that is longer than the bound has it.
pub const LOG_IS_FULL: &[u8] = b"\n[kvern: the log of this job is full at 8 MiB; what came after that was dropped]\n";

/// What is added to a log that has `end` bytes when `bytes` come: those that fit, then the line that says so, once.
#[must_use]
pub fn fitting(end: u64, bytes: &[u8]) -> (&[u8], &'static [u8]) {
    let Some(room) = LOG_BYTES_MAX.checked_sub(end) else { return (&[], &[]) };
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    match bytes.split_at_checked(room) {
        None | Some((_, [])) => (bytes, &[]),
        Some((fitting, _)) => (fitting, LOG_IS_FULL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_kept_and_the_rest_is_said_once() {
        let full = LOG_BYTES_MAX;
        assert_eq!(fitting(0, b"abc"), (&b"abc"[..], &b""[..]));
        assert_eq!(fitting(full - 3, b"abc"), (&b"abc"[..], &b""[..]), "the last byte that fits");
        assert_eq!(fitting(full - 3, b"abcd"), (&b"abc"[..], LOG_IS_FULL));
        assert_eq!(fitting(full, b""), (&b""[..], &b""[..]), "nothing was dropped");
        assert_eq!(fitting(full, b"d"), (&b""[..], LOG_IS_FULL));
        assert_eq!(fitting(full + LOG_IS_FULL.len() as u64, b"e"), (&b""[..], &b""[..]), "it was said");
    }

    #[test]
    fn the_line_names_the_bound() {
        let line = String::from_utf8_lossy(LOG_IS_FULL);
        assert!(line.contains(&format!("{} MiB", LOG_BYTES_MAX >> 20)), "{line}");
    }
}
