//! How processes end: with their server, on request, and by accident.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kvern_core::{FailureCode, Outcome};
use kvern_runtime::conformance::{Collected, context, until};
use kvern_runtime::{Input, Runtime};
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinSet;

use crate::support::{Bench, GRACE, left, nothing_left};
use crate::{call, fails, run};

#[tokio::test]
async fn a_crash_names_the_signal_or_the_code() {
    let bench = Bench::new();
    for (text, told) in [
        (
            "import ctypes\ndef f():\n    print('so far')\n    ctypes.string_at(0)\n",
            "was killed by signal 11 (SIGSEGV) during the attempt: so far",
        ),
        ("import os\ndef f():\n    os._exit(7)\n", "exited with code 7 during the attempt"),
        ("import sys\ndef f():\n    sys.exit('enough')\n", "exited with code 1 during the attempt: enough"),
        ("import os\ndef f():\n    os.abort()\n", "was killed by signal 6 (SIGABRT) during the attempt"),
    ] {
        let failure = fails(&bench, &bench.python(text, None), "", FailureCode::Crash).await;
        assert_eq!(failure.message, format!("the process {told}"));
    }
}

#[tokio::test]
async fn functions_are_nicer_than_the_server() {
    let bench = Bench::new();
    let text = "import os\ndef f():\n    read = lambda name: open(f'/proc/self/{name}').read().split()[-1]\n    \
                session = read('autogroup') if os.path.exists('/proc/self/autogroup') else 'none'\n    \
                return ' '.join([str(os.nice(0)), session, read('oom_score_adj')])\n";
    let nicer = |ours: i32| (ours + 5).min(19).to_string();
    let ours = rustix::process::getpriority_process(None).expect("our niceness");
    let session = std::fs::read_to_string("/proc/self/autogroup").map_or("none".to_owned(), |told| {
        nicer(told.split_whitespace().next_back().map_or(0, |nice| nice.parse().expect("a number")))
    });
    let function = bench.python(text, Some("f"));
    let wanted = format!("{} {session} 500", nicer(ours));
    // Where we are not root, the session's may come a moment later.
    until("all three are set", || async { call(&bench, &function, "").await == wanted }).await;
}

#[tokio::test]
async fn functions_may_open_as_many_files_as_any_program() {
    let bench = Bench::new();
    let text = "import resource\ndef f():\n    return resource.getrlimit(resource.RLIMIT_NOFILE)\n";
    let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.expect("a limit");
    assert_eq!(call(&bench, &bench.python(text, Some("f")), "").await, format!("[{},{hard}]", hard.min(1024)));
}

#[tokio::test]
async fn term_lets_finally_run() {
    let bench = Bench::new();
    // CPython 3.11 and 3.12 forget the `finally` around a loop that stands right in the `try`: hence `busy`.
    for body in ["time.sleep(1000)", "busy()", "asyncio.run(asyncio.sleep(1000))"] {
        let text = format!(
            "import asyncio, time\ndef busy():\n    while True: pass\ndef f():\n    try:\n        {body}\n    finally:\n        print('cleaned up')\n"
        );
        let function = bench.python(&text, Some("f"));
        let stage = bench.stage(&function).await;
        let mut instance = stage.start().await;
        let mut context = context(&function, "");
        context.content_type = None;
        context.timeout = Duration::from_millis(200);
        let run = stage.run_with(instance.as_mut(), &context, Input::Bytes("".into()), Collected::default()).await;
        assert!(matches!(run.outcome, Outcome::TimedOut(_)), "{:?}", run.outcome);
        assert!(run.log.text().contains("cleaned up"), "{body}: {:?}", run.log.text());
        assert_eq!(left(&function), 0);
    }
}

#[tokio::test]
async fn async_functions_share_one_loop_and_leave_nothing_running() {
    let bench = Bench::new();
    let text = "import asyncio\nLOOPS = set()\nasync def late():\n    try:\n        await asyncio.sleep(1000)\n    finally:\n        print('cancelled')\n\
                async def f():\n    LOOPS.add(id(asyncio.get_running_loop()))\n    asyncio.create_task(late())\n    await asyncio.sleep(0)\n    return len(LOOPS)\n";
    let function = bench.python(text, Some("f"));
    let stage = bench.stage(&function).await;
    let mut instance = stage.start().await;
    let mut context = context(&function, "");
    context.content_type = None;
    for _ in 0..3 {
        let run = stage.run_with(instance.as_mut(), &context, Input::Bytes("".into()), Collected::default()).await;
        assert_eq!((run.output.text().as_str(), run.log.text().as_str()), ("1", "cancelled\n"));
    }
    instance.stop(GRACE).await;
}

#[tokio::test]
async fn the_temporary_folder_lives_as_long_as_the_instance() {
    let bench = Bench::new();
    let text = "import tempfile\ndef f():\n    with tempfile.NamedTemporaryFile(delete=False) as file:\n        return file.name\n";
    let function = bench.python(text, None);
    let stage = bench.stage(&function).await;
    let mut instance = stage.start().await;
    let mut context = context(&function, "");
    context.content_type = None;
    let run = stage.run_with(instance.as_mut(), &context, Input::Bytes("".into()), Collected::default()).await;
    let file = std::path::PathBuf::from(run.output.text());
    assert!(file.starts_with(bench.data.path().join("run/tmp")) && file.exists(), "{}", file.display());
    instance.stop(GRACE).await;
    assert!(!file.exists());
    assert_eq!(call(&bench, &bench.shell("touch $TMPDIR/x; ls $TMPDIR"), "").await, "x\n");
    for folder in ["run/tmp", "run/jails"] {
        assert_eq!(std::fs::read_dir(bench.data.path().join(folder)).expect("it is there").count(), 0, "{folder}");
    }
}

#[tokio::test]
async fn a_jail_that_is_killed_is_a_crash_too() {
    let bench = Bench::new();
    let function = bench.python("import time\ndef f():\n    print('waiting')\n    time.sleep(1000)\n", None);
    let stage = bench.stage(&function).await;
    let mut instance = stage.start().await;
    let pid = instance.pid().expect("it runs").try_into().expect("a process id");
    let jail = parent(pid);
    let killing = async {
        kill_process(Pid::from_raw(jail).expect("not zero"), Signal::KILL).expect("it runs");
    };
    let mut context = context(&function, "");
    context.content_type = None;
    let (run, ()) = tokio::join!(
        stage.run_with(instance.as_mut(), &context, Input::Bytes("".into()), Collected::default()),
        killing
    );
    assert_eq!(run.outcome.failure().map(|failure| failure.code), Some(FailureCode::Crash), "{:?}", run.outcome);
    assert!(run.took < Duration::from_secs(60));
    nothing_left(&function).await;
}

fn parent(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, rest) = stat.rsplit_once(") ").expect("a name");
    rest.split(' ').nth(1).and_then(|parent| parent.parse().ok()).expect("a parent")
}

// === the death of the server ===

const FAMILY: &str = "import os, subprocess, time\n\ndef f():\n    subprocess.Popen(['sleep', '1000'], start_new_session=True)\n    \
                      if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0:\n            os.execvp('sleep', ['sleep', '1000'])\n        \
                      os._exit(0)\n    print('waiting')\n    time.sleep(1000)\n";

/// A server in a process of its own, which runs this function for ever.
fn server(bench: &Bench, function: &kvern_core::Function) -> Child {
    let mark = function.env.first().expect("the mark").1.clone();
    let mut server = Command::new(env!("CARGO_BIN_EXE_kvern-test-jail"))
        .args(["serve".as_ref(), bench.data.path().as_os_str(), function.home.as_os_str(), mark.as_ref()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the test's own binary");
    let mut line = String::new();
    BufReader::new(server.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    assert_eq!(line, "waiting\n");
    server
}

#[tokio::test]
async fn functions_die_with_their_server() {
    let bench = Bench::new();
    let function = bench.python(FAMILY, None);
    let mut server = server(&bench, &function);
    until("the jail, the function and two children are there", || async { left(&function) >= 4 }).await;
    server.kill().expect("it runs");
    assert_eq!(server.wait().expect("it was ours").signal(), Some(9));
    nothing_left(&function).await;
    until("the jail cleans up without its server", || async {
        std::fs::read_dir(bench.data.path().join("run/tmp")).expect("it is there").count() == 0
    })
    .await;
}

#[tokio::test]
async fn leftovers_are_killed_at_the_next_start() {
    let bench = Bench::new();
    let function = bench.python(FAMILY, None);
    let mut server = server(&bench, &function);
    let record = std::fs::read_dir(bench.data.path().join("run/jails"))
        .expect("it is there")
        .next()
        .expect("a jail")
        .expect("an entry");
    let jail: i32 = record.file_name().to_string_lossy().parse().expect("a process id");
    // A jail that cannot act: stopped.
    kill_process(Pid::from_raw(jail).expect("not zero"), Signal::STOP).expect("it runs");
    server.kill().expect("it runs");
    server.wait().expect("it was ours");
    until("the jail, the function and two children are there", || async { left(&function) >= 4 }).await;
    bench.runtime.clean_up_leftovers().await;
    nothing_left(&function).await;
    assert!(!record.path().exists());
    // A process with the same id and another start is left alone.
    let mut other = Command::new("sleep").arg("1000").spawn().expect("sleep");
    std::fs::write(bench.data.path().join(format!("run/jails/{}", other.id())), format!("{} 1\n", other.id()))
        .expect("a record");
    bench.runtime.clean_up_leftovers().await;
    assert!(other.try_wait().expect("it is ours").is_none(), "it lives");
    other.kill().expect("it lives");
    other.wait().expect("it is ours");
}

#[tokio::test]
async fn functions_do_not_inherit_our_descriptors() {
    let bench = Bench::new();
    let text = "import os\ndef f():\n    return sorted(os.readlink('/proc/self/fd/' + n).split(':')[0] for n in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + n))\n";
    let run1 = run(&bench, &bench.python(text, None), "", "").await;
    assert_eq!(run1.output.text(), r#"["/dev/null","pipe","pipe","socket"]"#, "stdin, stdout, stderr, the channel");
    let run2 = run(&bench, &bench.shell("ls /proc/self/fd | wc -l"), "", "").await;
    assert_eq!(run2.output.text().trim(), "4", "stdin, stdout, stderr, and that of ls itself");
}

#[tokio::test]
async fn many_instances_start_and_stop_at_once() {
    let bench = Bench::new();
    let function = bench.python("def f(): return 1\n", None);
    let stage = bench.stage(&function).await;
    let mut starts = JoinSet::new();
    for _ in 0..12 {
        let (runtime, version) = (bench.runtime.clone(), stage.version.clone());
        starts.spawn(async move {
            let mut instance = runtime.start(&version).await.expect("it starts");
            assert!(instance.is_usable());
            instance.stop(GRACE).await;
        });
    }
    starts.join_all().await;
    assert_eq!(left(&function), 0);
}
