//! Functions that touch what is not theirs: the private descriptor, and the standard streams.

use std::time::Duration;

use kvern_core::{FailureCode, Outcome};
use kvern_runtime::conformance::until;

use crate::support::{Bench, GRACE, left, nothing_left};
use crate::{call, fails, run};

/// Finds the private descriptor: the only socket.
const FIND: &str = "import os, sys, threading, time, struct\nFD = [int(n) for n in os.listdir('/proc/self/fd') \
                    if os.path.exists('/proc/self/fd/' + n) and os.readlink('/proc/self/fd/' + n).startswith('socket:')][0]\n";

#[tokio::test]
async fn garbage_on_the_private_descriptor_is_a_protocol_error() {
    let bench = Bench::new();
    for garbage in [
        "b'print'",
        "b'\\0\\0\\0\\0'",
        "b'\\xff' * 100000",
        // A good answer, to a job that is not under way.
        r#"struct.pack('<IBI', 39, 0x84, 77) + b'{"code":"exception","message":"x"}'"#,
        "struct.pack('<IB', 15, 0x81) + b'{\"protocol\":1}'",
    ] {
        let text = format!("{FIND}\ndef f():\n    os.write(FD, {garbage})\n    return 1\n");
        let failure = fails(&bench, &bench.python(&text, None), "", FailureCode::ProtocolError).await;
        assert!(failure.message.starts_with("the function's process wrote what is not Kvern's protocol"), "{failure}");
    }
    let node = "import fs from 'node:fs';\nexport default () => {\n  for (const fd of fs.readdirSync('/proc/self/fd')) {\n    try {\n      \
                if (fs.readlinkSync('/proc/self/fd/' + fd).startsWith('socket:')) fs.writeSync(Number(fd), 'garbage!!');\n    } catch {}\n  }\n  return 1;\n};\n";
    fails(&bench, &bench.node(node, None), "", FailureCode::ProtocolError).await;
}

#[tokio::test]
async fn a_closed_private_descriptor_is_not_waited_for() {
    let bench = Bench::new();
    let text = format!("{FIND}\ndef f():\n    os.close(FD)\n    time.sleep(1000)\n");
    let failure = fails(&bench, &bench.python(&text, None), "", FailureCode::ProtocolError).await;
    assert!(failure.message.contains("the end of the descriptor"), "{failure}");
    let text = format!("{FIND}\ndef f():\n    os.closerange(3, 100)\n");
    let failure = fails(&bench, &bench.python(&text, None), "", FailureCode::Crash).await;
    assert!(failure.message.contains("exited with code 1"), "{failure}");
}

#[tokio::test]
async fn a_stray_frame_recycles_the_instance() {
    let bench = Bench::new();
    let late = "def late():\n    time.sleep(0.2)\n    os.write(FD, struct.pack('<IBI', 7, 0x84, 1) + b'{}')\n";
    let text = format!("{FIND}{late}\ndef f():\n    threading.Thread(target=late).start()\n    return 1\n");
    let function = bench.python(&text, Some("f"));
    let stage = bench.stage(&function).await;
    let mut instance = stage.start().await;
    let mut context = kvern_runtime::conformance::context(&function, "application/json");
    context.content_type = None;
    let input = kvern_runtime::Input::Bytes(bytes::Bytes::new());
    let run = stage.run_with(instance.as_mut(), &context, input, Default::default()).await;
    assert_eq!(run.outcome, Outcome::Succeeded);
    let instance = std::sync::Mutex::new(instance);
    until("the stray frame has come", || async { !instance.lock().expect("not poisoned").is_usable() }).await;
    instance.into_inner().expect("not poisoned").stop(GRACE).await;
    assert_eq!(left(&function), 0);
}

#[tokio::test]
async fn printing_cannot_corrupt_the_protocol() {
    let bench = Bench::new();
    let text = "import os, sys, subprocess\ndef f():\n    print('print')\n    os.write(1, b'raw out\\n')\n    \
                os.write(2, b'raw err\\n')\n    subprocess.run(['echo', 'child'])\n    \
                print('error', file=sys.stderr)\n    sys.stdout.write('no end \\udcff')\n    return 'result'\n";
    let run1 = run(&bench, &bench.python(text, None), "", "").await;
    assert_eq!(run1.output.text(), "result");
    assert_eq!(run1.log.text(), "print\nraw out\nraw err\nchild\nerror\nno end \\udcff");
    let text = "import { execFileSync } from 'node:child_process';\nimport fs from 'node:fs';\nexport default () => {\n  \
                console.log('log');\n  console.error('error');\n  fs.writeSync(1, 'raw\\n');\n  \
                execFileSync('echo', ['child'], { stdio: 'inherit' });\n  process.stdout.write('no end');\n  return 'result';\n};\n";
    let run2 = run(&bench, &bench.node(text, None), "", "").await;
    assert_eq!((run2.output.text().as_str(), run2.log.text().as_str()), ("result", "log\nerror\nraw\nchild\nno end"));
}

#[tokio::test]
async fn closed_standard_streams_are_no_trouble() {
    let bench = Bench::new();
    for close in [
        "os.close(1)",
        "os.close(1); os.close(2)",
        "sys.stdout.close()",
        "sys.stdout = None",
        "sys.stdout = sys.stderr = open(os.devnull, 'w')",
    ] {
        let function = bench.python(&format!("import os, sys\ndef f():\n    {close}\n    return 'result'\n"), None);
        let stage = bench.stage(&function).await;
        let mut instance = stage.start().await;
        for _ in 0..2 {
            let mut context = kvern_runtime::conformance::context(&function, "application/json");
            context.timeout = Duration::from_secs(10);
            let input = kvern_runtime::Input::Bytes(bytes::Bytes::new());
            let run = stage.run_with(instance.as_mut(), &context, input, Default::default()).await;
            if close.starts_with("os.close")
                && run.outcome.failure().is_some_and(|f| f.message.contains("Bad file descriptor"))
            {
                continue; // The second time there is nothing to close.
            }
            assert_eq!(run.outcome, Outcome::Succeeded, "{close}");
            assert!(instance.is_usable(), "{close}");
        }
        instance.stop(GRACE).await;
    }
    for close in
        ["process.stdout.end()", "process.stdout.destroy()", "fs.closeSync(1)", "(fs.closeSync(1), fs.closeSync(2))"]
    {
        let function = bench
            .node(&format!("import fs from 'node:fs';\nexport default () => {{ {close}; return 'result'; }};\n"), None);
        assert_eq!(call(&bench, &function, "").await, "result", "{close}");
    }
}

#[tokio::test]
async fn a_forked_child_that_returns_answers_nothing() {
    let bench = Bench::new();
    let text = "import os\ndef f():\n    pid = os.fork()\n    if pid == 0:\n        return 'the child'\n    \
                os.waitpid(pid, 0)\n    return 'the parent'\n";
    assert_eq!(call(&bench, &bench.python(text, None), "").await, "the parent");
    let text = "import os\ndef f():\n    pid = os.fork()\n    if pid == 0:\n        raise ValueError('the child')\n    \
                return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\n";
    assert_eq!(call(&bench, &bench.python(text, None), "").await, "0");
}

#[tokio::test]
async fn output_after_the_result_is_in_no_log() {
    let bench = Bench::new();
    let text = "import threading, time\ndef late():\n    time.sleep(0.1)\n    print('late')\n    open(PATH, 'w').close()\n\
                def f(path):\n    global PATH\n    PATH = path\n    print('first')\n    threading.Thread(target=late).start()\n\
                def g(path=None):\n    if path: f(path)\n    else: print('second')\n";
    let function = bench.python(text, Some("g"));
    let stage = bench.stage(&function).await;
    let mut instance = stage.start().await;
    let flag = bench.data.path().join("late");
    let context = kvern_runtime::conformance::context(&function, "application/json");
    let json = |text: String| kvern_runtime::Input::Bytes(bytes::Bytes::from(text));
    let first =
        stage.run_with(instance.as_mut(), &context, json(format!("{{\"path\":{flag:?}}}")), Default::default()).await;
    until("the thread has printed", || async { flag.exists() }).await;
    let second = stage.run_with(instance.as_mut(), &context, json("{}".into()), Default::default()).await;
    assert_eq!((first.log.text().as_str(), second.log.text().as_str()), ("first\n", "second\n"));
    instance.stop(GRACE).await;
    nothing_left(&function).await;
}
