//! What a jail is told to do: its arguments, written by the server and read by the jail.
//!
//! ```text
//! __jail VERSION handler|exec USED RESERVED PROCESSES RECORDS SCRATCH PROGRAM [ARGUMENT ...]
//! ```
//!
//! USED and RESERVED are the memory limit in bytes, PROCESSES the most processes and threads; 0 for none.
//!
//! Invalid: another version (the binary was replaced under a running server), fewer arguments, numbers that are none.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// Changes with every change of the arguments or of the leash.
const VERSION: &str = "2";

/// What a jail is told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Task {
    /// Whether the descriptor that comes over the leash is the frame socket of a handler, or the stdin of an exec.
    pub(crate) is_handler: bool,
    /// How much memory the function may take.
    pub(crate) memory: Option<MemoryLimit>,
    /// How many processes and threads it may have, where a cgroup may be made.
    pub(crate) processes: Option<u32>,
    /// Where the jail leaves its record.
    pub(crate) records: PathBuf,
    /// The function's temporary folder: made, and removed at the end.
    pub(crate) scratch: PathBuf,
    /// Program and arguments; never empty.
    pub(crate) argv: Vec<OsString>,
}

/// The memory that a function may take, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemoryLimit {
    /// For a cgroup, which counts what is used; none if there shall be no cgroup.
    pub(crate) used: Option<u64>,
    /// For `RLIMIT_DATA`, which counts what is reserved.
    pub(crate) reserved: u64,
}

// === impl Task ===

impl Task {
    /// The arguments after `__jail`.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let memory = self.memory.unwrap_or(MemoryLimit { used: None, reserved: 0 });
        let kind = if self.is_handler { "handler" } else { "exec" };
        let mut arguments: Vec<OsString> = vec![VERSION.into(), kind.into()];
        arguments.push(memory.used.unwrap_or(0).to_string().into());
        arguments.push(memory.reserved.to_string().into());
        arguments.push(self.processes.unwrap_or(0).to_string().into());
        arguments.push(self.records.as_os_str().to_owned());
        arguments.push(self.scratch.as_os_str().to_owned());
        arguments.extend(self.argv.iter().cloned());
        arguments
    }

    /// The task that these arguments say.
    pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> io::Result<Self> {
        let arguments: Vec<OsString> = arguments.collect();
        let [version, kind, used, reserved, processes, records, scratch, argv @ ..] = arguments.as_slice() else {
            return Err(invalid("too few arguments: `__jail` is not for people"));
        };
        if version != VERSION {
            return Err(invalid("the kvern binary was replaced under a running server: restart the server"));
        }
        let number = |text: &OsString| text.to_str().and_then(|text| text.parse::<u64>().ok());
        let (Some(used), Some(reserved), Some(processes)) = (number(used), number(reserved), number(processes)) else {
            return Err(invalid("a limit is not a number"));
        };
        let processes = u32::try_from(processes).map_err(|_| invalid("there are not so many processes"))?;
        if argv.is_empty() {
            return Err(invalid("there is no program"));
        }
        Ok(Self {
            is_handler: kind == "handler",
            memory: (reserved > 0).then_some(MemoryLimit { used: (used > 0).then_some(used), reserved }),
            processes: (processes > 0).then_some(processes),
            records: Path::new(records).to_path_buf(),
            scratch: Path::new(scratch).to_path_buf(),
            argv: argv.to_vec(),
        })
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_reads_back() {
        let task = Task {
            is_handler: true,
            memory: Some(MemoryLimit { used: Some(5), reserved: 7 }),
            processes: Some(9),
            records: "/a b".into(),
            scratch: "/c".into(),
            argv: vec!["python3".into(), "--".into(), "".into()],
        };
        assert_eq!(Task::parse(task.arguments().into_iter()).expect("it is valid"), task);
        let none = Task { memory: None, processes: None, is_handler: false, ..task };
        assert_eq!(Task::parse(none.arguments().into_iter()).expect("it is valid"), none);
    }

    #[test]
    fn another_version_is_refused() {
        let arguments = ["0", "exec", "0", "0", "0", "/a", "/b", "true"].map(OsString::from);
        let error = Task::parse(arguments.into_iter()).expect_err("version 0 never was");
        assert!(error.to_string().contains("restart"), "{error}");
    }
}
