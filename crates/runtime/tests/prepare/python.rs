//! `requirements.txt`: installed once, in sight, and bounded.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use kvern_runtime::prepare::{forget_old, prepare};

use crate::{Seen, World, files_of, is_here, run};

/// Writes `mine-1.0` as a wheel into `wheels/` of the current folder.
const MAKE_WHEEL: &str = "
import os, zipfile
os.makedirs('wheels', exist_ok=True)
with zipfile.ZipFile('wheels/mine-1.0-py3-none-any.whl', 'w') as wheel:
    wheel.writestr('mine.py', 'WORD = \"mine\"')
    info = 'mine-1.0.dist-info/'
    wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\\nName: mine\\nVersion: 1.0\\n')
    wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    wheel.writestr(info + 'RECORD', '')
";

/// How long something may take that happens at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// Requirements that need no network.
const OFFLINE: &str = "--no-index\n--find-links ./wheels\n";

fn with_requirements(lines: &str) -> World {
    let world = World::python();
    world.write("requirements.txt", lines);
    world
}

/// A pip that is a shell script, run after `$target` is known; it notes each run in `runs`.
fn with_pip(script: &str) -> World {
    let mut world = with_requirements("mine==1.0\n");
    let folder = world.folder.path().display().to_string();
    let pip = world.write_program(
        "../pip",
        &format!(
            "#!/bin/sh\ncd {folder}\necho run >> runs\nall=$*\n\
             while [ $# -gt 0 ]; do [ \"$1\" = --target ] && target=$2; shift; done\n{script}\n"
        ),
    );
    world.settings.pip = Some(pip);
    world.settings.progress_every = Duration::from_millis(20);
    run("mkfifo", &["gate".as_ref(), "alive".as_ref()], world.folder.path());
    world
}

fn runs(world: &World) -> usize {
    fs::read_to_string(world.folder.path().join("runs")).unwrap_or_default().lines().count()
}

/// Lets a pip pass that waits at the gate.
fn open_gate(world: &World) -> impl FnOnce() + Send + use<> {
    let gate = world.folder.path().join("gate");
    move || drop(std::thread::spawn(move || fs::write(gate, "\n")))
}

fn packages(world: &World) -> Vec<PathBuf> {
    let folder = world.data_dir().join("packages").read_dir().expect("a folder");
    folder.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_dir()).collect()
}

#[tokio::test]
async fn a_local_package_is_installed_once_with_pip() {
    let world = with_requirements(&format!("{OFFLINE}mine==1.0\n"));
    if !is_here(world.settings.python.as_ref(), "python3") {
        return;
    }
    let python = world.settings.python.clone().expect("python3");
    run(&python, &["-c".as_ref(), MAKE_WHEEL.as_ref()], world.home());
    let version = world.prepared().await;
    let installed = version.packages.clone().expect("packages");
    let import = "import sys; sys.path.insert(0, sys.argv[1]); import mine; print(mine.WORD)";
    assert_eq!(run(python, &["-c".as_ref(), import.as_ref(), installed.as_ref()], world.home()), "mine");
    assert_eq!(world.seen.lines_with("hello: installing requirements.txt with ").len(), 1);
    assert_eq!(world.seen.lines_with("hello: installed requirements.txt in ").len(), 1);

    world.write("hello.py", "import mine");
    let other = world.prepared().await;
    assert_ne!(other.version, version.version);
    assert_eq!(other.packages, Some(installed), "other code, same packages");
    assert_eq!(world.seen.lines_with("hello: installing requirements.txt with ").len(), 1);
}

#[tokio::test]
async fn a_requirement_that_cannot_be_installed_is_named() {
    let world = with_requirements(&format!("{OFFLINE}kvern-no-such-package==9\n"));
    if !is_here(world.settings.python.as_ref(), "python3") {
        return;
    }
    fs::create_dir(world.home().join("wheels")).expect("a folder");
    let error = world.refused().await;
    assert!(error.message.starts_with("kvern-no-such-package==9 of requirements.txt cannot be installed"), "{error}");
    let detail = error.detail.expect("pip's own words");
    assert!(detail.contains("No matching distribution found for kvern-no-such-package==9"), "{detail}");
    assert!(packages(&world).is_empty(), "nothing half made is left");
}

#[tokio::test]
async fn an_installer_without_room_is_short_of_it_and_not_broken() {
    let full = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device";
    for (words, is_shortage) in [(full, true), ("ERROR: No matching distribution found for mine==1.0", false)] {
        let error = with_pip(&format!("echo '{words}' >&2; exit 1")).refused().await;
        assert_eq!(error.is_shortage, is_shortage, "{error}");
        assert_eq!(
            error.message.contains("cannot be installed for Python 3.") && error.message.contains("the disk is full"),
            is_shortage,
            "{error}"
        );
    }
}

#[tokio::test]
async fn requirements_of_nothing_are_no_requirements() {
    for lines in ["", "# pillow\n", "--index-url https://example.org/simple\n"] {
        let world = with_requirements(lines);
        assert_eq!(world.prepared().await.packages, None, "{lines:?}");
        assert!(world.seen.lines_with("").is_empty());
    }
}

#[tokio::test]
async fn what_the_requirements_name_counts() {
    let world = with_pip("echo 'WORD = 1' > $target/mine.py");
    world.write("requirements.txt", "-r base.txt\n./local\n");
    world.write("base.txt", "mine==1.0\n");
    world.write("local/setup.py", "x");
    let first = world.prepared().await.packages;
    for (path, text) in [("base.txt", "mine==1.1\n"), ("local/setup.py", "y")] {
        world.write(path, text);
        world.prepared().await;
    }
    assert_ne!(world.prepared().await.packages, first);
    assert_eq!((runs(&world), packages(&world).len()), (3, 3));
}

#[tokio::test]
async fn concurrent_prepares_install_once() {
    let world = with_pip("read x < gate\necho 'WORD = 1' > $target/mine.py");
    let twin = Seen::default();
    world.seen.answer("waiting for another installation", open_gate(&world));
    twin.answer("waiting for another installation", open_gate(&world));
    let (one, two) = tokio::join!(world.prepare(), prepare(&world.settings, &world.function, &twin));
    let (one, two) = (one.expect("prepared"), two.expect("prepared"));
    assert_eq!((&one.version, &one.packages), (&two.version, &two.packages));
    assert!(one.packages.expect("packages").join("mine.py").is_file());
    assert_eq!(runs(&world), 1);
}

#[tokio::test]
async fn a_long_installation_says_what_it_is_at() {
    let world = with_pip("echo Collecting mine\nread x < gate");
    world.seen.answer("still installing requirements.txt (0 s): Collecting mine", open_gate(&world));
    world.prepared().await;
}

#[tokio::test]
async fn an_installation_without_end_is_given_up() {
    let mut world = with_pip("echo Collecting mine\nread x < gate");
    world.settings.install_timeout = Duration::from_millis(300);
    let error = world.refused().await;
    assert_eq!(error.message, "requirements.txt was not installed within 0.3 s, and was given up");
    assert_eq!(error.detail.as_deref(), Some("Collecting mine"));
    assert!(packages(&world).is_empty());
}

#[tokio::test]
async fn an_installation_that_nobody_waits_for_is_stopped() {
    let world = with_pip("exec 3> alive\necho begun\nread x < gate");
    let alive = world.folder.path().join("alive");
    let (tell, begun) = tokio::sync::oneshot::channel();
    world.seen.answer("still installing requirements.txt (0 s): begun", move || {
        tell.send(()).expect("the test waits for it");
    });
    // The end of this file is the end of the last process that holds it.
    let ended = tokio::task::spawn_blocking(move || fs::read(alive));
    tokio::select! {
        result = world.prepare() => panic!("it waits at the gate: {result:?}"),
        told = begun => told.expect("it has begun"),
    }
    ended.await.expect("no panic").expect("the installer has ended");
    assert!(packages(&world).is_empty());
}

/// The server is a process of its own, which is killed while the installer runs; a child of the installer has a session of
/// its own.
#[test]
fn an_installer_ends_with_its_server() {
    let world = with_requirements("mine==1.0\n");
    if !is_here(world.settings.python.as_ref(), "python3") {
        return;
    }
    let alive = world.folder.path().join("alive");
    run("mkfifo", &[alive.as_ref()], world.home());
    let script = format!("#!/bin/sh\nexec 3> {}\nsetsid sleep 1000 &\necho begun >&3\nsleep 1000\n", alive.display());
    world.write_program("../uv", &script);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::iter::once(world.folder.path().to_owned()).chain(std::env::split_paths(&path));
    let mut server = Command::new(env!("CARGO_BIN_EXE_kvern-test-jail"))
        .args(["serve".as_ref(), world.data_dir().as_os_str(), world.home().as_os_str(), "mark".as_ref()])
        .env("PATH", std::env::join_paths(path).expect("a PATH"))
        .spawn()
        .expect("the test's own binary");
    // The end of this file is the end of the last process that holds it.
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(File::open(alive).expect("a pipe with a name")).lines();
        lines.for_each(|line| tell.send(line.expect("text")).expect("the test listens"));
    });
    assert_eq!(told.recv_timeout(PATIENCE), Ok("begun".to_owned()));
    server.kill().expect("it runs");
    server.wait().expect("it was ours");
    assert_eq!(told.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected), "the installer is still there");
}

#[tokio::test]
async fn an_installation_that_was_cut_off_is_begun_again() {
    let world = with_pip("echo 'WORD = 1' > $target/mine.py");
    let version = world.prepared().await;
    let installed = version.packages.expect("packages");
    fs::remove_file(installed.join(".kvern-complete")).expect("the mark of completeness");
    fs::write(installed.join("half.py"), "").expect("something half made");
    world.prepared().await;
    assert_eq!(runs(&world), 2);
    assert_eq!(files_of(&installed), [".kvern-complete", "mine.py"]);
}

#[tokio::test]
async fn packages_go_with_the_last_version_that_needs_them() {
    let world = with_pip("echo 'WORD = 1' > $target/mine.py");
    for number in 0..7 {
        world.write("requirements.txt", &format!("mine=={number}\n"));
        world.prepared().await;
    }
    assert_eq!(packages(&world).len(), 7);
    assert_eq!(forget_old(world.data_dir(), &[]).expect("old ones go"), 2);
    assert_eq!(packages(&world).len(), 5);
    world.prepared().await;
    assert_eq!(runs(&world), 7, "the newest are still there");
}

#[tokio::test]
async fn uv_goes_before_pip() {
    let mut world = with_pip("echo \"$all\" > asked");
    world.settings.uv = world.settings.pip.take();
    let python = run("python3", &["-c".as_ref(), "import sys; print(sys.executable)".as_ref()], world.home());
    world.prepared().await;
    let asked = fs::read_to_string(world.folder.path().join("asked")).expect("what it was asked");
    let expected = format!("pip install --compile-bytecode --no-progress --color never --python {python} --target ");
    assert!(asked.starts_with(&expected) && asked.ends_with(" --requirement requirements.txt\n"), "{asked}");
}

#[tokio::test]
async fn a_python_without_pip_says_how_to_get_one() {
    let world = with_pip("echo \"/usr/bin/python3: No module named pip\" >&2\nexit 1");
    let message = world.refused().await.message;
    assert!(message.contains("apt install python3-pip") && message.contains("-m ensurepip"), "{message}");
}

#[tokio::test]
async fn a_python_that_is_missing_or_old_says_what_is_needed() {
    let mut world = World::python();
    world.settings.python = None;
    let message = world.refused().await.message;
    assert!(message.contains("there is no python3 on PATH") && message.contains("Python 3.9 or later"), "{message}");

    let old =
        world.write_program("../old", "#!/bin/sh\nprintf '3.8.19\\ncpython-38\\nx86_64\\n/usr/bin/python3.8\\n'\n");
    world.settings.python = Some(old.clone());
    let message = world.refused().await.message;
    assert!(message.contains("is Python 3.8.19, and the function needs Python 3.9 or later"), "{message}");

    fs::write(old, "#!/bin/sh\necho broken >&2; exit 3\n").expect("a program");
    let error = world.refused().await;
    assert!(error.message.contains("did not say its version (exit status: 3)"), "{error}");
    assert_eq!(error.detail.as_deref(), Some("broken"));
}
