//! What the tests of the process runtime share: a runtime on a temporary data directory, and folders with functions.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kvern_core::{Door, Function, Language};
use kvern_runtime::{ProcessRuntime, conformance, prepare, process};
use tempfile::TempDir;

/// Marks the processes of a function: whatever a process starts inherits its environment.
const MARK: &str = "KVERN_TEST_MARK";
/// Time between TERM and KILL.
pub(crate) const GRACE: Duration = Duration::from_millis(600);

/// A process runtime on a data directory of its own.
pub(crate) struct Bench {
    pub(crate) runtime: Arc<ProcessRuntime>,
    pub(crate) data: TempDir,
    homes: TempDir,
    number: AtomicU32,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(|_| ())
    }

    pub(crate) fn with(change: impl FnOnce(&mut process::Settings)) -> Self {
        let data = tempfile::tempdir().expect("a temporary folder");
        let mut settings = process::Settings::new(prepare::Settings::new(data.path().to_path_buf()));
        settings.prepare.jail = env!("CARGO_BIN_EXE_kvern-test-jail").into();
        settings.grace = GRACE;
        change(&mut settings);
        let runtime = Arc::new(ProcessRuntime::new(settings).expect("the data directory can be written to"));
        let homes = tempfile::tempdir().expect("a temporary folder");
        Self { runtime, data, homes, number: AtomicU32::new(0) }
    }

    /// A function in a new folder that holds this file, executable if it begins with `#!`.
    pub(crate) fn function(&self, file: &str, text: &str, door: Door) -> Function {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let home = self.homes.path().join(number.to_string());
        fs::create_dir(&home).expect("a new folder");
        write(&home.join(file), text);
        let mut function = conformance::function(&format!("f{number}"), &home, door);
        let mark = format!("{}-{}", std::process::id(), home.display());
        function.env.push((MARK.to_owned(), mark));
        function
    }

    /// A Python handler.
    pub(crate) fn python(&self, text: &str, entry: Option<&str>) -> Function {
        self.function("hello.py", text, handler(Language::Python, "hello.py", entry))
    }

    /// A Node.js handler.
    pub(crate) fn node(&self, text: &str, entry: Option<&str>) -> Function {
        self.function("hello.mjs", text, handler(Language::Node, "hello.mjs", entry))
    }

    /// A shell script that is run per attempt.
    pub(crate) fn shell(&self, text: &str) -> Function {
        let door = Door::Exec { argv: vec!["./hello.sh".to_owned()] };
        self.function("hello.sh", &format!("#!/bin/sh\n{text}"), door)
    }

    /// A function, prepared.
    pub(crate) async fn stage(&self, function: &Function) -> conformance::Stage {
        let runtime = Arc::<ProcessRuntime>::clone(&self.runtime);
        match conformance::Stage::prepare(runtime, function).await {
            Ok(stage) => stage,
            Err(error) => panic!("{error}: {:?}", error.detail),
        }
    }
}

/// A handler's door.
pub(crate) fn handler(language: Language, file: &str, entry: Option<&str>) -> Door {
    Door::Handler { language, file: file.into(), entry: entry.map(str::to_owned) }
}

/// Writes a file, executable if it begins with `#!`.
pub(crate) fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("a file");
    let mode = if text.starts_with("#!") { 0o755 } else { 0o644 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("our own file");
}

/// How many processes there are whose environment has this function's mark.
pub(crate) fn left(function: &Function) -> usize {
    let Some((_, mark)) = function.env.iter().find(|(name, _)| name == MARK) else { return 0 };
    let wanted = format!("{MARK}={mark}\0");
    let entries = fs::read_dir("/proc").expect("there is a /proc").flatten();
    let environments = entries.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok());
    let has_mark = |bytes: Vec<u8>| bytes.windows(wanted.len()).any(|window| window == wanted.as_bytes());
    environments.filter_map(|entry| fs::read(entry.path().join("environ")).ok()).filter(|b| has_mark(b.clone())).count()
}

/// Waits until no process of this function is left.
pub(crate) async fn nothing_left(function: &Function) {
    conformance::until("nothing is left", || async { left(function) == 0 }).await;
}

/// Says loudly that a test cannot be run here; with `CI=true` that is a failure.
pub(crate) fn skip(test: &str, why: &str) {
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!ci, "{test} cannot be run: {why}");
    _ = std::io::Write::write_all(&mut std::io::stderr(), format!("SKIPPED {test}: {why}\n").as_bytes());
}
