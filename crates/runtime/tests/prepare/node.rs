//! `package.json`: npm installs it where Node's module loader finds it.

use std::fs;

use kvern_runtime::FunctionVersion;
use kvern_runtime::prepare::handler_file;

use crate::{World, is_here, run};

/// A handler that imports a package of its own folder.
fn with_local_package() -> World {
    let world = World::node();
    world.write("package.json", r#"{"dependencies": {"mine": "file:./mine"}, "scripts": {"prepare": "no-such-tool"}}"#);
    world.write("mine/package.json", r#"{"name": "mine", "version": "1.0.0", "type": "module", "main": "index.js"}"#);
    world.write("mine/index.js", "export const word = 'mine';\n");
    world.write("hello.mjs", "import { word } from 'mine';\nconsole.log(word);\n");
    world
}

fn say(world: &World, version: &FunctionVersion) -> String {
    let file = handler_file(version).expect("a handler");
    run(world.settings.node.as_ref().expect("node"), &[file.as_os_str()], world.home())
}

fn has_npm(world: &World) -> bool {
    is_here(world.settings.node.as_ref(), "node") && is_here(world.settings.npm.as_ref(), "npm")
}

#[tokio::test]
async fn a_local_package_is_installed_once_with_npm() {
    let world = with_local_package();
    if !has_npm(&world) {
        return;
    }
    let version = world.prepared().await;
    assert_eq!(say(&world, &version), "mine");
    assert!(version.packages.as_ref().is_some_and(|folder| folder.join("mine/index.js").is_file()));
    assert!(!world.home().join("node_modules").exists(), "the home is left as it was");
    world.prepared().await;
    assert_eq!(world.seen.lines_with("hello: installing package.json with ").len(), 1);

    world.write("mine/index.js", "export const word = 'new';\n");
    let newer = world.prepared().await;
    assert_eq!((say(&world, &newer), say(&world, &version)), ("new".to_owned(), "mine".to_owned()));
}

#[tokio::test]
async fn an_npm_without_room_is_short_of_it_and_not_broken() {
    let mut world = with_local_package();
    if !has_npm(&world) {
        return;
    }
    let words = "npm error code ENOSPC\nnpm error nospc ENOSPC: no space left on device, write";
    world.settings.npm = Some(world.write_program("../npm", &format!("#!/bin/sh\necho '{words}' >&2\nexit 228\n")));
    let error = world.refused().await;
    assert!(error.is_shortage && error.message.contains("cannot be installed: the disk is full"), "{error}");
}

#[tokio::test]
async fn a_lock_file_is_followed() {
    let world = with_local_package();
    if !has_npm(&world) {
        return;
    }
    let npm = world.settings.npm.as_ref().expect("npm");
    run(npm, &["install", "--package-lock-only", "--ignore-scripts", "--offline"].map(AsRef::as_ref), world.home());
    assert_eq!(say(&world, &world.prepared().await), "mine");

    world.write("package.json", r#"{"dependencies": {"mine": "file:./mine", "other": "1.0.0"}}"#);
    let error = world.refused().await;
    assert!(error.message.contains("package-lock.json does not fit it"), "{error} {:?}", error.detail);
}

#[tokio::test]
async fn a_package_without_dependencies_needs_no_npm() {
    let mut world = World::node();
    world.settings.npm = None;
    if !is_here(world.settings.node.as_ref(), "node") {
        return;
    }
    world.write("package.json", r#"{"type": "module", "devDependencies": {"jest": "1"}}"#);
    let version = world.prepared().await;
    assert_eq!(version.packages, None);
    assert!(version.code.join("package.json").is_file(), "Node reads the type from it");

    world.write("package.json", r#"{"dependencies": {"mine": "1.0.0"}}"#);
    let message = world.refused().await.message;
    assert!(message.contains("there is no npm on PATH") && message.contains("apt install npm"), "{message}");
}

#[tokio::test]
async fn what_npm_says_is_passed_on() {
    let mut world = World::node();
    if !is_here(world.settings.node.as_ref(), "node") {
        return;
    }
    world.write("package.json", r#"{"dependencies": {"mine": "99.0.0"}}"#);
    let npm = world.folder.path().join("npm");
    world.settings.npm = Some(npm.clone());
    for (words, expected) in [
        (
            "error code E404\nnpm error 404  'mine@99.0.0' is not in this registry.",
            "mine@99.0.0 of package.json cannot",
        ),
        (
            "error code E404\nnpm error 404  The requested resource 'mine' could not be found",
            "mine of package.json cannot",
        ),
        ("error code ETARGET\nnpm error notarget No matching version found for mine@99.0.0.", "mine@99.0.0 of package"),
        ("error code ENOTFOUND\n", "the registry cannot be reached"),
    ] {
        world.write_program("../npm", &format!("#!/bin/sh\ncat <<'END'\nnpm {words}\nEND\nexit 1\n"));
        let error = world.refused().await;
        assert!(error.message.contains(expected), "{error}");
        assert!(error.detail.as_ref().is_some_and(|detail| detail.contains("npm error code")), "{error:?}");
    }
}

#[tokio::test]
async fn a_package_outside_of_the_folder_or_unreadable_is_refused() {
    let world = World::node();
    if !is_here(world.settings.node.as_ref(), "node") {
        return;
    }
    world.write("package.json", r#"{"dependencies": {"mine": "file:../mine"}}"#);
    let message = world.refused().await.message;
    assert!(message.contains("mine is at file:../mine, outside of the function's folder"), "{message}");
    fs::write(world.home().join("package.json"), "{\n  nonsense\n}").expect("a file");
    let message = world.refused().await.message;
    assert!(message.contains("package.json is not valid") && message.contains("line 2"), "{message}");
}

#[tokio::test]
async fn an_old_node_says_what_is_needed() {
    let mut world = World::node();
    let old = world.write_program("../node", "#!/bin/sh\nprintf '16.20.0\\nnode-93\\nx64\\n/usr/bin/node\\n'\n");
    world.settings.node = Some(old);
    let message = world.refused().await.message;
    assert!(message.contains("is Node.js 16.20.0, and the function needs Node.js 18 or later"), "{message}");
}
