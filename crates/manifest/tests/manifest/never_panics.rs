//! No text panics, and every answer points into the text.

use proptest::prelude::*;

use crate::check_text;

/// Checks `text` and looks at whatever comes out.
fn answer(text: &str) -> Result<(), TestCaseError> {
    let Err(mistakes) = check_text(text) else { return Ok(()) };
    prop_assert!(!mistakes.list().is_empty());
    for mistake in mistakes.list() {
        let line = text.split('\n').nth(mistake.line - 1);
        let length = line.map(|line| line.chars().count());
        prop_assert!(length.is_some_and(|length| (1..=length + 1).contains(&mistake.column)), "{mistake:?}");
        prop_assert!(!mistake.message.contains('\n'), "{mistake:?}");
    }
    let (plain, colored) = (mistakes.to_string(), mistakes.render(true));
    prop_assert!(plain.contains(" in app/kvern.toml") && colored.len() >= plain.len());
    Ok(())
}

/// Pieces that are nearly a manifest: most texts made of them get past the TOML parser.
const PIECES: &[&str] = &[
    "[functions.a]\n",
    "[functions.Ä]\n",
    "[[functions]]\n",
    "[server]\n",
    "[a.b]\n",
    "handler",
    "exec",
    "route",
    "mode",
    "timeout",
    "retry",
    "concurrency",
    "scale.min",
    "scale.max",
    "memory",
    "env",
    "max_input",
    "keep",
    "listen",
    "\"\"",
    " = ",
    "\"a.py:f\"\n",
    "\"POST /x\"\n",
    "\"1h\"\n",
    "\"16M\"\n",
    "\"\\u0000\"\n",
    "'''\nx\r\n'''\n",
    "5\n",
    "-1\n",
    "0x1F\n",
    "1e9\n",
    "nan\n",
    "true\n",
    "2026-01-01\n",
    "[]\n",
    "[\"./a\", \"ü\"]\n",
    "{}\n",
    "{ min = 3, max = 2 }\n",
    "{ A = \"b\", KVERN_X = 1 }\n",
    "{",
    "}",
    "[",
    "]",
    "\n",
    "\r\n",
    "\t",
    "# é\n",
    "\u{feff}",
    "\u{1f980}",
    "\"",
];

fn nearly_a_manifest() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(PIECES), 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn on_any_text(text in "\\PC*|(?s:.{0,200})") {
        answer(&text)?;
    }

    #[test]
    fn on_what_is_nearly_a_manifest(text in nearly_a_manifest()) {
        answer(&text)?;
    }

    #[test]
    fn on_any_value_of_any_key(
        key in prop::sample::select(&["handler", "route", "mode", "timeout", "memory", "max_input", "env.A", "retry.x"]),
        value in any::<String>(),
    ) {
        answer(&format!("[functions.a]\n{key} = {}\n", serde_json::Value::from(value)))?;
    }
}
