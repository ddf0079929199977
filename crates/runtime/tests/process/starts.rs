//! Functions that cannot be started.

use std::time::{Duration, Instant};

use crate::support::{Bench, nothing_left};
use crate::{call, start_fails};

#[tokio::test]
async fn a_syntax_error_names_the_users_file_and_line() {
    let bench = Bench::new();
    let function = bench.python("import os\n\ndef hello(:\n    pass\n", None);
    let failure = start_fails(&bench, &function).await;
    let path = function.home.join("hello.py").display().to_string();
    assert_eq!(failure.class.as_deref(), Some("SyntaxError"));
    assert_eq!(failure.message, "invalid syntax (hello.py, line 3)");
    let trace = failure.trace.expect("a trace");
    assert!(trace.starts_with(&format!("  File \"{path}\", line 3\n    def hello(:")), "{trace}");

    let function = bench.node("export default () => 1;\nconst x = ;\n", None);
    let failure = start_fails(&bench, &function).await;
    let path = function.home.join("hello.mjs").display().to_string();
    assert_eq!(failure.class.as_deref(), Some("SyntaxError"));
    let trace = failure.trace.expect("a trace");
    assert!(trace.starts_with(&format!("{path}:2\nconst x = ;\n")), "{trace}");
}

#[tokio::test]
async fn an_exception_at_import_has_its_trace() {
    let bench = Bench::new();
    let function = bench.python("def deep():\n    raise KeyError('URL')\n\ndeep()\n\ndef hello(): pass\n", None);
    let failure = start_fails(&bench, &function).await;
    assert_eq!(failure.to_string(), "KeyError: 'URL'");
    let path = function.home.join("hello.py").display().to_string();
    let expected = format!(
        "Traceback (most recent call last):\n  File \"{path}\", line 4, in <module>\n    deep()\n  File \"{path}\", \
         line 2, in deep\n    raise KeyError('URL')\nKeyError: 'URL'"
    );
    assert_eq!(without_carets(&failure.trace.expect("a trace")), expected);

    let failure = start_fails(&bench, &bench.python("import nothing_like_it\ndef f(): pass\n", None)).await;
    assert_eq!(failure.to_string(), "ModuleNotFoundError: No module named 'nothing_like_it'");
    let failure = start_fails(&bench, &bench.node("throw new TypeError('not today');\n", None)).await;
    assert_eq!(failure.to_string(), "TypeError: not today");
    assert!(failure.trace.expect("a trace").contains("/hello.mjs:1:7"));
}

#[tokio::test]
async fn a_missing_function_is_named_with_those_that_are_there() {
    let bench = Bench::new();
    let text = "from os.path import join\n\ndef bar(): pass\n\ndef baz(): pass\n\ndef _own(): pass\n";
    let failure = start_fails(&bench, &bench.python(text, Some("foo"))).await;
    assert_eq!(failure.message, "hello.py has no function `foo`; it has: `bar`, `baz`");
    let failure = start_fails(&bench, &bench.python(text, Some("bart"))).await;
    assert_eq!(failure.message, "hello.py has no function `bart`; it has: `bar`, `baz`; did you mean `bar`?");
    let failure = start_fails(&bench, &bench.python(text, None)).await;
    assert_eq!(
        failure.message,
        "hello.py has several functions and none named `handler`: write `handler = \"hello.py:NAME\"` with one of \
         `bar`, `baz`"
    );
    let failure = start_fails(&bench, &bench.python("X = 1\n", Some("X"))).await;
    assert_eq!(failure.message, "`X` in hello.py is not a function; it has: no function");
    let failure = start_fails(&bench, &bench.python("X = 1\n", None)).await;
    assert_eq!(failure.message, "hello.py has no function: define `def handler(event)` in it");

    let text = "export const bar = () => 1;\nexport function baz() {}\nexport const x = 1;\n";
    let failure = start_fails(&bench, &bench.node(text, Some("foo"))).await;
    assert_eq!(failure.message, "hello.mjs has no function `foo`; it has: `bar`, `baz`");
    let failure = start_fails(&bench, &bench.node(text, Some("x"))).await;
    assert_eq!(failure.message, "`x` in hello.mjs is not a function; it has: `bar`, `baz`");
    let failure = start_fails(&bench, &bench.node(text, None)).await;
    assert!(failure.message.contains("exports several functions and no default"), "{failure}");
}

#[tokio::test]
async fn the_default_function_is_found() {
    let bench = Bench::new();
    let text = "import json\n\ndef other(): pass\n\ndef handler(event):\n    return event\n";
    assert_eq!(call(&bench, &bench.python(text, None), "[1]").await, "[1]");
    let only =
        "from json import dumps\nclass Tool: pass\ndef _private(): pass\ndef greet(name):\n    return 'hi ' + name\n";
    assert_eq!(call(&bench, &bench.python(only, None), r#"{"name":"Ada"}"#).await, "hi Ada");
    for text in ["export const a = () => 1;\nexport default () => 2;\n", "export function x() { return 2; }\n"] {
        assert_eq!(call(&bench, &bench.node(text, None), "").await, "2");
    }
}

#[tokio::test]
async fn an_exit_at_import_names_its_code() {
    let bench = Bench::new();
    for exit in ["import sys; sys.exit(3)", "import os; os._exit(3)", "raise SystemExit(3)"] {
        let failure = start_fails(&bench, &bench.python(&format!("print('so far')\n{exit}\n"), None)).await;
        assert_eq!(failure.message.lines().next(), Some("hello.py exited with code 3 at import: so far"), "{exit}");
    }
    let failure = start_fails(&bench, &bench.node("console.log('so far');\nprocess.exit(3);\n", None)).await;
    assert_eq!(failure.message, "hello.mjs exited with code 3 at import: so far");
    let kill = "import os\nos.kill(os.getpid(), 11)\n";
    let failure = start_fails(&bench, &bench.python(kill, None)).await;
    assert_eq!(failure.message, "hello.py was killed by signal 11 (SIGSEGV) at import");
}

#[tokio::test]
async fn an_import_that_never_returns_is_given_up() {
    // A slow machine takes longer to get to the import.
    for millis in [500, 4_000, 30_000] {
        let timeout = Duration::from_millis(millis);
        let bench = Bench::with(|settings| settings.start_timeout = timeout);
        let function = bench.python("import time\nprint('dialling')\ntime.sleep(1000)\n", None);
        let began = Instant::now();
        let failure = start_fails(&bench, &function).await;
        assert!(began.elapsed() < Duration::from_secs(300), "the import still sleeps");
        if failure.message.contains("dialling") {
            let words =
                format!("hello.py was not ready within {timeout:?}: it never returned from its import: dialling");
            return assert_eq!(failure.message, words);
        }
    }
    panic!("it never got to the import");
}

#[tokio::test]
async fn a_dropped_start_leaves_nothing() {
    let bench = Bench::new();
    let function = bench.python("import time\ntime.sleep(1000)\n", None);
    let stage = bench.stage(&function).await;
    let started = tokio::time::timeout(Duration::from_millis(300), stage.try_start()).await;
    assert!(started.is_err(), "it cannot have started");
    nothing_left(&function).await;
}

#[tokio::test]
async fn what_is_printed_at_import_is_in_the_first_log() {
    let bench = Bench::new();
    for function in [
        bench.python("print('loading')\ndef hello():\n    print('hello')\n", None),
        bench.node("console.log('loading');\nexport default () => { console.log('hello'); };\n", None),
    ] {
        let stage = bench.stage(&function).await;
        let mut instance = stage.start().await;
        assert_eq!(stage.run(instance.as_mut(), "").await.log.text(), "loading\nhello\n");
        assert_eq!(stage.run(instance.as_mut(), "").await.log.text(), "hello\n");
        instance.stop(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn a_home_that_has_gone_is_named() {
    let bench = Bench::new();
    let function = bench.python("def hello(): pass\n", None);
    let stage = bench.stage(&function).await;
    std::fs::remove_dir_all(&function.home).expect("our own folder");
    let error = stage.try_start().await.err().expect("it cannot start");
    assert!(
        error.to_string().contains(&format!("the working directory {} is not there", function.home.display())),
        "{error}"
    );
}

/// Newer Pythons underline a part of the line.
fn without_carets(trace: &str) -> String {
    let lines = trace.lines().filter(|line| !line.trim_start().starts_with(['^', '~']));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn what_is_kept_in_the_data_directory_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let data = tempfile::tempdir().expect("a folder");
    let names = ["run", "versions", "packages"];
    for name in names {
        std::fs::create_dir(data.path().join(name)).expect("a folder, as an older version made it");
    }
    let settings = kvern_runtime::process::Settings::new(kvern_runtime::prepare::Settings::new(data.path().to_owned()));
    kvern_runtime::ProcessRuntime::new(settings).expect("a runtime");
    for name in names {
        let mode = data.path().join(name).metadata().expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{name}");
    }
}
