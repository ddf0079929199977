//! The rules of the Runtime contract, on every runtime that this crate has.
//!
//! The table goes to stderr past the test harness, so that it can be read in CI. A rule that was not shown on a subject
//! stands there with the reason; with `CI=true` every rule must have been shown on every subject but the declared ones.

mod subjects;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use kvern_runtime::conformance::{RULES, Verdict, exercise};

/// What need not be shown, by subject and rule, and why.
const DECLARED: [(&str, u32, &str); 2] =
    [("fake", 9, "a script is of no version"), ("fake", 11, "there is no environment")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rule_on_every_subject() {
    let mut table = BTreeMap::new();
    for subject in subjects::all() {
        table.insert(subject.name(), exercise(&subject).await);
    }
    _ = std::io::stderr().write_all(render(&table).as_bytes());
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    for (subject, verdicts) in &table {
        for ((number, name, _), verdict) in RULES.iter().zip(verdicts) {
            let declared = DECLARED.iter().any(|(s, n, _)| s == subject && n == number);
            match verdict {
                Verdict::Holds => assert!(!declared, "{subject}, {name}: declared as not shown, but it holds"),
                Verdict::Broken(why) => panic!("{subject}, {name}: {why}"),
                Verdict::NotShown(why) => assert!(declared || !ci, "{subject}, {name} was not shown: {why}"),
            }
        }
    }
}

fn render(table: &BTreeMap<&str, Vec<Verdict>>) -> String {
    let mut text = String::from("\nrules of the Runtime contract\n");
    _ = write!(text, "{:45}", "");
    for subject in table.keys() {
        _ = write!(text, " {subject:10}");
    }
    let mut notes = String::new();
    for (at, (number, name, _)) in RULES.iter().enumerate() {
        _ = write!(text, "\n{number:3} {name:41}");
        for (subject, verdicts) in table {
            let word = match &verdicts[at] {
                Verdict::Holds => "holds",
                Verdict::NotShown(why) => {
                    _ = writeln!(notes, "    {subject}, {number}: not shown: {why}");
                    "-"
                }
                Verdict::Broken(why) => {
                    _ = writeln!(notes, "    {subject}, {number}: BROKEN: {why}");
                    "BROKEN"
                }
            };
            _ = write!(text, " {word:10}");
        }
    }
    format!("{text}\n{notes}\n")
}
