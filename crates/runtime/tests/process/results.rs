//! What functions return.

use kvern_core::{FailureCode, Outcome};
use kvern_runtime::conformance::{Run, context};

use crate::support::Bench;
use crate::{fails, run};

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const BYTES: &str = "application/octet-stream";

async fn returns(bench: &Bench, python: &str) -> Run {
    let function = bench.python(
        &format!("import array, collections\nasync def late(x): return x\ndef f():\n    return {python}\n"),
        Some("f"),
    );
    run(bench, &function, JSON, "").await
}

#[tokio::test]
async fn the_type_of_a_python_value_decides_the_content_type() {
    let bench = Bench::new();
    for (value, text, content_type) in [
        ("None", "null", JSON),
        ("{'a': 'é', 'b': [1, 2.5, True]}", r#"{"a":"é","b":[1,2.5,true]}"#, JSON),
        ("[]", "[]", JSON),
        ("(1, 2)", "[1,2]", JSON),
        ("('a', 'b')", r#"["a","b"]"#, JSON),
        ("7", "7", JSON),
        ("False", "false", JSON),
        ("collections.OrderedDict(a=1)", r#"{"a":1}"#, JSON),
        ("''", "", TEXT),
        ("'é'", "é", TEXT),
        ("b'\\x41'", "A", BYTES),
        ("bytearray(b'A')", "A", BYTES),
        ("memoryview(b'A')", "A", BYTES),
        ("(b'A', 'image/png')", "A", "image/png"),
        ("('<p>', 'text/html')", "<p>", "text/html"),
        ("({'a': 1}, 'application/problem+json')", r#"{"a":1}"#, "application/problem+json"),
        ("late('x')", "x", TEXT),
        ("'x' * 100000", &"x".repeat(100_000), TEXT),
    ] {
        let run = returns(&bench, value).await;
        assert_eq!(run.outcome, Outcome::Succeeded, "{value}");
        assert_eq!(run.output.text(), text, "{value}");
        assert_eq!(run.output.content_type.as_deref(), Some(content_type), "{value}");
    }
}

#[tokio::test]
async fn the_type_of_a_javascript_value_decides_the_content_type() {
    let bench = Bench::new();
    for (value, text, content_type) in [
        ("undefined", "null", JSON),
        ("null", "null", JSON),
        ("({ a: 'é', b: [1] })", r#"{"a":"é","b":[1]}"#, JSON),
        ("[]", "[]", JSON),
        ("7", "7", JSON),
        ("''", "", TEXT),
        ("'é'", "é", TEXT),
        ("Buffer.from('A')", "A", BYTES),
        ("new Uint8Array([65]).buffer", "A", BYTES),
        ("Promise.resolve('x')", "x", TEXT),
        ("new Response('<p>', { headers: { 'content-type': 'text/html' } })", "<p>", "text/html"),
        ("'x'.repeat(100000)", &"x".repeat(100_000), TEXT),
    ] {
        let function = bench.node(&format!("export default () => {value};\n"), None);
        let run = run(&bench, &function, JSON, "").await;
        assert_eq!(run.outcome, Outcome::Succeeded, "{value}");
        assert_eq!(run.output.text(), text, "{value}");
        assert_eq!(run.output.content_type.as_deref(), Some(content_type), "{value}");
    }
    let function = bench.node("export default () => Response.json({ a: 1 }, { status: 418 });\n", None);
    let run = run(&bench, &function, JSON, "").await;
    assert_eq!((run.output.status, run.output.text().as_str()), (Some(418), r#"{"a":1}"#));
    assert_eq!(run.output.content_type.as_deref(), Some(JSON));
}

#[tokio::test]
async fn what_is_no_result_is_said_so() {
    let bench = Bench::new();
    for (value, told) in
        [("object()", "object"), ("{1, 2}", "set"), ("float('nan')", "JSON compliant"), ("{'a': {(1,): 2}}", "keys")]
    {
        let run = returns(&bench, value).await;
        let failure = run.outcome.failure().expect("it is no JSON").clone();
        assert_eq!(failure.code, FailureCode::Exception);
        assert!(failure.message.contains("that is not JSON") && failure.message.contains(told), "{failure}");
    }
    for (value, told) in [("() => 1", "a function"), ("10n", "BigInt"), ("Symbol('x')", "a symbol")] {
        let function = bench.node(&format!("export default () => ({value});\n"), None);
        let failure = fails(&bench, &function, "", FailureCode::Exception).await;
        assert!(failure.message.contains("what is not JSON") && failure.message.contains(told), "{failure}");
    }
}

#[tokio::test]
async fn a_result_beyond_max_output_is_not_even_written_down() {
    let bench = Bench::new();
    for function in [
        bench.python("def f(event):\n    return 'x' * event\n", None),
        bench.node("export default (event) => 'x'.repeat(event);\n", None),
    ] {
        let function = kvern_core::Function { max_output: 200_000, ..function };
        let stage = bench.stage(&function).await;
        let mut instance = stage.start().await;
        for (size, is_taken) in [("200000", true), ("200001", false), ("10000000", false), ("1", true)] {
            let context = context(&function, JSON);
            let input = kvern_runtime::Input::Bytes(bytes::Bytes::from_static(size.as_bytes()));
            let run = stage.run_with(instance.as_mut(), &context, input, Default::default()).await;
            match run.outcome.failure() {
                None => assert!(is_taken && run.output.bytes.len().to_string() == size),
                Some(failure) => {
                    assert!(!is_taken && failure.code == FailureCode::ResultTooLarge, "{failure}");
                    assert!(
                        failure.message.contains("195.3 KiB (200000 bytes); return less, or raise `max_output`"),
                        "{failure}"
                    );
                }
            }
            assert!(instance.is_usable(), "the instance is as good as before");
        }
        instance.stop(crate::support::GRACE).await;
    }
}

#[tokio::test]
async fn a_result_that_cannot_be_written_down_is_no_exception_of_the_function() {
    let bench = Bench::new();
    let python = "import os\ndef f(event):\n    os.rmdir(os.environ['TMPDIR'])\n    return 'x' * 100000\n";
    let node = "import fs from 'node:fs';\nexport default () => {\n  fs.rmdirSync(process.env.TMPDIR);\n  \
                return 'x'.repeat(100000);\n};\n";
    for function in [bench.python(python, None), bench.node(node, None)] {
        let failure = fails(&bench, &function, "1", FailureCode::ResultNotStored).await;
        assert!(failure.message.contains("result could not be written to TMPDIR"), "{failure}");
    }
}
