//! The functions of one file without a manifest: each public function of a Python file, else the file itself.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use kvern_core::limits::NAME_BYTES_MAX;
use kvern_core::{Door, Language};
use kvern_manifest::Manifest;

use crate::exit::{Code, Stop};

/// The endings of files that hold functions, in the order of languages.
const PYTHON: &[&str] = &["py"];
const NODE: &[&str] = &["mjs", "js", "cjs"];

/// What the name of a function begins with if its own beginning is not a letter.
const PREFIX: &str = "f-";

/// Prints the names of the public functions of a Python file, one a line, without running it.
const LIST_FUNCTIONS: &str = "\
import ast, sys
tree = ast.parse(open(sys.argv[1], 'rb').read(), sys.argv[1])
for node in tree.body:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith('_'):
        print(node.name)
";

/// Whether a file, by its ending, is one that we ship a shim for.
pub(crate) fn is_code(file: &Path) -> bool {
    has_ending(file, PYTHON) || has_ending(file, NODE)
}

/// What the file declares, with the defaults of a manifest.
pub(crate) fn read(file: &Path) -> Result<Manifest, Stop> {
    let name = file.file_name().unwrap_or_default().to_str().ok_or_else(|| {
        Stop::usage(format!("the name of {} is not UTF-8", file.display())).hint("give the file another name")
    })?;
    let stem = Path::new(name).file_stem().unwrap_or_default().to_string_lossy();
    let handler = |language, entry| Door::Handler { language, file: name.into(), entry };
    let doors = if has_ending(file, PYTHON) {
        let functions = python_functions(file)?.into_iter();
        functions.map(|function| (function.clone(), handler(Language::Python, Some(function)))).collect()
    } else if has_ending(file, NODE) {
        vec![(stem.into_owned(), handler(Language::Node, None))]
    } else {
        vec![(stem.into_owned(), Door::Exec { argv: vec![format!("./{name}")] })]
    };
    with_defaults(file, doors)
}

/// Only the defaults come from the manifest's checker: a name or a path in its text would have to be quoted.
fn with_defaults(file: &Path, doors: Vec<(String, Door)>) -> Result<Manifest, Stop> {
    let names = function_names(&doors.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>());
    let text = names.iter().fold(String::new(), |mut text, name| {
        let _ = writeln!(text, "[functions.{name}]\nexec = [\"replaced-below\"]");
        text
    });
    let mut manifest = crate::manifest::check(&text, file)?;
    for (function, (_, door)) in manifest.functions.iter_mut().zip(doors) {
        function.door = door;
    }
    Ok(manifest)
}

/// A name of a function of Kvern for each of these, all different. What is a good name already is kept.
fn function_names(given: &[&str]) -> Vec<String> {
    let is_good = |name: &str| name.parse::<kvern_core::FunctionName>().is_ok();
    let mut taken: BTreeSet<String> = given.iter().filter(|name| is_good(name)).map(ToString::to_string).collect();
    let mut name_of = |name: &&str| {
        if is_good(name) {
            return (*name).to_owned();
        }
        let base = derived(name);
        let numbered = (2..).map(|n| format!("{}-{n}", &base[..base.len().min(NAME_BYTES_MAX - 8)]));
        let free = std::iter::once(base.clone()).chain(numbered).find(|name| !taken.contains(name));
        let free = free.unwrap_or_default();
        taken.insert(free.clone());
        free
    };
    given.iter().map(&mut name_of).collect()
}

/// The nearest name: in lower case, with a `-` for what a name cannot have.
fn derived(given: &str) -> String {
    let mut name = String::new();
    for c in given.to_lowercase().chars() {
        match c {
            'a'..='z' | '0'..='9' | '_' => name.push(c),
            _ if name.ends_with('-') => {}
            _ => name.push('-'),
        }
    }
    let trimmed = name.trim_matches('-');
    let begins_well = trimmed.starts_with(|c: char| c.is_ascii_lowercase());
    let mut name = match trimmed {
        "" => "function".to_owned(),
        _ if begins_well => trimmed.to_owned(),
        _ => format!("{PREFIX}{trimmed}"),
    };
    name.truncate(NAME_BYTES_MAX);
    name
}

fn python_functions(file: &Path) -> Result<Vec<String>, Stop> {
    let python = Command::new("python3").args(["-c", LIST_FUNCTIONS]).arg(file).output();
    let output = python.map_err(|error| {
        Stop::failed(format!("cannot run python3: {error}")).hint("install it: apt-get install python3")
    })?;
    if !output.status.success() {
        let trace = String::from_utf8_lossy(&output.stderr);
        let mut stop = Stop::failed(format!("{} does not parse", file.display()));
        for line in trace.lines().skip_while(|line| !line.contains(&*file.to_string_lossy())) {
            stop = stop.hint(line);
        }
        return Err(stop);
    }
    // Of two with one name, Python knows the last: they are one function.
    let mut names: Vec<String> = Vec::new();
    for name in String::from_utf8_lossy(&output.stdout).lines() {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    if names.is_empty() {
        return Err(Stop::new(Code::Usage, format!("{} defines no public function", file.display()))
            .hint("write one: def hello(name: str = \"world\"): return {\"hello\": name}"));
    }
    Ok(names)
}

fn has_ending(file: &Path, endings: &[&str]) -> bool {
    file.extension().and_then(|ending| ending.to_str()).is_some_and(|ending| endings.contains(&ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_becomes_one_that_a_function_can_have() {
        let long = "X".repeat(200);
        let cases = [
            ("hello", "hello"),
            ("Hello", "hello"),
            ("my.tool", "my-tool"),
            ("2fa", "f-2fa"),
            ("my  tool!", "my-tool"),
            ("größe", "gr-e-2"),
            ("gr e", "gr-e"),
            ("函数", "function"),
            ("_", "f-_"),
            (long.as_str(), &"x".repeat(NAME_BYTES_MAX)),
        ];
        for (given, _) in cases {
            let name = derived(given);
            assert!(name.parse::<kvern_core::FunctionName>().is_ok(), "{given} becomes {name}");
        }
        let apart = ["gr e", "größe"].map(|given| cases.iter().find(|(g, _)| *g == given).expect("a case").1);
        assert_eq!(function_names(&["gr e", "größe"]), apart);
        for (given, expected) in cases.iter().filter(|(given, _)| *given != "größe") {
            assert_eq!(function_names(&[given]), [*expected]);
        }
    }

    #[test]
    fn a_good_name_keeps_itself_and_the_others_are_numbered() {
        assert_eq!(function_names(&["Hello", "hello", "HELLO"]), ["hello-2", "hello", "hello-3"]);
        let long = "x".repeat(NAME_BYTES_MAX);
        let names = function_names(&[&long, &long.to_uppercase()]);
        assert!(names[0] == long && names[1].parse::<kvern_core::FunctionName>().is_ok(), "{names:?}");
    }

    #[test]
    fn a_file_of_any_name_is_served() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, function) in [
            ("my.tool.sh", "my-tool"),
            ("2fa.sh", "f-2fa"),
            ("my tool.mjs", "my-tool"),
            ("a:b.mjs", "a-b"),
            ("\"quoted\".sh", "quoted"),
            ("back\\slash\n.sh", "back-slash"),
        ] {
            let file = folder.path().join(name);
            std::fs::write(&file, "").expect("written");
            let manifest = read(&file).unwrap_or_else(|stop| panic!("{name}: {stop}"));
            let [only] = &manifest.functions[..] else { panic!("{name}: {:?}", manifest.functions) };
            assert_eq!((only.name.as_str(), only.home.as_path()), (function, folder.path()));
            let runs = match &only.door {
                Door::Handler { file, .. } => file.display().to_string(),
                Door::Exec { argv } => argv[0].trim_start_matches("./").to_owned(),
            };
            assert_eq!(runs, name);
        }
    }
}
