//! How the end of a process is told to a person.

use kvern_core::{Failure, FailureCode, Function};

use super::logs::Tail;
use crate::jail::jailed::{End, Jailed};
use crate::jail::leash::{How, LimitKind};

/// The last words of programs whose allocation failed, in lower case: those of C, of GNU, of C++, of Rust, of Python, and
/// of Node.
const NO_MEMORY: [&str; 7] = [
    "cannot allocate memory",
    "memory exhausted",
    "out of memory",
    "bad_alloc",
    "memory allocation of",
    "memoryerror",
    "allocation failed",
];

/// The failure of an attempt or a start whose process ended. `when` says under what, such as ` at import`.
pub(super) fn death(end: Option<End>, function: &Function, jailed: &Jailed, tail: &Tail, when: &str) -> Failure {
    if let Some(failure) = out_of_memory(end, function, jailed.limit(), tail) {
        return failure;
    }
    let message = match end {
        Some(End::Reported(ending)) => match ending.how {
            How::Exited(code) => format!("the process exited with code {code}{when}"),
            How::Signalled(signal) => format!("the process was killed by {}{when}", signal_name(signal)),
        },
        Some(End::JailLost) => format!("the process was killed together with its supervisor{when}"),
        None => format!("the process could not be killed{when}"),
    };
    Failure::new(FailureCode::Crash, with_last_line(message, tail))
}

/// The failure of a process that died at its memory limit, if it did.
pub(super) fn out_of_memory(end: Option<End>, function: &Function, limit: LimitKind, tail: &Tail) -> Option<Failure> {
    let memory = function.memory?;
    let Some(End::Reported(ending)) = end else { return None };
    let heap_is_full = match ending.how {
        How::Exited(0) => return None,
        // Node aborts by itself at `--max-old-space-size`, and says so.
        How::Exited(134) | How::Signalled(6) => tail.text().contains("heap out of memory"),
        How::Exited(_) | How::Signalled(_) => false,
    };
    // Under RLIMIT_DATA nobody kills: an allocation fails, and only the program knows why it ends.
    let says_so = limit == LimitKind::Rlimit && tail.last_line().is_some_and(|line| is_about_memory(&line));
    (ending.oom || heap_is_full || says_so).then(|| memory_exceeded(memory.0.get()))
}

/// Whether somebody complains that an allocation failed.
pub(super) fn is_about_memory(words: &str) -> bool {
    let words = words.to_lowercase();
    NO_MEMORY.iter().any(|known| words.contains(known))
}

/// The failure at a memory limit.
pub(super) fn memory_exceeded(bytes: u64) -> Failure {
    let limit = if bytes.is_multiple_of(1 << 20) { format!("{} MiB", bytes >> 20) } else { format!("{bytes} bytes") };
    let message = format!("out of memory: the process reached its limit of {limit}; raise `memory` if it needs more");
    Failure::new(FailureCode::OutOfMemory, message)
}

/// The message with the last thing that the process said.
pub(super) fn with_last_line(message: String, tail: &Tail) -> String {
    match tail.last_line() {
        Some(line) => format!("{message}: {line}"),
        None => message,
    }
}

fn signal_name(number: i32) -> String {
    let name = match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return format!("signal {number}"),
    };
    format!("signal {number} ({name})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_named_as_the_manifest_writes_them() {
        assert!(memory_exceeded(64 << 20).message.contains("64 MiB"));
        assert!(memory_exceeded(1000).message.contains("1000 bytes"));
    }

    #[test]
    fn complaints_about_memory_are_known() {
        for words in [
            "MemoryError",
            "tail: memory exhausted",
            "sort: cannot allocate memory",
            "terminate called after throwing an instance of 'std::bad_alloc'",
            "memory allocation of 1073741824 bytes failed",
            "Array buffer allocation failed",
        ] {
            assert!(is_about_memory(words), "{words}");
        }
        assert!(!is_about_memory("a memory of summer"));
    }

    #[test]
    fn signals_have_names() {
        assert_eq!(signal_name(11), "signal 11 (SIGSEGV)");
        assert_eq!(signal_name(64), "signal 64");
    }
}
