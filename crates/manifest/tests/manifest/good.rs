//! Good manifests, and the exact values that come out of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kvern_core::{Door, Function, Keep, Language, Memory, Mode, RetryPolicy, Route, Scale};
use kvern_manifest::{Defaults, Manifest, ServerSettings, check};

use crate::good;

const EVERY_KEY: &str = r#"
[functions.resize]
handler = "resize.py:main"
route = "PUT /resize"
mode = "sync"
timeout = "1h 30m"
retry = { attempts = 3, backoff = "500ms", max_backoff = "2m", jitter = false }
concurrency = 8
scale = { min = 1, max = 2, idle = "30s" }
memory = "256M"
env = { PORT = "8080", DEBUG = "1" }
max_input = "64k"
max_output = 1_000
max_queued = 10
keep = { succeeded = "2h", failed = "30d", bytes = "2G" }

[server]
listen = "0.0.0.0:80"
data = "var/data"
queue = "sqlite"
hosts = ["Kvern.lan", "10.0.0.7"]
"#;

const MINIMAL: &str = "[functions.a]\nhandler = \"a.py:f\"\n";

/// Manifests without a mistake; the schema is tried on them too.
pub(crate) const EXAMPLES: &[&str] = &[
    "",
    MINIMAL,
    EVERY_KEY,
    "[functions.a]\nexec = [\"./a\", \"-v\"]\nmax_input = 1\nenv = {}\nscale = {}\n[functions.b]\nhandler = \"b.mjs\"\n",
];

fn only(manifest: &Manifest) -> &Function {
    let [function] = manifest.functions.as_slice() else { panic!("one function: {manifest:?}") };
    function
}

fn handler(language: Language, file: &str, entry: Option<&str>) -> Door {
    Door::Handler { language, file: PathBuf::from(file), entry: entry.map(str::to_owned) }
}

#[test]
fn every_key_arrives() {
    let manifest = good(EVERY_KEY);
    let expected = Function {
        name: "resize".parse().expect("a name"),
        door: handler(Language::Python, "resize.py", Some("main")),
        home: PathBuf::from("app"),
        route: Some(Route { method: "PUT".to_owned(), path: "/resize".to_owned() }),
        mode: Mode::Sync,
        timeout: Duration::from_secs(5400),
        retry: RetryPolicy {
            attempts: 3,
            backoff: Duration::from_millis(500),
            max_backoff: Duration::from_secs(120),
            jitter: false,
        },
        concurrency: 8,
        scale: Scale { min: 1, max: 2, idle: Duration::from_secs(30) },
        memory: Some(Memory((256 << 20).try_into().expect("not zero"))),
        env: vec![("DEBUG".to_owned(), "1".to_owned()), ("PORT".to_owned(), "8080".to_owned())],
        max_input: 64 << 10,
        max_output: 1000,
        max_queued: 10,
        keep: Keep {
            succeeded: Duration::from_secs(7200),
            failed: Duration::from_secs(30 * 24 * 3600),
            bytes: 2 << 30,
        },
    };
    assert_eq!(manifest.function("resize"), Some(&expected));
    let server = ServerSettings {
        listen: Some("0.0.0.0:80".to_owned()),
        data: Some(PathBuf::from("app/var/data")),
        queue: Some("sqlite".to_owned()),
        hosts: vec!["kvern.lan".to_owned(), "10.0.0.7".to_owned()],
    };
    assert_eq!(manifest.server, server);
    assert_eq!((manifest.path.as_path(), manifest.home.as_path()), (Path::new("app/kvern.toml"), Path::new("app")));
}

#[test]
fn what_is_left_out_gets_the_defaults_of_the_design() {
    let manifest = good(MINIMAL);
    let day = Duration::from_secs(24 * 3600);
    let expected = Function {
        name: "a".parse().expect("a name"),
        door: handler(Language::Python, "a.py", Some("f")),
        home: PathBuf::from("app"),
        route: None,
        mode: Mode::Async,
        timeout: Duration::from_secs(60),
        retry: RetryPolicy::default(),
        concurrency: 4,
        scale: Scale { min: 0, max: 4, idle: Duration::from_secs(600) },
        memory: None,
        env: vec![],
        max_input: 16 << 20,
        max_output: 6 << 20,
        max_queued: 1_000_000,
        keep: Keep { succeeded: day, failed: 14 * day, bytes: 10 << 30 },
    };
    assert_eq!(only(&manifest), &expected);
    assert_eq!(manifest.server, ServerSettings::default());
}

#[test]
fn the_documented_default_is_the_default() {
    let mut compared = 0;
    for row in kvern_manifest::reference_markdown().lines().take_while(|line| !line.contains("[server]")) {
        let [_, key, _, default, ..] = row.split(" | ").flat_map(|cell| cell.split("| ")).collect::<Vec<_>>()[..]
        else {
            continue;
        };
        let value = default.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
        // A default in words (`none`, `one per core`) has tests of its own here.
        let Some(value) = value else { continue };
        let written = format!("{MINIMAL}{} = {value}\n", key.trim_matches('`'));
        assert_eq!(good(&written), good(MINIMAL), "{written}");
        compared += 1;
    }
    assert_eq!(compared, 15, "the page has another form now");
}

#[test]
fn a_file_ending_decides_the_language() {
    for (written, door) in [
        ("a.py", handler(Language::Python, "a.py", None)),
        ("src/a.py:größe", handler(Language::Python, "src/a.py", Some("größe"))),
        ("/abs/a.b.mjs", handler(Language::Node, "/abs/a.b.mjs", None)),
        ("a.js:run", handler(Language::Node, "a.js", Some("run"))),
        ("a.cjs:$", handler(Language::Node, "a.cjs", Some("$"))),
    ] {
        assert_eq!(only(&good(&format!("[functions.a]\nhandler = \"{written}\"\n"))).door, door);
    }
    let exec = good("[functions.a]\nexec = [\"sh\", \"run me.sh\", \"\"]\n");
    let argv = ["sh", "run me.sh", ""].map(str::to_owned).to_vec();
    assert_eq!(only(&exec).door, Door::Exec { argv });
}

#[test]
fn concurrency_and_scale_fill_each_other_in() {
    for (lines, concurrency, min, max) in [
        ("concurrency = 7", 7, 0, 7),
        ("scale.max = 9", 9, 0, 9),
        ("scale.max = 1", 1, 0, 1),
        ("scale.min = 6", 6, 6, 6),
        ("scale = { min = 2, max = 3 }", 3, 2, 3),
        ("concurrency = 7\nscale.max = 3", 7, 0, 3),
    ] {
        let manifest = good(&format!("{MINIMAL}{lines}\n"));
        let function = only(&manifest);
        let Scale { min: least, max: most, .. } = function.scale;
        assert_eq!((function.concurrency, least, most), (concurrency, min, max), "{lines}");
    }
}

#[test]
fn a_manifest_is_right_or_wrong_on_every_machine() {
    let text = format!("{MINIMAL}scale = {{ min = 2, max = 8 }}\n");
    for concurrency in [0, 1, 2, 64, 5000, u32::MAX] {
        let manifest = check(&text, Path::new("kvern.toml"), &Defaults { concurrency }).expect("good everywhere");
        assert_eq!(only(&manifest).concurrency, 8);
        let minimal = check(MINIMAL, Path::new("kvern.toml"), &Defaults { concurrency }).expect("good everywhere");
        assert!((1..=kvern_manifest::CONCURRENCY_MAX).contains(&only(&minimal).concurrency));
    }
}

#[test]
fn a_long_first_wait_raises_the_longest_one() {
    let manifest = good(&format!("{MINIMAL}retry.backoff = \"1h\"\n"));
    assert_eq!(only(&manifest).retry.max_backoff, Duration::from_secs(3600));
}

#[test]
fn functions_keep_the_order_of_the_file() {
    let manifest = good("[functions.b]\nexec = [\"b\"]\n[functions.a]\nexec = [\"a\"]\nroute = \"GET /\"\n");
    let names: Vec<&str> = manifest.functions.iter().map(|function| function.name.as_str()).collect();
    assert_eq!(names, ["b", "a"]);
    assert!(good("").functions.is_empty());
}

#[test]
fn a_manifest_without_a_folder_is_at_home_here() {
    let manifest = check(MINIMAL, Path::new("kvern.toml"), &Defaults { concurrency: 1 }).expect("good");
    assert_eq!(manifest.home, Path::new("."));
}

#[test]
fn defaults_of_this_machine_are_in_bounds() {
    assert!((1..=kvern_manifest::CONCURRENCY_MAX).contains(&Defaults::of_this_machine().concurrency));
}
