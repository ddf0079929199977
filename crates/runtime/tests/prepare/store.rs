//! What is half made, damaged, or old.

use std::fs;
use std::path::Path;

use kvern_runtime::prepare::{clean_up, forget_old};

use crate::{World, files_of};

#[tokio::test]
async fn what_a_killed_server_left_is_not_used_and_cleaned_up() {
    let world = World::python();
    let version = world.prepared().await;
    let left = [world.data_dir().join("versions/hello/.new-1-0"), world.data_dir().join("packages/.new-1-7")];
    for folder in &left {
        fs::create_dir_all(folder.join("deep")).expect("folders");
        fs::write(folder.join("deep/hello.py"), "half").expect("a file");
    }
    assert_eq!(world.version().await, version.version.to_string());
    assert_eq!(clean_up(world.data_dir()).expect("cleaned up"), 2);
    assert!(left.iter().all(|folder| !folder.exists()));
    assert_eq!(files_of(&version.code), ["hello.py"], "what is complete stays");
    assert_eq!(clean_up(world.data_dir()).expect("cleaned up"), 0);
    assert_eq!(clean_up(Path::new("/nonexistent")).expect("nothing to clean"), 0);
}

#[tokio::test]
async fn nothing_is_removed_while_another_process_prepares() {
    let world = World::python();
    world.prepared().await;
    let left = world.data_dir().join("versions/hello/.new-1-0");
    fs::create_dir(&left).expect("a folder");
    let other = fs::File::open(world.data_dir().join("versions/.lock")).expect("the lock of the store");
    other.lock_shared().expect("another process holds it");
    assert_eq!(clean_up(world.data_dir()).expect("left for later"), 0);
    assert_eq!(forget_old(world.data_dir(), &[]).expect("left for later"), 0);
    // Closed alone it could live on in a process that another test has just forked.
    other.unlock().expect("unlocked");
    assert_eq!(clean_up(world.data_dir()).expect("cleaned up"), 1);
}

#[tokio::test]
async fn a_damaged_copy_is_made_again() {
    let world = World::python();
    let version = world.prepared().await;
    let file = version.code.join("hello.py");
    let whole = fs::read(&file).expect("a file");
    fs::remove_file(&file).and_then(|()| fs::write(&file, "")).expect("what a power cut leaves");
    assert_eq!(world.version().await, version.version.to_string());
    assert_eq!(fs::read(&file).expect("a file"), whole);
}

#[tokio::test]
async fn old_versions_go_but_five_and_those_in_use() {
    let world = World::python();
    let mut versions = Vec::new();
    for number in 0..8 {
        world.write("hello.py", &format!("x = {number}"));
        versions.push(world.prepared().await);
    }
    // The third is prepared once more: it is new again.
    world.write("hello.py", "x = 2");
    world.prepared().await;
    let in_use = [(world.function.name.clone(), versions[0].version.clone())];
    assert_eq!(forget_old(world.data_dir(), &in_use).expect("old ones go"), 2);
    let kept: Vec<bool> = versions.iter().map(|version| version.code.exists()).collect();
    assert_eq!(kept, [true, false, true, false, true, true, true, true]);
}

#[tokio::test]
async fn preparing_again_writes_nothing() {
    let world = World::python();
    let code = world.prepared().await.code;
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&path.metadata().expect("it is there"));
    let before = inode(&code.join("hello.py"));
    world.prepared().await;
    assert_eq!(inode(&code.join("hello.py")), before);
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_written_is_named() {
    let mut world = World::python();
    world.settings.data_dir = world.write("file", "").join("state");
    let message = world.refused().await.message;
    assert!(message.contains("cannot write to the data directory") && message.contains("home/file/state"), "{message}");
}

#[tokio::test]
async fn packages_go_with_their_last_version_but_not_what_was_downloaded() {
    let world = World::python();
    let version = world.prepared().await;
    let packages = world.data_dir().join("packages");
    for folder in ["python-old", ".cache/pip", ".new-1-9"] {
        fs::create_dir_all(packages.join(folder)).expect("a folder");
    }
    for number in 0..7 {
        fs::write(packages.join(format!(".python-bad{number}.log")), "no such package").expect("a file");
    }
    for file in [".python-old.log", ".python-old.lock", ".python-bad1.lock"] {
        fs::write(packages.join(file), "").expect("a file");
    }
    let in_use = [(world.function.name.clone(), version.version)];
    forget_old(world.data_dir(), &in_use).expect("old ones go");
    let left: Vec<String> = fs::read_dir(&packages)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert!(left.contains(&".cache".to_owned()) && packages.join(".cache/pip").exists(), "{left:?}");
    assert!(!left.iter().any(|name| name.contains("python-old") || name.ends_with(".lock")), "{left:?}");
    let logs = left.iter().filter(|name| name.ends_with(".log")).count();
    assert_eq!(logs, 5, "what could not be installed is still told: {left:?}");
}
