//! Programs: what of them is copied, and that the copy is what runs.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use kvern_runtime::FunctionVersion;
use kvern_runtime::prepare::exec_argv;

use crate::{World, files_of, run};

/// Runs a version as the process runtime does: in the function's home.
fn say(version: &FunctionVersion) -> String {
    let argv = exec_argv(version);
    let arguments: Vec<_> = argv[1..].iter().map(OsString::as_os_str).collect();
    run(&argv[0], &arguments, &version.function.home)
}

#[tokio::test]
async fn a_program_runs_from_its_copy() {
    for argv in [&["./hello.sh"][..], &["sh", "hello.sh"], &["sh", "-u", "./hello.sh"]] {
        let world = World::exec(argv);
        world.write_program("hello.sh", "#!/bin/sh\necho one\n");
        let one = world.prepared().await;
        world.write_program("hello.sh", "#!/bin/sh\necho two\n");
        let two = world.prepared().await;
        assert_ne!(one.version, two.version);
        assert_eq!((say(&one), say(&two)), ("one".to_owned(), "two".to_owned()), "{argv:?}");
    }
}

#[tokio::test]
async fn a_script_finds_what_lies_beside_it_and_works_in_its_home() {
    let world = World::exec(&["tools/hello.sh"]);
    world.write_program("tools/hello.sh", "#!/bin/sh\n. \"$(dirname \"$0\")/words.sh\"\necho \"$word $PWD\"\n");
    world.write("tools/words.sh", "word=hello");
    world.write("other.txt", "not beside it");
    world.write("tools/node_modules/a/index.js", "");
    let version = world.prepared().await;
    assert_eq!(say(&version), format!("hello {}", world.home().display()));
    assert_eq!(files_of(&version.code), ["tools/hello.sh", "tools/node_modules", "tools/words.sh"]);
}

#[tokio::test]
async fn a_compiled_program_is_copied_alone() {
    let world = World::exec(&["target/release/same", "out.txt"]);
    world.write("target/release/other.txt", "x");
    world.write("out.txt", "what it writes");
    let program = world.home().join("target/release/same");
    fs::copy("/bin/echo", &program).expect("a compiled program");
    let version = world.prepared().await;
    assert_eq!(files_of(&version.code), ["target/release/same"]);
    assert_eq!(exec_argv(&version), [version.code.join("target/release/same").into_os_string(), "out.txt".into()]);
    assert_eq!(say(&version), "out.txt", "an argument that is no code stays as it is");
    world.write("out.txt", "something else");
    assert_eq!(world.version().await, version.version.to_string());
}

#[tokio::test]
async fn programs_from_elsewhere_run_where_they_are_and_count() {
    let world = World::exec(&["venv/bin/tool", "x"]);
    let outside = world.folder.path().join("tool");
    fs::write(&outside, "#!/bin/sh\necho one\n").expect("a program");
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o755)).expect("permissions");
    fs::create_dir_all(world.home().join("venv/bin")).expect("folders");
    symlink(&outside, world.home().join("venv/bin/tool")).expect("a link");
    let one = world.prepared().await;
    assert!(files_of(&one.code).is_empty());
    assert_eq!(exec_argv(&one)[0], world.home().join("venv/bin/tool").into_os_string());
    fs::write(&outside, "#!/bin/sh\necho two\n").expect("a program");
    assert_ne!(world.prepared().await.version, one.version);
}

#[tokio::test]
async fn what_cannot_be_started_says_what_to_try() {
    let world = World::exec(&["./bin"]);
    let message = world.refused().await.message;
    assert!(message.contains("home/bin: build it, or correct `exec`"), "{message}");
    let path = world.write("bin", "#!/bin/sh\n");
    let message = world.refused().await.message;
    assert!(message.contains("is not executable. Try: chmod +x "), "{message}");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("permissions");
    world.prepared().await;

    let world = World::exec(&["kvern-no-such-program"]);
    let message = world.refused().await.message;
    assert!(message.contains("no program kvern-no-such-program on PATH: install it"), "{message}");
    world.write("kvern-no-such-program", "#!/bin/sh\n");
    let message = world.refused().await.message;
    assert!(message.contains("write \"./kvern-no-such-program\""), "{message}");
}
