//! Functions that attack what holds them: their jail, their group, their descriptors. They get nothing but their own end.

use std::time::Duration;

use kvern_core::{FailureCode, Function, Outcome};
use kvern_runtime::conformance::Run;

use crate::support::{Bench, GRACE, nothing_left};
use crate::{fails, run};

const TIMEOUT: Duration = Duration::from_millis(700);

/// The same deed in three languages. Each has started a child in a session of its own before it, and sleeps after it.
/// Signals are given by name and number, and whom to send them: `parent`, `self`, or `group`.
fn sends(bench: &Bench, signal: &str, whom: &str) -> [Function; 3] {
    let (python, node, shell) = match whom {
        "parent" => ("os.getppid()", "process.ppid", "$PPID"),
        "self" => ("os.getpid()", "process.pid", "$$"),
        _ => ("0", "0", "0"),
    };
    let functions = [
        bench.python(
            &format!(
                "import os, signal, subprocess, time\ndef f():\n    \
                 subprocess.Popen(['sleep', '1000'], start_new_session=True)\n    \
                 os.kill({python}, signal.SIG{signal})\n    time.sleep(1000)\n"
            ),
            None,
        ),
        bench.node(
            &format!(
                "import {{ spawn }} from 'node:child_process';\nexport default async () => {{\n  \
                 spawn('sleep', ['1000'], {{ detached: true }});\n  process.kill({node}, 'SIG{signal}');\n  \
                 await new Promise((done) => setTimeout(done, 1e6));\n}};\n"
            ),
            None,
        ),
        bench.shell(&format!("setsid sleep 1000 &\nkill -{signal} {shell}\nsleep 1000\n")),
    ];
    // What is killed ends long before; what is stopped ends by it.
    let timeout = if signal == "STOP" { TIMEOUT } else { Duration::from_secs(60) };
    functions.map(|function| Function { timeout, ..function })
}

fn is_late(run: &Run, function: &Function) {
    assert!(matches!(run.outcome, Outcome::TimedOut(_)), "{}: {:?}", function.door.describe(), run.outcome);
    // The rule is timeout, grace and a second, on a machine that has time for us.
    assert!(run.took < TIMEOUT + GRACE + Duration::from_secs(10), "{:?}", run.took);
}

/// Neither processes are left, nor files.
async fn is_clean(bench: &Bench, function: &Function) {
    nothing_left(function).await;
    for folder in ["run/tmp", "run/jails"] {
        assert_eq!(std::fs::read_dir(bench.data.path().join(folder)).expect("it is there").count(), 0, "{folder}");
    }
}

#[tokio::test]
async fn a_function_that_kills_its_jail_takes_all_of_itself_along() {
    let bench = Bench::new();
    for function in sends(&bench, "KILL", "parent") {
        let failure = fails(&bench, &function, "", FailureCode::Crash).await;
        assert!(failure.message.contains("killed together with its supervisor"), "{failure}");
        is_clean(&bench, &function).await;
    }
}

#[tokio::test]
async fn a_function_that_stops_its_jail_is_stopped_all_the_same() {
    let bench = Bench::new();
    for function in sends(&bench, "STOP", "parent") {
        is_late(&run(&bench, &function, "application/json", "").await, &function);
        is_clean(&bench, &function).await;
    }
}

#[tokio::test]
async fn a_function_that_stops_itself_is_stopped_at_its_deadline() {
    let bench = Bench::new();
    for function in sends(&bench, "STOP", "self") {
        is_late(&run(&bench, &function, "application/json", "").await, &function);
        is_clean(&bench, &function).await;
    }
}

#[tokio::test]
async fn a_signal_to_group_0_reaches_the_function_alone() {
    let bench = Bench::new();
    for function in sends(&bench, "KILL", "group") {
        let failure = fails(&bench, &function, "", FailureCode::Crash).await;
        assert!(failure.message.contains("was killed by signal 9 (SIGKILL)"), "the jail lives to tell: {failure}");
        nothing_left(&function).await;
    }
}

#[tokio::test]
async fn a_function_that_closes_everything_ends_itself() {
    let bench = Bench::new();
    let python = bench.python("import os\ndef f():\n    os.closerange(0, 1024)\n", None);
    let node = bench.node(
        "import fs from 'node:fs';\nexport default () => {\n  for (let fd = 0; fd < 64; fd++) {\n    \
         try { fs.closeSync(fd); } catch {}\n  }\n};\n",
        None,
    );
    for function in [python, node] {
        let run = run(&bench, &function, "application/json", "").await;
        let code = run.outcome.failure().map(|failure| failure.code);
        assert!(matches!(code, Some(FailureCode::Crash | FailureCode::ProtocolError)), "{:?}", run.outcome);
        nothing_left(&function).await;
    }
    let shell = bench.shell("exec 0<&- 1>&- 2>&-; exit 3");
    assert_eq!(fails(&bench, &shell, "", FailureCode::Exit).await.message, "exited with code 3");
}

#[tokio::test]
async fn random_bytes_for_an_answer_are_a_protocol_error() {
    let bench = Bench::new();
    // The first four bytes are a length: nearly always an impossible one, and else an unknown kind comes next.
    let python = "import os, random\ndef f(event):\n    random.seed(event)\n    \
                  socket = [int(n) for n in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + n) \
                  and os.readlink('/proc/self/fd/' + n).startswith('socket:')][0]\n    \
                  os.write(socket, random.randbytes(5 + event * 100))\n";
    let python = bench.python(python, Some("f"));
    let node = "import fs from 'node:fs';\nexport default (event) => {\n  let state = event;\n  \
                const bytes = Buffer.from(Array.from({ length: 5 + event * 100 }, () => \
                (state = (state * 48271) % 2147483647) >> 8 & 255));\n  \
                for (const fd of fs.readdirSync('/proc/self/fd')) {\n    try {\n      \
                if (fs.readlinkSync('/proc/self/fd/' + fd).startsWith('socket:')) fs.writeSync(Number(fd), bytes);\n    \
                } catch {}\n  }\n};\n";
    let node = bench.node(node, None);
    for seed in 1..=6 {
        for function in [&python, &node] {
            let run = run(&bench, function, "application/json", &seed.to_string()).await;
            let failure = run.outcome.failure().unwrap_or_else(|| panic!("seed {seed}: it succeeded"));
            assert_eq!(failure.code, FailureCode::ProtocolError, "seed {seed}: {failure}");
            assert!(matches!(run.outcome, Outcome::Crashed(_)), "a strike");
        }
    }
}

#[tokio::test]
async fn a_line_of_64_mebibytes_is_a_log_like_any_other() {
    let bench = Bench::new();
    let bytes = 64 << 20;
    for function in [
        bench.python(&format!("def f():\n    print('x' * {bytes}, end='')\n"), None),
        bench.node(&format!("export default () => {{ process.stdout.write('x'.repeat({bytes})); }};\n"), None),
        bench.shell(&format!("head -c {bytes} /dev/zero >&2")),
    ] {
        let run = run(&bench, &function, "application/json", "").await;
        assert_eq!(run.outcome, Outcome::Succeeded, "{}", function.door.describe());
        assert_eq!(run.log.len(), bytes, "{}", function.door.describe());
    }
}

#[tokio::test]
async fn a_function_without_descriptors_fails_alone() {
    let bench = Bench::new();
    let leak = "FILES = []\ndef f():\n    while True:\n        FILES.append(open('/dev/null'))\n";
    let leaking = bench.python(leak, Some("f"));
    let stage = bench.stage(&leaking).await;
    let mut instance = stage.start().await;
    let run = stage.run(instance.as_mut(), "").await;
    let failure = run.outcome.failure().expect("it has no more");
    assert!(failure.message.contains("Too many open files"), "{failure}");
    // It leaks its own: another instance, of this runtime, has all of its.
    assert_eq!(crate::call(&bench, &bench.shell("cat /dev/null; echo well"), "").await, "well\n");
    instance.stop(GRACE).await;
    nothing_left(&leaking).await;
}
