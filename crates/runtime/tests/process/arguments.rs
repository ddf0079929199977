//! What reaches the function, and what is said when it does not fit.

use kvern_core::{FailureCode, Outcome};

use crate::support::Bench;
use crate::{call, fails, run};

#[tokio::test]
async fn a_json_object_becomes_keyword_arguments() {
    let bench = Bench::new();
    let greet =
        bench.python("def greet(name, greeting='Hello', *, mark='!'):\n    return f'{greeting} {name}{mark}'\n", None);
    assert_eq!(call(&bench, &greet, r#"{"name":"Ada"}"#).await, "Hello Ada!");
    assert_eq!(call(&bench, &greet, r#"{"mark":"?","name":"é","greeting":"Hi"}"#).await, "Hi é?");
    let any = bench.python("def f(**all):\n    return sorted(all)\n", None);
    assert_eq!(call(&bench, &any, r#"{"b":1,"a":2}"#).await, r#"["a","b"]"#);
    let event = bench.python("def f(event):\n    return event\n", None);
    assert_eq!(call(&bench, &event, r#"{"b":1,"a":[null]}"#).await, r#"{"b":1,"a":[null]}"#);
    let lambda = bench.python("def f(event, context):\n    return [event, context.job_id]\n", None);
    assert_eq!(call(&bench, &lambda, r#"{"b":1}"#).await, r#"[{"b":1},"01890a5d-ac96-774b-bcce-b302099a8057"]"#);
    let only_positions = bench.python("def f(a, b=2, /, c=3):\n    return [a, b, c]\n", None);
    assert_eq!(call(&bench, &only_positions, r#"{"a":1,"c":4}"#).await, "[1,2,4]");
}

#[tokio::test]
async fn what_is_no_object_is_the_one_argument() {
    let bench = Bench::new();
    let f = bench.python("def f(values, times=1):\n    return values * times\n", None);
    assert_eq!(call(&bench, &f, "[1,2]").await, "[1,2]");
    assert_eq!(call(&bench, &f, "\"a\"").await, "a");
    let with_context = bench.python("def f(ctx, value):\n    return [ctx.attempt, value]\n", None);
    assert_eq!(call(&bench, &with_context, "7").await, "[1,7]");
    let keyword = bench.python("def f(value, *, context):\n    return [context.attempt, value]\n", None);
    assert_eq!(call(&bench, &keyword, "7").await, "[1,7]");
    let none = bench.python("def f():\n    return 'none'\n", None);
    assert_eq!(call(&bench, &none, "").await, "none");
    assert_eq!(call(&bench, &none, "{}").await, "none");
    let failure = fails(&bench, &none, "[1]", FailureCode::BadInput).await;
    assert_eq!(failure.message, "f() cannot take an input that is no JSON object as its one argument");
    let two = bench.python("def f(a, b):\n    pass\n", None);
    let failure = fails(&bench, &two, "[1]", FailureCode::BadInput).await;
    assert_eq!(failure.message, "f(a, b) cannot take an input that is no JSON object as its one argument");
}

#[tokio::test]
async fn arguments_that_do_not_fit_are_named_with_the_signature() {
    let bench = Bench::new();
    let text = "def greet(name, greeting='Hello'):\n    raise TypeError('my own')\n";
    let greet = bench.python(text, None);
    let failure = fails(&bench, &greet, r#"{"nam":"Ada"}"#, FailureCode::BadInput).await;
    assert_eq!(
        failure.message,
        "greet(name, greeting='Hello') does not take `nam` and needs `name`; did you mean `name`?"
    );
    let failure = fails(&bench, &greet, "", FailureCode::BadInput).await;
    assert_eq!(failure.message, "greet(name, greeting='Hello') needs `name`");
    // A TypeError of the function itself is something else.
    let failure = fails(&bench, &greet, r#"{"name":"Ada"}"#, FailureCode::Exception).await;
    assert_eq!(failure.to_string(), "TypeError: my own");
    let failure =
        fails(&bench, &bench.python("def f(a, ctx): pass\n", None), r#"{"a":1,"ctx":2}"#, FailureCode::BadInput).await;
    assert!(failure.message.contains("does not take `ctx`"), "{failure}");
    let slip = bench.python("def handler(event, contxt): pass\n", None);
    let failure = fails(&bench, &slip, r#"{"event":1}"#, FailureCode::BadInput).await;
    assert_eq!(failure.message, "handler(event, contxt) needs `contxt`; did you mean `context` by `contxt`?");
}

#[tokio::test]
async fn decorated_and_bound_functions_are_understood() {
    let bench = Bench::new();
    let decorated = "import functools\n\ndef twice(f):\n    @functools.wraps(f)\n    def g(*a, **k):\n        \
                     return f(*a, **k) * 2\n    return g\n\n@twice\ndef hello(name):\n    return name\n";
    let function = bench.python(decorated, Some("hello"));
    assert_eq!(call(&bench, &function, r#"{"name":"a"}"#).await, "aa");
    assert_eq!(fails(&bench, &function, "{}", FailureCode::BadInput).await.message, "hello(name) needs `name`");
    let bound = "class Tool:\n    def run(self, a):\n        return a\n    def __call__(self, b):\n        return b\n\n\
                 run = Tool().run\ntool = Tool()\n";
    assert_eq!(call(&bench, &bench.python(bound, Some("run")), r#"{"a":5}"#).await, "5");
    assert_eq!(call(&bench, &bench.python(bound, Some("tool")), r#"{"b":6}"#).await, "6");
    assert_eq!(
        call(&bench, &bench.python("from json import dumps as run\nfrom math import hypot\n", Some("hypot")), "5")
            .await,
        "5.0"
    );
}

#[tokio::test]
async fn json_that_does_not_parse_names_the_place() {
    let bench = Bench::new();
    let python = bench.python("def f(event): pass\n", None);
    let failure = fails(&bench, &python, "{\"a\":\n 1,,}", FailureCode::BadInput).await;
    assert!(failure.message.starts_with("the input is not JSON: "), "{failure}");
    assert!(failure.message.ends_with("at line 2, column 4"), "{failure}");
    let node = bench.node("export default (event) => event;\n", None);
    let failure = fails(&bench, &node, "{\"a\":\n 1,,}", FailureCode::BadInput).await;
    assert!(failure.message.starts_with("the input is not JSON: "), "{failure}");
    assert!(failure.message.contains("line 2") && failure.message.contains("column 4"), "{failure}");
}

#[tokio::test]
async fn the_content_type_decides_between_json_and_bytes() {
    let bench = Bench::new();
    let text = "def f(event, ctx):\n    return [type(event).__name__, ctx.content_type]\n";
    let python = bench.python(text, None);
    let text = "export default (event, ctx) => [event?.constructor.name ?? null, ctx.content_type];\n";
    let node = bench.node(text, None);
    let form = "application/x-www-form-urlencoded";
    for (content_type, input, in_python, in_node) in [
        ("", "{}", "dict", "Object"),
        ("application/json", "{}", "dict", "Object"),
        ("application/json; charset=utf-8", "{}", "dict", "Object"),
        ("Application/Vnd.Api+JSON;x=y", "{}", "dict", "Object"),
        ("text/plain", "{}", "bytes", "Buffer"),
        ("image/png", "{}", "bytes", "Buffer"),
        // What curl says of everything that is sent with -d.
        (form, "{}", "dict", "Object"),
        (form, "[]", "list", "Array"),
        (form, "a=b", "bytes", "Buffer"),
    ] {
        for (function, expected) in [(&python, in_python), (&node, in_node)] {
            let run = run(&bench, function, content_type, input).await;
            assert_eq!(run.outcome, Outcome::Succeeded);
            let shown = if content_type.is_empty() { "null".to_owned() } else { format!("\"{content_type}\"") };
            assert_eq!(run.output.text(), format!("[\"{expected}\",{shown}]"));
        }
    }
    let keywords = bench.python("def f(name, size): pass\n", None);
    let run = run(&bench, &keywords, "text/plain", "hi").await;
    let failure = run.outcome.failure().expect("it cannot take bytes");
    assert_eq!(failure.code, FailureCode::BadInput);
    assert!(failure.message.contains("send JSON with `Content-Type: application/json`"), "{failure}");
}

#[tokio::test]
async fn the_context_says_what_the_environment_says() {
    let bench = Bench::new();
    let text = "import os\n\ndef f(ctx):\n    env = lambda n: os.environ['KVERN_' + n]\n    \
                assert env('JOB_ID') == ctx.job_id and env('FUNCTION') == ctx.function\n    \
                assert env('ATTEMPT') == str(ctx.attempt) and env('ATTEMPTS_MAX') == str(ctx.attempts_max)\n    \
                assert env('DEADLINE_MS') == str(ctx.deadline_ms) and env('CONTENT_TYPE') == ctx.content_type\n    \
                assert ctx.max_attempts == 5 and ctx.remaining_ms() > 1000\n    \
                assert 'KVERN_FD' not in os.environ\n    return ctx.deadline_ms\n";
    assert_eq!(call(&bench, &bench.python(text, None), "").await, "4000000000000");
    let text = "import assert from 'node:assert';\nexport default (_, ctx) => {\n  const env = (n) => process.env['KVERN_' + n];\n  \
                assert.equal(env('JOB_ID'), ctx.job_id); assert.equal(env('FUNCTION'), ctx.function);\n  \
                assert.equal(env('ATTEMPT'), ctx.attempt); assert.equal(env('ATTEMPTS_MAX'), ctx.attempts_max);\n  \
                assert.equal(env('DEADLINE_MS'), ctx.deadline_ms); assert.equal(env('CONTENT_TYPE'), ctx.content_type);\n  \
                assert.ok(ctx.max_attempts === 5 && ctx.remaining_ms() > 1000 && env('FD') === undefined);\n  \
                return ctx.deadline_ms;\n};\n";
    assert_eq!(call(&bench, &bench.node(text, None), "").await, "4000000000000");
}
