//! What is special about Node.js.

use bytes::Bytes;
use kvern_core::{FailureCode, Language, Outcome};
use kvern_runtime::Input;
use kvern_runtime::conformance::{Collected, context};

use crate::support::{self, Bench, handler};
use crate::{call, fails};

fn input(text: &'static str) -> Input {
    Input::Bytes(Bytes::from_static(text.as_bytes()))
}

#[tokio::test]
async fn common_js_files_work_too() {
    let bench = Bench::new();
    let js = |file: &str, text: &str, entry| bench.function(file, text, handler(Language::Node, file, entry));
    for (file, text, entry) in [
        ("a.cjs", "module.exports = (event) => event;\n", None),
        ("a.js", "exports.handler = async (event) => event;\n", None),
        ("a.js", "exports.other = 1;\nexports.only = (event) => event;\n", None),
        ("a.js", "module.exports = { [['na', 'me'].join('')]: (event) => event };\n", Some("name")),
        (
            "a.js",
            "Object.defineProperty(exports, '__esModule', { value: true });\nexports.default = (e) => e;\nexports.b = () => 0;\n",
            None,
        ),
        ("my-file.mjs", "export const name = (event) => event;\n", Some("name")),
    ] {
        assert_eq!(call(&bench, &js(file, text, entry), "[1]").await, "[1]", "{text}");
    }
}

#[tokio::test]
async fn an_unhandled_rejection_fails_the_attempt() {
    let bench = Bench::new();
    let text =
        "export default () => { Promise.reject(new TypeError('nobody caught me')); return new Promise(() => {}); };\n";
    let failure = fails(&bench, &bench.node(text, None), "", FailureCode::Exception).await;
    assert_eq!(failure.to_string(), "TypeError: nobody caught me");
    let text = "export default () => { setTimeout(() => { throw new TypeError('in a timer'); }, 1); return new Promise(() => {}); };\n";
    let failure = fails(&bench, &bench.node(text, None), "", FailureCode::Exception).await;
    assert_eq!(failure.to_string(), "TypeError: in a timer");
}

#[tokio::test]
async fn what_an_earlier_job_left_behind_fails_no_other() {
    let bench = Bench::new();
    // The second job lets the error of the first one happen, and answers after it.
    for (throwing, heard) in
        [("throw new Error('late')", "uncaughtException"), ("Promise.reject(new Error('late'))", "unhandledRejection")]
    {
        let text = format!(
            "let go = false;\n\
             const wait = () => {{ if (go) {{ {throwing}; }} else setTimeout(wait, 1); }};\n\
             export default async (event) => {{\n\
               if (event === 1) {{ setTimeout(wait, 1); return 1; }}\n\
               go = true;\n\
               await new Promise((resolve) => process.once('{heard}', resolve));\n\
               return 2;\n\
             }};\n"
        );
        let function = bench.node(&text, None);
        let stage = bench.stage(&function).await;
        let mut instance = stage.start().await;
        let context = context(&function, "application/json");
        let first = stage.run_with(instance.as_mut(), &context, input("1"), Collected::default()).await;
        assert!(instance.is_usable() && first.outcome == Outcome::Succeeded, "{:?}", first.outcome);
        let second = stage.run_with(instance.as_mut(), &context, input("2"), Collected::default()).await;
        assert_eq!((second.outcome, second.output.text().as_str()), (Outcome::Succeeded, "2"), "{heard}");
        let log = second.log.text();
        assert!(log.contains("that has ended left this error behind") && log.contains("Error: late"), "{log}");
        assert!(!instance.is_usable(), "nobody knows the state of the process");
        instance.stop(support::GRACE).await;
    }
}

#[tokio::test]
async fn an_exit_is_a_crash_that_names_the_code() {
    let bench = Bench::new();
    let failure =
        fails(&bench, &bench.node("export default () => process.exit(4);\n", None), "", FailureCode::Crash).await;
    assert_eq!(failure.message, "the process exited with code 4 during the attempt");
}

#[tokio::test]
async fn what_an_earlier_attempt_left_running_answers_nothing() {
    let bench = Bench::new();
    // The promise of the first attempt ends after it has failed by the rejection: its instance is gone by then.
    let text = "export default async (event) => { setTimeout(() => console.log('late'), 20); return event; };\n";
    let function = bench.node(text, None);
    for _ in 0..3 {
        assert_eq!(call(&bench, &function, "1").await, "1");
    }
}

#[tokio::test]
async fn values_that_thenables_give_are_awaited() {
    let bench = Bench::new();
    let text = "export default () => ({ then: (resolve) => resolve({ a: 1 }) });\n";
    assert_eq!(call(&bench, &bench.node(text, None), "").await, r#"{"a":1}"#);
}
