//! The oldest interpreters that we promise. Node.js 18 runs the tests of this folder in `scripts/test`; a Python 3.9 is
//! hard to come by, so its grammar and library are held against the shim by a later one.

use std::path::Path;
use std::process::Command;

const SHIM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/shim/python.py");

/// What the script finds in a Python file, or that it does not parse.
fn later_than_3_9(file: &Path) -> Result<String, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/process/oldest_python.py");
    let output = Command::new("python3").arg(script).arg(file).output().expect("python3 runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[test]
fn the_python_shim_is_for_3_9() {
    let later = later_than_3_9(Path::new(SHIM)).expect("the grammar is that of 3.9");
    assert_eq!(later, "", "later than 3.9, or not in the list of oldest_python.py");
}

#[test]
fn what_is_later_than_3_9_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("shim.py");
    let found = |text: &str| {
        std::fs::write(&file, text).expect("a file");
        later_than_3_9(&file)
    };
    let refused = found("match 1:\n    case 1:\n        pass\n").expect_err("a match statement");
    assert!(refused.contains("Python 3.10"), "{refused}");
    let text = "import sys\nfrom asyncio import TaskGroup\nanext(sys.stdlib_module_names)\nzip([], strict=True)\n";
    assert_eq!(found(text), Ok("anext\nasyncio.TaskGroup\nstrict=\nsys.stdlib_module_names".to_owned()));
    assert_eq!(found("import os\nos.path.join('a', 'b')\n"), Ok(String::new()));
}
