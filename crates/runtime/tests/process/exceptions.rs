//! What functions throw, and how it is told.

use kvern_core::FailureCode;

use crate::support::Bench;
use crate::{call, fails};

#[tokio::test]
async fn an_exception_is_told_with_the_users_frames_only() {
    let bench = Bench::new();
    let function =
        bench.python("def inner(x):\n    return 1 / x\n\ndef hello(event):\n    return inner(0)\n", Some("hello"));
    let failure = fails(&bench, &function, "{}", FailureCode::Exception).await;
    assert_eq!(failure.to_string(), "ZeroDivisionError: division by zero");
    let path = function.home.join("hello.py").display().to_string();
    let trace = failure.trace.expect("a trace");
    assert!(trace.contains(&format!("  File \"{path}\", line 2, in inner\n    return 1 / x\n")), "{trace}");
    assert!(trace.contains(&format!("  File \"{path}\", line 5, in hello\n")), "{trace}");
    assert!(!trace.contains("kvern_shim") && !trace.contains("/versions/"), "{trace}");
    assert_eq!(trace.matches("File \"").count(), 2, "{trace}");

    let text = "function inner() {\n  throw new RangeError('too far');\n}\nexport default async () => {\n  await null;\n  inner();\n};\n";
    let function = bench.node(text, None);
    let failure = fails(&bench, &function, "{}", FailureCode::Exception).await;
    assert_eq!(failure.to_string(), "RangeError: too far");
    let trace = failure.trace.expect("a trace");
    let path = function.home.join("hello.mjs").display().to_string();
    assert!(trace.contains(&format!("at inner ({path}:2:9)")), "{trace}");
    assert!(
        !trace.contains("kvern_shim") && !trace.contains("/versions/") && !trace.contains("node:internal"),
        "{trace}"
    );
}

#[tokio::test]
async fn causes_are_told_too() {
    let bench = Bench::new();
    let text =
        "def hello():\n    try:\n        {}['a']\n    except KeyError as e:\n        raise ValueError('no a') from e\n";
    let failure = fails(&bench, &bench.python(text, None), "", FailureCode::Exception).await;
    let trace = failure.trace.expect("a trace");
    assert!(
        trace.contains("KeyError: 'a'") && trace.contains("direct cause") && trace.ends_with("ValueError: no a\n"),
        "{trace}"
    );
    let text = "export default () => { throw new Error('outer', { cause: new TypeError('inner') }); };\n";
    let failure = fails(&bench, &bench.node(text, None), "", FailureCode::Exception).await;
    assert!(failure.trace.expect("a trace").contains("Caused by: TypeError: inner"));
}

#[tokio::test]
async fn permanent_and_retry_are_known_by_name() {
    let bench = Bench::new();
    let permanent =
        "class Permanent(Exception): pass\nclass Gone(Permanent): pass\ndef f():\n    raise Gone('no such user')\n";
    let failure = fails(&bench, &bench.python(permanent, None), "", FailureCode::Permanent).await;
    assert_eq!(failure.to_string(), "Gone: no such user");
    for (raised, after) in [
        ("Retry()", None),
        ("Retry(2.5)", Some(2500)),
        ("Retry('busy', 3)", Some(3000)),
        ("Retry('busy')", None),
        ("After(7)", Some(7000)),
        ("Retry(-1)", None),
        ("Retry(float('nan'))", None),
        ("Retry(datetime.timedelta(minutes=1))", None),
    ] {
        let text = format!(
            "import datetime\nclass Retry(Exception): pass\nclass After(Retry):\n    def __init__(self, after):\n        \
             self.after = after\ndef f():\n    raise {raised}\n"
        );
        let failure = fails(&bench, &bench.python(&text, None), "", FailureCode::Retry).await;
        assert_eq!(failure.retry_after_ms, after, "{raised}");
    }
    let node = "class Permanent extends Error {}\nclass Gone extends Permanent {}\nexport default () => { throw new Gone('no'); };\n";
    assert_eq!(fails(&bench, &bench.node(node, None), "", FailureCode::Permanent).await.to_string(), "Gone: no");
    let node = "class Retry extends Error { after = 1.5; }\nexport default async () => { throw new Retry('busy'); };\n";
    assert_eq!(fails(&bench, &bench.node(node, None), "", FailureCode::Retry).await.retry_after_ms, Some(1500));
    let node = "export default () => { throw Object.assign(new Error('no'), { name: 'Permanent' }); };\n";
    fails(&bench, &bench.node(node, None), "", FailureCode::Permanent).await;
}

#[tokio::test]
async fn strange_exceptions_are_still_told() {
    let bench = Bench::new();
    let mute = "class Mute(Exception):\n    def __str__(self):\n        raise RuntimeError\ndef f():\n    raise Mute\n";
    let failure = fails(&bench, &bench.python(mute, None), "", FailureCode::Exception).await;
    assert_eq!(failure.to_string(), "Mute: (its message cannot be read)");
    let surrogate = "def f():\n    raise ValueError('\\udcff' + 'x' * 100000)\n";
    let failure = fails(&bench, &bench.python(surrogate, None), "", FailureCode::Exception).await;
    assert!(failure.message.starts_with("\\udcffxxx") && failure.message.len() < 5000);
    let deep = "def f(n=0):\n    return f(n + 1)\n";
    let failure = fails(&bench, &bench.python(deep, None), "", FailureCode::Exception).await;
    assert_eq!(failure.class.as_deref(), Some("RecursionError"));
    let interrupt = "def f():\n    raise KeyboardInterrupt\n";
    assert_eq!(
        fails(&bench, &bench.python(interrupt, None), "", FailureCode::Exception).await.class.as_deref(),
        Some("KeyboardInterrupt")
    );
    for (thrown, told) in
        [("'text'", "thrown: text"), ("null", "thrown: null"), ("undefined", "thrown: undefined"), ("7n", "thrown: 7")]
    {
        let node = bench.node(&format!("export default () => {{ throw {thrown}; }};\n"), None);
        assert_eq!(fails(&bench, &node, "", FailureCode::Exception).await.message, told);
    }
    let node = bench.node("export default () => { throw { get message() { throw 1; } }; };\n", None);
    fails(&bench, &node, "", FailureCode::Exception).await;
}

#[tokio::test]
async fn an_instance_goes_on_after_an_exception() {
    let bench = Bench::new();
    for function in [
        bench.python("def f(event):\n    return 1 // event\n", None),
        bench.node("export default (event) => { if (!event) throw new Error('no'); return event; };\n", None),
    ] {
        let stage = bench.stage(&function).await;
        let mut instance = stage.start().await;
        let mut context = kvern_runtime::conformance::context(&function, "application/json");
        for (attempt, input) in ["0", "1", "0", "{,", "1"].into_iter().enumerate() {
            context.attempt = attempt as u32 + 1;
            let bytes = kvern_runtime::Input::Bytes(bytes::Bytes::from_static(input.as_bytes()));
            let run = stage.run_with(instance.as_mut(), &context, bytes, Default::default()).await;
            assert_eq!(run.outcome.failure().is_none(), input == "1", "{:?}", run.outcome);
            assert!(instance.is_usable());
        }
        instance.stop(crate::support::GRACE).await;
    }
    assert_eq!(call(&bench, &bench.python("def f(): return 1\n", None), "").await, "1");
}
