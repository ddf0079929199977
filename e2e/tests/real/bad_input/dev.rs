//! `kvern dev` while somebody types: what was saved broken does not stop what ran before.

use kvern_e2e::until;

use super::stage::{GOOD, has, nothing_is_lost};
use super::table::told;
use crate::running_dev::Dev;

const WHOLE: &str = "def greet(name: str):\n    return name\n";
const BROKEN: &str = "def greet(name: str):\n    return (name\n";
const BETTER: &str = "def greet(name: str):\n    return name.upper()\n";

fn greet(dev: &Dev) -> String {
    dev.http.post("/v1/functions/greet", r#"{"name": "Ada"}"#).text()
}

fn manifest() -> String {
    format!("{GOOD}[functions.greet]\nhandler = \"greet.py:greet\"\n")
}

#[test]
fn syntax_error_while_it_serves() {
    if !has("python3") {
        return;
    }
    let dev = Dev::start(&[("kvern.toml", &manifest()), ("greet.py", WHOLE)], &[]);
    assert_eq!(greet(&dev), "Ada");
    nothing_is_lost(&dev.http, || {
        dev.save("greet.py", BROKEN);
        dev.sees("the version before goes on");
        assert_eq!(greet(&dev), "Ada", "the version before goes on");
    });
    told("a syntax error in `kvern dev`").is_among(&dev.seen());
    dev.save("greet.py", BETTER);
    until("the repaired version", || (greet(&dev) == "ADA").then_some(()));
}

#[test]
fn syntax_error_before_the_first_call() {
    if !has("python3") {
        return;
    }
    let dev = Dev::start(&[("kvern.toml", &manifest()), ("greet.py", WHOLE)], &[]);
    nothing_is_lost(&dev.http, || {
        dev.save("greet.py", BROKEN);
        dev.sees("the version before goes on");
        assert_eq!(greet(&dev), "Ada", "the version before goes on, though no instance of it had been started");
    });
    told("a syntax error in `kvern dev`, before the first call").is_among(&dev.seen());
}

#[test]
fn syntax_error_in_a_lone_file() {
    if !has("python3") {
        return;
    }
    let good = "def good(event):\n    return event\n\n";
    let with_good = |greet: &str| format!("{good}{greet}");
    let dev = Dev::start(&[("greet.py", &with_good(WHOLE))], &["greet.py"]);
    assert_eq!(greet(&dev), "Ada");
    dev.save("greet.py", &with_good(BROKEN));
    dev.sees("not reloaded");
    assert_eq!(greet(&dev), "Ada", "the version before goes on");
    told("a syntax error in the file of `kvern dev FILE`").is_among(&dev.seen());
    dev.save("greet.py", &with_good(BETTER));
    until("the repaired version", || (greet(&dev) == "ADA").then_some(()));
}

#[test]
fn mistake_in_the_manifest() {
    let dev = Dev::start(&[("kvern.toml", GOOD)], &[]);
    nothing_is_lost(&dev.http, || {
        dev.save("kvern.toml", &format!("{GOOD}timout = \"5s\"\n"));
        dev.sees("not reloaded");
    });
    told("a mistake in the manifest of `kvern dev`").is_among(&dev.seen());
}
