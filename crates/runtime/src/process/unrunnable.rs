//! Why the kernel would not run a program that is there: it says the same few words of many reasons.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// As much as the kernel looks at (`BINPRM_BUF_SIZE`).
const HEAD_BYTES: usize = 256;
const ELF: &[u8] = b"\x7fELF";
/// What some editors put before a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What to do about it, if its first bytes tell; `shown` is what the user calls it.
pub(super) fn hint(program: &Path, shown: &str) -> Option<String> {
    if !program.is_file() {
        return None; // Opening a pipe would wait.
    }
    let mut head = Vec::with_capacity(HEAD_BYTES);
    File::open(program).ok()?.take(HEAD_BYTES as u64).read_to_end(&mut head).ok()?;
    if head.starts_with(ELF) {
        return None;
    }
    if head.is_empty() {
        return Some("the file is empty".to_owned());
    }
    let Some(line) = head.strip_prefix(b"#!") else {
        let before = if head.starts_with(BYTE_ORDER_MARK) { "a byte order mark stands before" } else { "it lacks" };
        return Some(format!("{before} the first line that says what runs it, such as `#!/bin/sh`"));
    };
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if line.ends_with(b"\r") {
        return Some(format!("its lines end as on Windows. Try: sed -i 's/\\r$//' {shown}"));
    }
    let interpreter = line.trim_ascii().split(u8::is_ascii_whitespace).next().unwrap_or_default();
    let interpreter = Path::new(OsStr::from_bytes(interpreter));
    (!interpreter.exists()).then(|| format!("its first line wants {}, which is not there", interpreter.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_words() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("x");
        for (text, words) in [
            (&b"#!/bin/sh\r\necho\r\n"[..], Some("as on Windows")),
            (b"#!/no/such/thing -x\n", Some("wants /no/such/thing, which")),
            (b"\xef\xbb\xbf#!/bin/sh\n", Some("byte order mark")),
            (b"echo hi\n", Some("it lacks the first line")),
            (b"", Some("is empty")),
            (b"#! /bin/sh\n", None),
            (b"\x7fELF...", None),
        ] {
            std::fs::write(&file, text).expect("a file");
            let said = hint(&file, "x");
            assert_eq!(said.is_some(), words.is_some(), "{said:?}");
            assert!(said.unwrap_or_default().contains(words.unwrap_or_default()), "{words:?}");
        }
        assert_eq!(hint(&folder.path().join("none"), "none"), None);
    }
}
