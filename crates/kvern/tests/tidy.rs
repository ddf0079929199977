//! Tidiness as a test: the rules that a reader should be able to rely on, each exception with its reason.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const OUTSIDE_DEPENDENCIES_MAX: usize = 45;
const ARCHITECTURE_LINES_MAX: usize = 300;

/// Files over [`FILE_LINES_MAX`], with the reason. This list may only shrink.
const LONG_FILES: &[(&str, &str)] = &[];

/// Functions over [`FUNCTION_LINES_MAX`], as `file:function`, with the reason. This list may only shrink.
const LONG_FUNCTIONS: &[(&str, &str)] = &[];

/// What each crate of ours may import. Adapters know their contract and `core`; `gateway` and `worker` never meet.
const EDGES: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("manifest", &["core"]),
    ("queue", &["core"]),
    ("queue-sqlite", &["core", "queue"]),
    ("runtime", &["core"]),
    ("worker", &["core", "queue", "runtime"]),
    ("gateway", &["core", "queue", "runtime"]),
    ("console", &["core", "queue"]),
    ("kvern", &["core", "manifest", "queue", "queue-sqlite", "runtime", "worker", "gateway", "console"]),
];

/// Where tests wait without taking time, because tokio's clock is paused there and jumps to the next timer.
const PAUSED_CLOCKS: &[&str] = &["crates/worker/tests/worker/", "crates/runtime/src/fake/mod.rs"];

/// Tests in [`PAUSED_CLOCKS`] whose clock runs, as `file:function`, with the reason. They wait only for conditions.
const RUNNING_CLOCKS: &[(&str, &str)] = &[
    (
        "crates/worker/tests/worker/calls.rs:a_large_streamed_input_goes_through_a_file_that_is_removed",
        "a paused clock would jump while the file is written",
    ),
    (
        "crates/worker/tests/worker/threads.rs:work_that_meets_an_instance_on_its_way_out_is_not_lost",
        "tokio pauses the clock of one thread only",
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace is there")
}

/// Every Rust file of ours, as path from the root and text.
fn rust_files() -> Vec<(String, String)> {
    let root = root();
    let mut files = Vec::new();
    for folder in ["crates", "e2e"] {
        collect(&root.join(folder), &mut files);
    }
    assert!(files.len() > 50, "the walk finds the sources");
    let named = files.into_iter().map(|path| {
        let text = fs::read_to_string(&path).expect("a source is text");
        (path.strip_prefix(&root).expect("below the root").display().to_string(), text)
    });
    named.collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
}

/// The functions of a file that rustfmt has formatted: name and number of lines. A function ends at the first line that
/// closes it at its own indentation.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = line.len() - line.trim_start().len();
        let close = format!("{}}}", " ".repeat(indent));
        let length =
            lines[at..].iter().position(|l| *l == close || (l.ends_with(';') && l.contains("fn "))).unwrap_or(0);
        found.push((name, length + 1));
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let position = words.position(|word| word == "fn")?;
    let modifiers = ["pub", "pub(crate)", "pub(super)", "async", "const", "unsafe", "extern"];
    if !line.split_whitespace().take(position).all(|word| modifiers.contains(&word)) {
        return None;
    }
    let rest = line.split_whitespace().nth(position + 1)?;
    Some(rest.split(['(', '<']).next().unwrap_or(rest).to_owned())
}

#[test]
fn every_file_says_what_it_is() {
    let silent: Vec<String> = rust_files().into_iter().filter(|(_, t)| !t.starts_with("//!")).map(|(p, _)| p).collect();
    assert!(silent.is_empty(), "these files do not begin with `//!`: {silent:#?}");
}

#[test]
fn files_are_short() {
    let long: Vec<String> = rust_files()
        .into_iter()
        .filter(|(path, text)| text.lines().count() > FILE_LINES_MAX && !LONG_FILES.iter().any(|(p, _)| p == path))
        .map(|(path, text)| format!("{path}: {} lines", text.lines().count()))
        .collect();
    assert!(long.is_empty(), "over {FILE_LINES_MAX} lines: {long:#?}");
}

#[test]
fn functions_are_short() {
    let mut long = Vec::new();
    for (path, text) in rust_files() {
        for (name, lines) in functions(&text) {
            let place = format!("{path}:{name}");
            if lines > FUNCTION_LINES_MAX && !LONG_FUNCTIONS.iter().any(|(p, _)| *p == place) {
                long.push(format!("{place}: {lines} lines"));
            }
        }
    }
    assert!(long.is_empty(), "over {FUNCTION_LINES_MAX} lines: {long:#?}");
}

#[test]
fn exceptions_are_still_needed() {
    let files = rust_files();
    for (path, _) in LONG_FILES {
        let lines = files.iter().find(|(p, _)| p == path).map(|(_, t)| t.lines().count());
        assert!(lines.is_some_and(|n| n > FILE_LINES_MAX), "{path} is short now: take it off the list");
    }
    for (place, _) in LONG_FUNCTIONS {
        let (path, name) = place.split_once(':').expect("file:function");
        let text = files.iter().find(|(p, _)| p == path).map(|(_, t)| t.as_str()).unwrap_or_default();
        let is_long = functions(text).iter().any(|(n, lines)| n == name && *lines > FUNCTION_LINES_MAX);
        assert!(is_long, "{place} is short now: take it off the list");
    }
}

#[test]
fn tests_wait_for_events_and_never_for_time() {
    let mut sleepers = Vec::new();
    for (path, text) in rust_files() {
        let is_test_file = path.contains("/tests/") || path.starts_with("e2e/") || path.ends_with("tests.rs");
        let tests_from =
            if is_test_file { Some(0) } else { text.lines().position(|line| line.trim() == "#[cfg(test)]") };
        let Some(from) = tests_from else { continue };
        let is_paused = PAUSED_CLOCKS.iter().any(|folder| path.starts_with(folder));
        for (number, line) in text.lines().enumerate().skip(from) {
            let ours = sleeps(line, imports_sleep(&text) && !is_paused);
            if ours && !path.ends_with("tidy.rs") && !line.contains("tidy: polls") {
                sleepers.push(format!("{path}:{}", number + 1));
            }
        }
    }
    assert!(sleepers.is_empty(), "wait for an event, or poll a condition with a deadline: {sleepers:#?}");
}

/// Whether a line waits for time. What a function under test does is data here; only our own waiting counts.
fn sleeps(line: &str, is_imported: bool) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let by_its_name = code.match_indices("sleep(").any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | ':' | '"' | '\''))
    });
    code.contains("thread::sleep(") || code.contains("time::sleep(") || (is_imported && by_its_name)
}

fn imports_sleep(text: &str) -> bool {
    let statements = text.split(';').filter_map(|statement| statement.rsplit_once("use ").map(|(_, path)| path));
    statements.into_iter().any(|path| path.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == "sleep"))
}

#[test]
fn paused_clocks_are_paused() {
    let mut running = Vec::new();
    for folder in PAUSED_CLOCKS {
        let files: Vec<_> = rust_files().into_iter().filter(|(path, _)| path.starts_with(folder)).collect();
        assert!(files.iter().any(|(_, text)| imports_sleep(text)), "nobody sleeps in {folder}: take it off the list");
        for (path, text) in &files {
            let tests = text.split("#[tokio::test").skip(1).filter(|test| !test.starts_with("(start_paused = true)"));
            let names = tests.filter_map(|test| test.lines().find_map(function_name));
            running.extend(names.map(|name| format!("{path}:{name}")));
        }
    }
    running.sort();
    assert_eq!(running, RUNNING_CLOCKS.iter().map(|(place, _)| *place).collect::<Vec<_>>());
}

#[test]
fn sleeps_are_found() {
    assert!(imports_sleep("//! A test.\nuse std::time::Duration;\nuse tokio::time::{\n    Instant, sleep,\n};\n"));
    assert!(!imports_sleep("use tokio::time::sleep_until;\nfn f() { asleep(); }\n"));
    assert!(sleeps("    sleep(TICK).await;", true) && sleeps("    () = sleep(TICK) => {}", true));
    assert!(sleeps("    std::thread::sleep(TICK);", false));
    assert!(!sleeps("    sleep(TICK).await;", false) && !sleeps("    // sleep(TICK)", true));
    assert!(!sleeps("let text = \"time.sleep(1000)\";", true));
}

/// A test that is skipped on a laptop fails in CI; what CI runs says so itself.
#[test]
fn ci_skips_nothing() {
    let run = fs::read_to_string(root().join(".ci/run")).expect(".ci/run");
    let (before, _) = run.split_once("make test").expect("it runs the tests");
    assert!(before.lines().any(|line| line == "export CI=true"), "{run}");
}

#[test]
fn crates_know_only_what_they_may() {
    let mut seen = BTreeSet::new();
    for entry in fs::read_dir(root().join("crates")).expect("crates").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let text = fs::read_to_string(entry.path().join("Cargo.toml")).expect("a crate has a Cargo.toml");
        let allowed = EDGES.iter().find(|(crate_name, _)| *crate_name == name);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("crate `{name}` has no line in the table of edges"));
        for ours in dependencies(&text).iter().filter_map(|d| d.strip_prefix("kvern-")) {
            assert!(allowed.contains(&ours), "`{name}` may not import `{ours}`");
        }
        seen.insert(name);
    }
    assert_eq!(seen.len(), EDGES.len(), "the table of edges names crates that are gone");
}

#[test]
fn every_outside_dependency_has_its_reason() {
    let decisions: String = fs::read_dir(root().join("docs/decisions"))
        .expect("docs/decisions")
        .flatten()
        .map(|entry| fs::read_to_string(entry.path()).expect("a decision is text"))
        .collect();
    let mut outside = BTreeSet::new();
    for entry in fs::read_dir(root().join("crates")).expect("crates").flatten() {
        let text = fs::read_to_string(entry.path().join("Cargo.toml")).expect("a crate has a Cargo.toml");
        outside.extend(dependencies(&text).into_iter().filter(|d| !d.starts_with("kvern-")));
    }
    let unexplained: Vec<&String> = outside.iter().filter(|d| !decisions.contains(&format!("`{d}`"))).collect();
    assert!(unexplained.is_empty(), "no reason in docs/decisions: {unexplained:?}");
    assert!(outside.len() <= OUTSIDE_DEPENDENCIES_MAX, "{} direct outside dependencies", outside.len());
}

/// The names under `[dependencies]`, not those for tests.
fn dependencies(cargo_toml: &str) -> Vec<String> {
    let body = cargo_toml.lines().skip_while(|line| line.trim() != "[dependencies]").skip(1);
    let lines = body.take_while(|line| !line.starts_with('['));
    lines
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .filter(|n| !n.is_empty() && !n.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_architecture_stays_readable() {
    let lines = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md").lines().count();
    assert!(lines < ARCHITECTURE_LINES_MAX, "ARCHITECTURE.md has {lines} lines");
}

#[test]
fn every_test_that_the_architecture_names_exists() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let sources: String = rust_files().into_iter().map(|(_, text)| text).collect();
    let named: Vec<&str> = text.split("test `").skip(1).filter_map(|rest| rest.split('`').next()).collect();
    assert!(named.len() >= 5, "ARCHITECTURE.md names the tests that hold its invariants");
    for name in named {
        assert!(sources.contains(&format!("fn {name}(")), "ARCHITECTURE.md names test `{name}`, which does not exist");
    }
}

#[test]
fn the_measure_measures() {
    let text = "fn a() {\n    b();\n}\n\nimpl X {\n    pub(crate) async fn c<T>(\n        x: T,\n    ) {\n        d();\n    }\n}\n";
    assert_eq!(functions(text), [("a".to_owned(), 3), ("c".to_owned(), 5)]);
    assert_eq!(
        dependencies("[dependencies]\na.workspace = true\nb = \"1\"\n\n[dev-dependencies]\nc = \"1\"\n"),
        ["a", "b"]
    );
}
