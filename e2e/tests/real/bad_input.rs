//! Bad input gets a clear answer, and nothing is lost: each row of `docs/bad-input.md` is a test here, which carries the
//! case out against a real server and compares what it was told with the row.
//!
//! `table` reads the page; `stage` has the shared servers and turns answers into lines of the table.

mod cli;
mod dev;
mod functions;
mod http;
mod jobs;
mod manifest;
mod runaway;
mod stage;
mod table;
mod upkeep;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// These two hold no cases.
const TOOLS: [&str; 2] = ["stage", "table"];

/// The tests of a file of cases: name and text of each.
fn tests_of(text: &str) -> Vec<(String, String)> {
    let bodies = text.split("#[test]\nfn ").skip(1);
    let tests =
        bodies.filter_map(|body| Some((body.split_once('(')?.0.to_owned(), body.split_once("\n}\n")?.0.to_owned())));
    tests.collect()
}

/// All tests of the cases, as the table names them.
fn tests() -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/bad_input");
    let mut tests = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("the folder of the cases").flatten() {
        let theme = entry.path().file_stem().expect("a name").to_string_lossy().into_owned();
        if !TOOLS.contains(&theme.as_str()) {
            let text = fs::read_to_string(entry.path()).expect("a source is text");
            tests.extend(tests_of(&text).into_iter().map(|(name, body)| (format!("{theme}::{name}"), body)));
        }
    }
    tests
}

#[test]
fn every_row_has_its_test_and_every_test_its_row() {
    let mut tests = tests();
    for row in table::rows() {
        let body =
            tests.remove(&row.test).unwrap_or_else(|| panic!("{:?}: no test `{}`, or twice", row.case, row.test));
        assert!(body.contains(&format!("told({:?})", row.case)), "`{}` does not compare with {:?}", row.test, row.case);
    }
    assert!(tests.is_empty(), "these tests have no row in docs/bad-input.md: {:?}", tests.keys());
}

#[test]
fn every_placeholder_is_explained() {
    let page = table::page();
    let before = page.split("| case |").next().unwrap_or_default();
    for placeholder in table::placeholders() {
        assert!(before.contains(&format!("| `{placeholder}` |")), "{placeholder} is not explained above the table");
    }
}
