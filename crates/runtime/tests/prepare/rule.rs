//! What is copied, and what is refused.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use kvern_core::Language;
use kvern_runtime::prepare::handler_file;

use crate::{World, files_of, handler};

#[tokio::test]
async fn code_is_copied_and_the_rest_is_not() {
    let world = World::python();
    for path in ["lib/__init__.py", "templates/page.html", ".env", "data_model.py", "dist/page.js"] {
        world.write(path, "x");
    }
    for path in [
        ".git/HEAD",
        ".kvern/versions/x",
        "node_modules/a/index.js",
        "__pycache__/a.pyc",
        "lib/__pycache__/a.pyc",
        ".venv/bin/python",
        "venv/bin/python",
        "hello.egg-info/PKG-INFO",
        "hello.py~",
        ".#hello.py",
    ] {
        world.write(path, "x");
    }
    let copied = files_of(&world.prepared().await.code);
    let expected = [".env", "data_model.py", "dist/page.js", "hello.py", "lib/__init__.py", "templates/page.html"];
    assert_eq!(copied, expected);
}

#[tokio::test]
async fn the_data_directory_in_the_home_is_not_copied() {
    let mut world = World::python();
    world.settings.data_dir = world.home().join("state");
    let first = world.prepared().await;
    assert_eq!(files_of(&first.code), ["hello.py"]);
    assert_eq!(world.prepared().await.version, first.version);
}

#[tokio::test]
async fn data_is_linked_and_not_copied() {
    let world = World::python();
    world.write("data/words.txt", "one two");
    world.write_hollow("model.bin", 5 << 20);
    world.write_hollow("native.so", 5 << 20);
    let code = world.prepared().await.code;
    for path in ["data", "model.bin"] {
        assert_eq!(fs::read_link(code.join(path)).expect("a link"), world.home().join(path));
    }
    assert_eq!(fs::read_to_string(code.join("data/words.txt")).expect("through the link"), "one two");
    assert!(code.join("native.so").symlink_metadata().expect("a file").is_file(), "a native module is code");
}

#[tokio::test]
async fn what_programs_write_while_they_run_is_no_part_of_a_version() {
    let world = World::python();
    let written = ["out.log", "out.log.1", "nohup.out", "cache.db", "cache.db-wal", "x.sqlite3-journal", "hello.pid"];
    for path in written {
        world.write(path, "one line");
    }
    let first = world.prepared().await;
    assert_eq!(fs::read_link(first.code.join("out.log")).expect("a link"), world.home().join("out.log"));
    for path in written {
        world.write(path, "one line more");
    }
    assert_eq!(world.prepared().await.version, first.version);
    world.write("catalog", "code or not, it has no name of an output");
    assert_ne!(world.prepared().await.version, first.version);
}

#[tokio::test]
async fn another_timeout_in_the_manifest_is_no_new_version() {
    let world = World::python();
    world.write("kvern.toml", "[functions.hello]\nhandler = \"hello.py\"\n");
    let first = world.prepared().await;
    world.write("kvern.toml", "[functions.hello]\nhandler = \"hello.py\"\ntimeout = \"5s\"\n");
    assert_eq!(world.prepared().await.version, first.version);
}

#[tokio::test]
async fn a_package_named_data_is_code() {
    let world = World::python();
    world.write("data/__init__.py", "");
    world.write("data/load.py", "");
    assert_eq!(files_of(&world.prepared().await.code), ["data/__init__.py", "data/load.py", "hello.py"]);
}

#[tokio::test]
async fn copied_files_are_read_only_and_as_private_as_they_were() {
    let world = World::python();
    let secret = world.write(".env", "KEY=1");
    fs::set_permissions(secret, fs::Permissions::from_mode(0o600)).expect("permissions");
    world.write_program("lib/tool.sh", "#!/bin/sh\n");
    let code = world.prepared().await.code;
    let mode = |path: &str| code.join(path).metadata().expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(".env"), 0o400);
    assert_eq!(mode("lib/tool.sh"), 0o555);
    assert_ne!(mode("lib") & 0o200, 0, "whoever removes a data directory need not know of it");
}

#[tokio::test]
async fn the_handler_of_a_folder_brings_its_folder_only() {
    let world = World::with(handler(Language::Python, "api/hello.py"));
    world.write("api/hello.py", "x = 1");
    world.write("other/hello.py", "x = 2");
    let version = world.prepared().await;
    assert_eq!(files_of(&version.code), ["hello.py"]);
    assert_eq!(handler_file(&version), Some(version.code.join("hello.py")));
}

#[tokio::test]
async fn a_link_inside_the_folder_is_copied_as_what_it_points_to() {
    let world = World::python();
    world.write("lib/words.py", "x = 1");
    symlink("lib/words.py", world.home().join("words.py")).expect("a link");
    symlink("lib", world.home().join("other")).expect("a link");
    symlink("nowhere", world.home().join("dangling")).expect("a link");
    symlink("itself", world.home().join("itself")).expect("a link");
    let code = world.prepared().await.code;
    assert_eq!(files_of(&code), ["hello.py", "lib/words.py", "other/words.py", "words.py"]);
    assert!(code.join("words.py").symlink_metadata().expect("a file").is_file());
}

#[tokio::test]
async fn a_link_out_of_the_folder_is_refused() {
    for (target, is_folder) in [("secret.txt", false), ("secrets", true)] {
        let world = World::python();
        let outside = world.folder.path().join(target);
        if is_folder { fs::create_dir(&outside) } else { fs::write(&outside, "x") }.expect("something outside");
        symlink(format!("../{target}"), world.home().join("link")).expect("a link");
        let message = world.refused().await.message;
        assert!(message.contains("home/link is a link to"), "{message}");
        assert!(message.contains(target) && message.contains("Copy what it points to into the folder"), "{message}");
    }
}

#[tokio::test]
async fn links_that_go_round_end() {
    let world = World::python();
    fs::create_dir(world.home().join("lib")).expect("a folder");
    symlink("..", world.home().join("lib/up")).expect("a link");
    assert!(world.refused().await.message.contains("a folder that it is in itself"));

    let world = World::python();
    for (folder, other) in [("a", "b"), ("b", "a")] {
        fs::create_dir(world.home().join(folder)).expect("a folder");
        symlink(format!("../{other}"), world.home().join(folder).join("link")).expect("a link");
    }
    assert!(world.refused().await.message.contains("folders more than 32 deep"));
}

#[tokio::test]
async fn too_much_is_refused_with_the_folder_and_what_to_do() {
    let many = World::python();
    for number in 0..5_000 {
        many.write(&format!("f/{number}.txt"), "");
    }
    let large = World::python();
    for number in 0..17 {
        large.write_hollow(&format!("{number}.txt"), 4 << 20);
    }
    for (world, what) in [(many, "more than 5000 files"), (large, "more than 64 MiB")] {
        let message = world.refused().await.message;
        assert!(message.contains(what) && message.contains("into a folder of their own"), "{message}");
        assert!(message.contains(&world.home().display().to_string()), "{message}");
    }
}

#[tokio::test]
async fn sockets_and_pipes_are_left() {
    let world = World::python();
    let _socket = std::os::unix::net::UnixListener::bind(world.home().join("socket")).expect("a socket");
    crate::run("mkfifo", &["pipe".as_ref()], world.home());
    assert_eq!(files_of(&world.prepared().await.code), ["hello.py"]);
}

#[tokio::test]
async fn a_missing_handler_is_named() {
    let world = World::with(handler(Language::Python, "api/hello.py"));
    let message = world.refused().await.message;
    assert!(message.contains("there is no file") && message.contains("home/api/hello.py"), "{message}");
    world.write("api/hello.py/x", "");
    assert!(world.refused().await.message.contains("is a folder and no file"));
    let world = World::with(handler(Language::Python, "pipe"));
    crate::run("mkfifo", &["pipe".as_ref()], world.home());
    assert!(world.refused().await.message.contains("is a pipe, socket or device and no file"));
}
