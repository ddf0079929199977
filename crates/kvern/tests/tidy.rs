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
    ("queue-socket", &["core", "queue"]),
    ("runtime", &["core"]),
    ("worker", &["core", "queue", "runtime"]),
    ("gateway", &["core", "queue", "runtime"]),
    ("console", &["core", "queue"]),
    (
        "kvern",
        &["core", "manifest", "queue", "queue-sqlite", "queue-socket", "runtime", "worker", "gateway", "console"],
    ),
];

/// What `core` may have from outside: words about data, and nothing that waits, draws or touches the machine.
const CORE_OUTSIDE: &[&str] = &["serde"];

/// What `core` may have of the standard library, by module. `time` is here for `Duration`; its clocks are not.
const CORE_STD: &[&str] = &["borrow", "cmp", "error", "fmt", "num", "path", "str", "sync", "time"];
const CLOCKS: &[&str] = &["Instant", "SystemTime", "UNIX_EPOCH"];

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
    for (path, text) in rust_files().into_iter().filter(|(path, _)| !path.ends_with("tidy.rs")) {
        let is_other = |line: &&str| line.contains("(\"CI\")") && !line.contains("\"true\"");
        assert_eq!(text.lines().find(is_other), None, "{path}: CI is CI=true and nothing else");
    }
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
    let mut outside = BTreeSet::new();
    for entry in fs::read_dir(root().join("crates")).expect("crates").flatten() {
        let text = fs::read_to_string(entry.path().join("Cargo.toml")).expect("a crate has a Cargo.toml");
        outside.extend(dependencies(&text).into_iter().filter(|d| !d.starts_with("kvern-")));
    }
    let decisions = root().join("docs/decisions");
    let unexplained: Vec<&String> =
        outside.iter().filter(|name| !decisions.join(format!("dep-{name}.md")).is_file()).collect();
    assert!(unexplained.is_empty(), "no docs/decisions/dep-NAME.md: {unexplained:?}");
    assert!(outside.len() <= OUTSIDE_DEPENDENCIES_MAX, "{} direct outside dependencies", outside.len());
}

/// A mistake on purpose is in one file, and no crate of the product asks for them: their feature is passed on, and the binary
/// that has it goes by another name.
#[test]
fn mistakes_on_purpose_are_few_and_asked_for() {
    let files = rust_files();
    let (_, list) = files.iter().find(|(path, _)| path == "crates/queue/src/known_bad.rs").expect("the list");
    let arms = list.lines().filter_map(|line| line.trim().strip_prefix("Self::")?.split_once(" => "));
    let names: Vec<&str> = arms.map(|(name, _)| name).collect();
    assert!(names.len() >= 5, "the list is read: {names:?}");
    for name in names {
        let asks = format!("KnownBad::{name}.is_made()");
        let places: Vec<&String> =
            files.iter().filter(|(_, text)| text.contains(&asks)).map(|(path, _)| path).collect();
        assert!(places.len() == 1, "{name} is made in {places:?}");
    }
    for entry in fs::read_dir(root().join("crates")).expect("crates").flatten() {
        let text = fs::read_to_string(entry.path().join("Cargo.toml")).expect("a crate has a Cargo.toml");
        let may = ["known-bad = [", "name = \"kvern-known-bad\"", "required-features = ["];
        let asks =
            text.lines().filter(|line| line.contains("known-bad") && !may.iter().any(|may| line.starts_with(may)));
        assert_eq!(asks.count(), 0, "{} asks for mistakes", entry.path().display());
    }
}

/// The names of all dependencies, also of a build script and of one platform, but not those for tests.
fn dependencies(cargo_toml: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_list = false;
    for line in cargo_toml.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            let section = section.rsplit_once("'.").map_or(section, |(_, rest)| rest);
            let (kind, name) = section.split_once('.').unwrap_or((section, ""));
            let is_ours = matches!(kind, "dependencies" | "build-dependencies");
            is_list = is_ours && name.is_empty();
            names.extend((is_ours && !name.is_empty()).then(|| name.to_owned()));
        } else if is_list && !line.is_empty() && !line.starts_with('#') {
            names.extend(line.split(['.', ' ', '=']).next().map(str::to_owned));
        }
    }
    names
}

#[test]
fn core_has_no_clock_no_chance_and_no_machine() {
    let cargo_toml = fs::read_to_string(root().join("crates/core/Cargo.toml")).expect("crates/core");
    for outside in dependencies(&cargo_toml) {
        assert!(CORE_OUTSIDE.contains(&outside.as_str()), "`core` may not use `{outside}`");
    }
    let files: Vec<_> = rust_files().into_iter().filter(|(path, _)| path.starts_with("crates/core/src/")).collect();
    assert!(files.len() > 5, "the walk finds core");
    for (path, text) in files {
        assert_eq!(impurities(&text), [""; 0], "{path}");
    }
}

/// What a file of `core` uses of the standard library and may not, outside comments.
fn impurities(text: &str) -> Vec<&str> {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let mut found = Vec::new();
    for line in code {
        for (at, _) in line.match_indices("std::") {
            let module = line[at + 5..].split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
            if !CORE_STD.contains(&module) {
                // A group of imports has no first word: it is taken apart, or it cannot be judged here.
                found.push(&line[at..at + 5 + module.len().max(1)]);
            }
        }
        let words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        found.extend(words.filter(|word| CLOCKS.contains(word)));
    }
    found
}

/// States are stored and compared everywhere; what a job's state becomes is for [`kvern_core::State::after`] to say.
#[test]
fn no_state_changes_but_as_the_transition_says() {
    let mut changes = 0;
    for (path, text) in
        rust_files().into_iter().filter(|(path, _)| path.starts_with("crates/") && path.contains("/src/"))
    {
        let product: Vec<&str> = text.lines().take_while(|line| line.trim() != "#[cfg(test)]").collect();
        for at in (0..product.len()).filter(|at| product[*at].trim_start().starts_with("job.state = ")) {
            let before = &product[at.saturating_sub(3)..=at];
            assert!(before.iter().any(|line| line.contains(".after(")), "{path}:{} goes around State::after", at + 1);
            changes += 1;
        }
    }
    assert!(changes > 0, "nobody changes a state: this looks for the wrong words");
}

#[test]
fn every_crate_forbids_unsafe_code() {
    let read = |path: &Path| fs::read_to_string(path.join("Cargo.toml")).expect("a Cargo.toml");
    assert!(read(&root()).contains("[workspace.lints.rust]\nunsafe_code = \"forbid\"\n"));
    let crates = fs::read_dir(root().join("crates")).expect("crates").flatten().map(|entry| entry.path());
    for path in crates.chain([root().join("e2e")]) {
        assert!(read(&path).contains("[lints]\nworkspace = true\n"), "{} has lints of its own", path.display());
    }
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
    let (_, absences) = text.split_once("## What does not happen").expect("the absences");
    let absences = absences.split("\n## ").next().unwrap_or_default().replace("\n  ", " ");
    let absences: Vec<&str> = absences.lines().filter(|line| line.starts_with("- ")).collect();
    assert!(absences.len() >= 10, "{absences:#?}");
    for name in absences.into_iter().flat_map(tests_of_absence) {
        assert!(sources.contains(&format!("fn {name}(")), "ARCHITECTURE.md names test `{name}`, which does not exist");
    }
}

#[test]
fn every_test_that_the_guarantees_name_exists() {
    let text = fs::read_to_string(root().join("docs/guarantees.md")).expect("docs/guarantees.md");
    let sources: String = rust_files().into_iter().map(|(_, text)| text).collect();
    let (promises, _) = text.split_once("\n## ").expect("the table of promises");
    let rows = promises.lines().filter(|line| line.starts_with("| ")).skip(2);
    let attacks: Vec<&str> = rows.filter_map(|row| row.trim_end_matches([' ', '|']).rsplit(" | ").next()).collect();
    let is_an_attack = |attack: &&str| attack.contains('`') || attack.starts_with("rules ");
    assert!(attacks.len() >= 15 && attacks.iter().all(is_an_attack), "{attacks:#?}");
    let quoted = attacks.into_iter().flat_map(|attack| attack.split('`').skip(1).step_by(2));
    for name in quoted.filter(|quoted| quoted.contains('_') && !quoted.contains(' ')) {
        assert!(is_a_test(&sources, name), "docs/guarantees.md names `{name}`, which is no test");
    }
}

/// Whether `cargo test` knows a function by its name: one of the lines above it has the mark.
fn is_a_test(sources: &str, name: &str) -> bool {
    let mut places = sources.match_indices(&format!("fn {name}(")).map(|(at, _)| &sources[..at]).collect::<Vec<_>>();
    places.retain(|before| before.lines().rev().take(4).any(|line| line.starts_with("#[") && line.contains("test")));
    !places.is_empty()
}

/// The tests that a line of ARCHITECTURE.md names: all that stands in backquotes after `test` or `tests`.
fn tests_of_absence(line: &str) -> Vec<&str> {
    let (_, named) = line.rsplit_once(": test").unwrap_or_else(|| panic!("no test holds: {line}"));
    let names: Vec<&str> = named.split('`').skip(1).step_by(2).collect();
    assert!(!names.is_empty(), "no test is named: {line}");
    names
}

#[test]
fn the_measure_measures() {
    let text = "fn a() {\n    b();\n}\n\nimpl X {\n    pub(crate) async fn c<T>(\n        x: T,\n    ) {\n        d();\n    }\n}\n";
    assert_eq!(functions(text), [("a".to_owned(), 3), ("c".to_owned(), 5)]);
    assert_eq!(
        dependencies("[dependencies]\na.workspace = true\nb = \"1\"\n\n[dev-dependencies]\nc = \"1\"\n"),
        ["a", "b"]
    );
    assert_eq!(
        dependencies(
            "[target.'cfg(unix)'.dependencies]\nd = \"1\"\n[build-dependencies]\ne = \"1\"\n[dependencies.f]\nversion = \"1\"\n"
        ),
        ["d", "e", "f"]
    );
    let impure = "use std::{fs, time::Duration};\nuse std::time::Instant; // std::fmt\nlet now = std::env::args();\n";
    assert_eq!(impurities(impure), ["std::{", "Instant", "std::env"]);
    assert_eq!(impurities("use std::time::Duration;\n/// std::fs\nuse std::fmt;\nlet instants = 1;\n"), [""; 0]);
    assert_eq!(tests_of_absence("- No x: tests `a`, `b`."), ["a", "b"]);
}
