//! Bad manifests, and the exact answer to each.

use kvern_manifest::Mistakes;

use crate::check_text;

fn mistakes(text: &str) -> Mistakes {
    check_text(text).expect_err(text)
}

/// One line per mistake: `LINE:COLUMN MESSAGE (HINT)`.
fn in_short(text: &str) -> String {
    let mistakes = mistakes(text);
    let lines = mistakes.list().iter().map(|mistake| {
        let hint = mistake.hint.as_ref().map_or(String::new(), |hint| format!(" ({hint})"));
        format!("{}:{} {}{hint}", mistake.line, mistake.column, mistake.message)
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn all_mistakes_are_shown_at_once_each_with_its_line_and_a_caret() {
    let text = r#"[functions.hello]
handler = "hello.py:hello"
timout = "30s"
retry = { attempts = 0, backof = "1s" }

[functions.thumbs]
exec = "./thumbs --all"
timeout = 30
"#;
    let rendered = r#"error: unknown key `functions.hello.timout`
 --> app/kvern.toml:3:1
  |
3 | timout = "30s"
  | ^^^^^^
  |
  = help: did you mean `timeout`?

error: `functions.hello.retry.attempts` must be between 1 and 100, not 0
 --> app/kvern.toml:4:22
  |
4 | retry = { attempts = 0, backof = "1s" }
  |                      ^

error: unknown key `functions.hello.retry.backof`
 --> app/kvern.toml:4:25
  |
4 | retry = { attempts = 0, backof = "1s" }
  |                         ^^^^^^
  |
  = help: did you mean `backoff`?

error: `functions.thumbs.exec` must be an array of strings, not the string "./thumbs --all"
 --> app/kvern.toml:7:8
  |
7 | exec = "./thumbs --all"
  |        ^^^^^^^^^^^^^^^^
  |
  = help: write `["./thumbs", "--all"]`

error: `functions.thumbs.timeout` must be a duration such as "30s", not the integer 30
 --> app/kvern.toml:8:11
  |
8 | timeout = 30
  |           ^^
  |
  = help: with its unit it is `"30s"` or `"30ms"`

5 mistakes in app/kvern.toml"#;
    assert_eq!(mistakes(text).to_string(), rendered);
}

#[test]
fn color_adds_codes_and_nothing_else() {
    let mistakes = mistakes("[functions.a]\nhandler = 5\n");
    let (plain, colored) = (mistakes.render(false), mistakes.render(true));
    assert!(!plain.contains('\u{1b}') && colored.contains('\u{1b}'));
    let mut stripped = String::new();
    for (at, part) in colored.split("\u{1b}[").enumerate() {
        stripped.push_str(if at == 0 { part } else { part.split_once('m').expect("a code ends in m").1 });
    }
    assert_eq!(stripped, plain);
}

#[test]
fn positions_count_characters_in_lines_of_any_kind() {
    let text = "\u{feff}[functions.a]\r\n\thandler = \"a.py:f\"\r\nenv = { \"Grüße\" = 5, PORT = 8080 }\r\n";
    let rendered = r#"error: `functions.a.env.Grüße` must be a string, not the integer 5
 --> app/kvern.toml:3:19
  |
3 | env = { "Grüße" = 5, PORT = 8080 }
  |                   ^
  |
  = help: write it in quotes: `"5"`

error: `functions.a.env.PORT` must be a string, not the integer 8080
 --> app/kvern.toml:3:29
  |
3 | env = { "Grüße" = 5, PORT = 8080 }
  |                             ^^^^
  |
  = help: write it in quotes: `"8080"`

2 mistakes in app/kvern.toml"#;
    assert_eq!(mistakes(text).to_string(), rendered);
    assert_eq!((mistakes(text).list()[0].line, mistakes(text).list()[0].column), (3, 19));
}

#[test]
fn of_very_many_mistakes_the_first_hundred_are_shown() {
    let text: String = (0..250).map(|n| format!("key_{n} = 1\n")).collect();
    let mistakes = mistakes(&text);
    assert_eq!(mistakes.list().len(), 100);
    assert!(mistakes.to_string().ends_with("\n\n250 mistakes in app/kvern.toml, the first 100 shown"));
}

#[test]
fn a_text_of_any_size_is_answered() {
    let text = "#".repeat(kvern_manifest::MANIFEST_BYTES_MAX + 1);
    assert_eq!(in_short(&text), "1:1 a manifest has at most 1048576 bytes, this text has 1048577");
}

/// The table: what stands in a function that is otherwise right, and the answer.
#[test]
fn each_key_has_its_answer() {
    for (line, answer) in FUNCTION_LINES {
        let text = format!("[functions.a]\nhandler = \"a.py:f\"\n{line}\n");
        assert_eq!(in_short(&text), *answer, "{line}");
    }
}

/// The table: whole manifests, and the answer.
#[test]
fn each_manifest_has_its_answer() {
    for (text, answer) in MANIFESTS {
        assert_eq!(in_short(text), *answer, "{text}");
    }
}

const FUNCTION_LINES: &[(&str, &str)] = &[
    ("retries = 3", "3:1 unknown key `functions.a.retries` (did you mean `retry`?)"),
    (r#"Timeout = "3s""#, "3:1 unknown key `functions.a.Timeout` (did you mean `timeout`?)"),
    (
        r#"image = "alpine""#,
        "3:1 unknown key `functions.a.image` (known here are `handler`, `exec`, `route`, `mode`, `timeout`, `retry`, `concurrency`, `scale`, `memory`, `env`, `max_input`, `max_output`, `max_queued` and `keep`)",
    ),
    (r#"timeout = "0s""#, "3:11 `functions.a.timeout` must be between 1ms and 24h, not 0s"),
    (r#"timeout = "25h""#, "3:11 `functions.a.timeout` must be between 1ms and 24h, not 25h"),
    (
        r#"timeout = "30""#,
        r#"3:11 `functions.a.timeout` must be a duration such as "30s", not the string "30" (with its unit it is `"30s"` or `"30ms"`)"#,
    ),
    (
        r#"timeout = "5M""#,
        r#"3:11 `functions.a.timeout` must be a duration such as "30s", not the string "5M" (the units are ms, s, m, h and d, as in "1h 30m")"#,
    ),
    ("timeout = true", r#"3:11 `functions.a.timeout` must be a duration such as "30s", not the boolean true"#),
    (
        "timeout = 2026-01-01",
        r#"3:11 `functions.a.timeout` must be a duration such as "30s", not the datetime 2026-01-01"#,
    ),
    (
        "retry = 3",
        "3:9 `functions.a.retry` must be a table, `{ attempts, backoff, max_backoff, jitter }`, not the integer 3",
    ),
    ("retry = { attempts = 101 }", "3:22 `functions.a.retry.attempts` must be between 1 and 100, not 101"),
    (
        r#"retry.attempts = "3""#,
        r#"3:18 `functions.a.retry.attempts` must be a whole number, not the string "3" (write it without quotes: `3`)"#,
    ),
    (
        r#"retry = { backoff = "2m", max_backoff = "1m" }"#,
        "3:41 `functions.a.retry.max_backoff` (1m) is shorter than `backoff` (2m)",
    ),
    (r#"retry = { jitter = "yes" }"#, r#"3:20 `functions.a.retry.jitter` must be true or false, not the string "yes""#),
    ("concurrency = 0", "3:15 `functions.a.concurrency` must be between 1 and 1024, not 0"),
    ("concurrency = 1025", "3:15 `functions.a.concurrency` must be between 1 and 1024, not 1025"),
    ("concurrency = 1.5", "3:15 `functions.a.concurrency` must be a whole number, not the float 1.5"),
    (
        "concurrency = 99999999999999999999",
        "3:15 `functions.a.concurrency` must be a whole number, not the integer 99999999999999999999 (it is too large for 64 bits)",
    ),
    (
        "concurrency = 2
scale = { max = 8 }",
        "4:17 `functions.a.scale.max` (8) is more than `concurrency` (2) (an instance runs one job at a time, so the rest would never be used)",
    ),
    (
        "concurrency = 2
scale = { min = 3 }",
        "4:17 `functions.a.scale.min` (3) is more than `concurrency` (2)",
    ),
    ("scale = { min = 3, max = 2 }", "3:17 `functions.a.scale.min` (3) is more than `scale.max` (2)"),
    ("scale = { max = 0 }", "3:17 `functions.a.scale.max` must be between 1 and 1024, not 0"),
    ("memory = 256", r#"3:10 `functions.a.memory` must be at least 1M, not 256 (did you mean `"256M"`?)"#),
    (
        r#"memory = "256 megs""#,
        r#"3:10 `functions.a.memory` must be a size such as "16M", not the string "256 megs" (a whole number with k, M, G or T (powers of 1024), or of bytes)"#,
    ),
    ("memory = -1", r#"3:10 `functions.a.memory` must be a size such as "16M", not the integer -1"#),
    (r#"env = ["A=B"]"#, "3:7 `functions.a.env` must be a table, not an array (each entry of it is a string)"),
    (
        "env = { DEBUG = true }",
        r#"3:17 `functions.a.env.DEBUG` must be a string, not the boolean true (write it in quotes: `"true"`)"#,
    ),
    (
        r#"env = { KVERN_TOKEN = "x", "A=B" = "x", "" = "x", Z = "\u0000" }"#,
        "3:9 the environment variable `KVERN_TOKEN` belongs to the server: `KVERN_` names tell a function about its job
3:28 the environment variable `A=B` contains a `=` or a zero byte
3:41 the environment variable `` is empty
3:51 the environment variable `Z` has a value with a zero byte, which no process can be given",
    ),
    ("max_input = 0", "3:13 `functions.a.max_input` must be between 1 and 1T, not 0"),
    (r#"max_output = "2T""#, "3:14 `functions.a.max_output` must be between 1 and 1T, not 2T"),
    (r#"max_queued = "1M""#, r#"3:14 `functions.a.max_queued` must be a whole number, not the string "1M""#),
    (
        r#"keep = { succeeded = "4000d", faild = "1d" }"#,
        "3:22 `functions.a.keep.succeeded` must be between 0s and 3650d, not 4000d
3:31 unknown key `functions.a.keep.faild` (did you mean `failed`?)",
    ),
    (
        r#"mode = "asynch""#,
        r#"3:8 `functions.a.mode` must be "async" or "sync", not "asynch" (did you mean `"async"`?)"#,
    ),
    (r#"mode = "batch""#, r#"3:8 `functions.a.mode` must be "async" or "sync", not "batch""#),
    (
        r#"route = "/submit""#,
        r#"3:9 `functions.a.route` must begin with `GET`, `POST`, `PUT`, `PATCH` or `DELETE`, not the path (write `"POST /submit"`)"#,
    ),
    (
        r#"route = "post /submit""#,
        r#"3:9 `functions.a.route` must begin with `GET`, `POST`, `PUT`, `PATCH` or `DELETE`, not "post" (write `"POST /submit"`)"#,
    ),
    (
        r#"route = "HEAD /submit""#,
        r#"3:9 `functions.a.route` must begin with `GET`, `POST`, `PUT`, `PATCH` or `DELETE`, not "HEAD" (write `"POST /submit"`)"#,
    ),
    (r#"route = "POST""#, r#"3:9 `functions.a.route`: the path must begin with `/` (as in `"POST /submit-job"`)"#),
    (
        r#"route = "POST submit""#,
        r#"3:9 `functions.a.route`: the path must begin with `/` (as in `"POST /submit-job"`)"#,
    ),
    (
        r#"route = "POST /jobs/{id}""#,
        "3:9 `functions.a.route`: the path may not contain '{' (a route is a plain path: letters, digits and punctuation, no placeholders, no query)",
    ),
    (
        r#"route = "POST /a//b""#,
        "3:9 `functions.a.route`: the path has an empty, `.` or `..` segment (write the path as clients send it)",
    ),
    (
        r#"route = "POST /v1/jobs""#,
        "3:9 `functions.a.route`: the path lies under `/v1`, which belongs to the server (choose another first segment)",
    ),
    (
        r#"route = "fetch /metrics""#,
        r#"3:9 `functions.a.route` must begin with `GET`, `POST`, `PUT`, `PATCH` or `DELETE`, not "fetch" (write `"POST /path"`)
3:9 `functions.a.route`: the path lies under `/metrics`, which belongs to the server (choose another first segment)"#,
    ),
    (
        r#"exec = ["./a"]"#,
        "3:8 `functions.a` has both `handler` and `exec` (a function is entered in one way: remove one of them)",
    ),
];

const MANIFESTS: &[(&str, &str)] = &[
    (
        "[functions.a]
",
        r#"1:12 `functions.a` says nothing to run (add `handler = "file.py:function"` or `exec = ["./program"]`)"#,
    ),
    (
        r#"[functions.Image_Upload]
exec = ["./a"]
"#,
        "1:12 `Image_Upload` is not a function name: 1 to 63 characters a-z, 0-9, `-` or `_`, beginning with a letter (`image_upload` would be one)",
    ),
    (
        r#"[functions."9 lives"]
exec = []
"#,
        "1:12 `9 lives` is not a function name: 1 to 63 characters a-z, 0-9, `-` or `_`, beginning with a letter (`lives` would be one)
2:8 `functions.9 lives.exec` must name a program, not be empty",
    ),
    (
        r#"[functions.a]
exec = [""]
"#,
        "2:8 `functions.a.exec` must begin with the name of a program",
    ),
    (
        r#"[functions.a]
exec = ["./a", 5]
"#,
        r#"2:16 `functions.a.exec[1]` must be a string, not the integer 5 (write it in quotes: `"5"`)"#,
    ),
    (
        r#"[functions.a]
handler = "tasks.resize"
"#,
        r#"2:11 `functions.a.handler` must name a file that ends in .py, .mjs, .js or .cjs, not "tasks.resize" (did you mean `tasks.py:resize`?)"#,
    ),
    (
        r#"[functions.a]
handler = "tasks:resize"
"#,
        r#"2:11 `functions.a.handler` must name a file that ends in .py, .mjs, .js or .cjs, not "tasks" (did you mean `tasks.py:resize`?)"#,
    ),
    (
        r#"[functions.a]
handler = "run.sh"
"#,
        r#"2:11 `functions.a.handler` must name a file that ends in .py, .mjs, .js or .cjs, not "run.sh" (other programs run with `exec = ["./program"]`)"#,
    ),
    (
        r#"[functions.a]
handler = ".py:f"
"#,
        r#"2:11 `functions.a.handler` must name a file that ends in .py, .mjs, .js or .cjs, not ".py" (other programs run with `exec = ["./program"]`)"#,
    ),
    (
        r#"[functions.a]
handler = "a.py:f()"
"#,
        r#"2:11 `functions.a.handler` must name a function after the `:`, not "f()" (write `file:function`, or the file alone)"#,
    ),
    (
        r#"[functions]
a = "a.py:f"
"#,
        r#"2:5 `functions.a` must be a table, `[functions.NAME]`, not the string "a.py:f""#,
    ),
    (
        r#"[[functions]]
name = "a"
"#,
        "1:1 `functions` must be a table, not an array of tables (each entry of it is a table, `[functions.NAME]`)",
    ),
    (
        "functions = 3
",
        "1:13 `functions` must be a table, not the integer 3 (each entry of it is a table, `[functions.NAME]`)",
    ),
    (
        r#"[function.a]
handler = "a.py:f"
"#,
        "1:2 unknown key `function` (did you mean `functions`?)",
    ),
    (
        r#"[hello]
handler = "a.py:f"
"#,
        "1:2 unknown key `hello` (a function is written as `[functions.hello]`)",
    ),
    (
        r#"timeout = "3s"
"#,
        "1:1 unknown key `timeout` (known here are `functions` and `server`)",
    ),
    (
        r#"[functions.b]
exec = ["./b"]
route = "POST /x"
[functions.a]
exec = ["./a"]
route = "POST  /x"
"#,
        "6:9 `functions.a.route`: POST /x is already the route of `b`, line 3 (give one of them another path or another method)",
    ),
    (
        r#"[server]
listen = "8080"
data = "~/kvern"
queue = " "
port = 80
"#,
        r#"2:10 `server.listen` is not an address to listen on: "8080" (as in `"127.0.0.1:8080"` or `"[::1]:8080"`; a name is not looked up)
3:8 `server.data`: `~` is a word of the shell and means nothing here (write the path from `/`, or one that begins at this folder)
4:9 `server.queue` is empty (remove the line to get the default)
5:1 unknown key `server.port` (known here are `listen`, `data`, `queue` and `hosts`)"#,
    ),
    (
        "[server]\nlisten = \"myhost:8080\"\nqueue = \"redis://localhost\"\n",
        "2:10 `server.listen` is not an address to listen on: \"myhost:8080\" (as in `\"127.0.0.1:8080\"` or `\"[::1]:8080\"`; a name is not looked up)\n\
         3:9 `server.queue`: \"redis://localhost\" is not a queue that this version has (write `\"sqlite\"`, or remove the line: it is the default)",
    ),
    (
        "[server]\nhosts = [\"kvern.lan\", \"http://kvern.lan:80\"]\n",
        "2:9 `server.hosts[1]` must be the name of a host, not \"http://kvern.lan:80\" (as in `kvern.example.org`: no `http://`, no port, no `*`)",
    ),
    (
        r#"[server]
listen = "::1:8080"
[functions.a]
timeout =
"#,
        r#"2:10 `server.listen` is not an address to listen on: "::1:8080" (as in `"127.0.0.1:8080"` or `"[::1]:8080"`; a name is not looked up)
4:10 a value is missing here"#,
    ),
    (
        "[functions.a]
handler =
",
        "2:10 a value is missing here",
    ),
    (
        r#"[functions.a]
timeout = 30s
timeout = "30s"
foo = 1
bar
"#,
        r#"2:11 text must stand in quotes: 30s (write `"30s"`)
3:1 `timeout` is given twice in the same table (remove one of them)
4:1 unknown key `functions.a.foo` (known here are `handler`, `exec`, `route`, `mode`, `timeout`, `retry`, `concurrency`, `scale`, `memory`, `env`, `max_input`, `max_output`, `max_queued` and `keep`)
5:4 this is not TOML: key with no value, expected `=`"#,
    ),
    (
        r#"[functions.a
exec = ["./a"]
foo = 1
"#,
        "1:13 this is not TOML: unclosed table, expected `]`",
    ),
    (
        r#"[functions.a]
exec = ["./a"
foo = 1
[functions.b]
"#,
        "3:1 this is not TOML: missing comma between array elements, expected `,`",
    ),
    (
        r#"[functions.a]
exec = ["./a]
"#,
        "2:14 this is not TOML: unclosed array, expected `]`",
    ),
    (
        r#"[functions.a]
exec = ["./a"]
[functions.a]
exec = ["./b"]
"#,
        "3:12 `a` is given twice in the same table (remove one of them)
4:1 `exec` is given twice in the same table (remove one of them)",
    ),
];
