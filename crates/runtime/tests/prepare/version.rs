//! The version changes exactly when what runs in an instance changes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use kvern_core::{Door, Memory, Mode};

use crate::World;

/// What is done to a function, and whether that makes another version.
type Case = (&'static str, bool, fn(&mut World));

const CASES: &[Case] = &[
    ("nothing", false, |_| {}),
    ("the handler", true, |w| drop(w.write("hello.py", "def main(): return 1"))),
    ("a module beside it", true, |w| drop(w.write("lib/words.py", "x = 1"))),
    ("a new file", true, |w| drop(w.write("new.txt", ""))),
    ("the name of a file", true, |w| {
        fs::rename(w.home().join("lib/words.py"), w.home().join("lib/other.py")).expect("a file");
    }),
    ("an executable bit", true, |w| {
        fs::set_permissions(w.home().join("lib/words.py"), fs::Permissions::from_mode(0o755)).expect("a file");
    }),
    ("a file that was saved unchanged", false, |w| drop(w.write("lib/words.py", "x = 0"))),
    ("a comment in requirements.txt", true, |w| drop(w.write("requirements.txt", "# none, really\n"))),
    ("outputs", false, |w| drop(w.write("data/out.json", "{}"))),
    ("caches", false, |w| drop(w.write("__pycache__/hello.cpython-311.pyc", "x"))),
    ("a hidden folder", false, |w| drop(w.write(".git/HEAD", "x"))),
    ("a swap file", false, |w| drop(w.write(".hello.py.swp", "x"))),
    ("a model of 5 MiB", false, |w| w.write_hollow("model.bin", 5 << 20)),
    ("the entry", true, |w| match &mut w.function.door {
        Door::Handler { entry, .. } => *entry = Some("other".to_owned()),
        Door::Exec { .. } => unreachable!("it is a handler"),
    }),
    ("a variable", true, |w| w.function.env.push(("C".to_owned(), "3".to_owned()))),
    ("the order of variables", false, |w| w.function.env.reverse()),
    ("a border between name and value", true, |w| w.function.env[0] = ("AB".to_owned(), String::new())),
    ("memory", true, |w| w.function.memory = Some(Memory((1 << 20).try_into().expect("not zero")))),
    ("the time-out", false, |w| w.function.timeout = Duration::from_secs(1)),
    ("the mode", false, |w| w.function.mode = Mode::Sync),
    ("the scale", false, |w| w.function.scale.max = 7),
    ("the concurrency", false, |w| w.function.concurrency = 7),
    ("the limits", false, |w| w.function.max_output = 7),
    ("the retries", false, |w| w.function.retry.attempts = 7),
    ("the place of the home", false, |w| {
        let home = w.folder.path().join("moved");
        fs::rename(w.home(), &home).expect("a home");
        w.function.home = home;
    }),
];

fn world() -> World {
    let mut world = World::python();
    world.write("lib/words.py", "x = 0");
    world.write("requirements.txt", "# none\n");
    world.function.env = vec![("A".to_owned(), "B".to_owned()), ("B".to_owned(), "2".to_owned())];
    world
}

#[tokio::test]
async fn a_version_changes_when_what_runs_changes_and_never_else() {
    let before = world().version().await;
    assert_eq!(before.len(), 12);
    assert!(before.chars().all(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase()), "{before}");
    for (what, is_other, change) in CASES {
        let mut world = world();
        change(&mut world);
        let after = world.version().await;
        assert_eq!(before != after, *is_other, "after a change of: {what}");
    }
}

#[tokio::test]
async fn a_change_that_is_taken_back_is_the_old_version_again() {
    let world = World::python();
    let first = world.version().await;
    world.write("hello.py", "x = 1");
    let second = world.prepared().await;
    world.write("hello.py", "def main(name='you'):\n    return f'hello {name}'\n");
    assert_eq!(world.version().await, first);
    assert!(second.code.join("hello.py").is_file(), "the copy between is kept");
}

#[tokio::test]
async fn new_limits_reach_whoever_prepares_again() {
    let mut world = World::python();
    let before = world.prepared().await;
    world.function.timeout = Duration::from_secs(7);
    let after = world.prepared().await;
    assert_eq!(before.version, after.version);
    assert_eq!(after.function.timeout, Duration::from_secs(7));
}
