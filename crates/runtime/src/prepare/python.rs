//! `requirements.txt` beside a Python handler.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::contract::{PrepareError, Progress};

use super::install::{self, Job};
use super::version::Fields;
use super::{Interpreter, Settings, copy, failed, rule};

/// The file.
pub(super) const REQUIREMENTS: &str = "requirements.txt";
/// Deepest chain of files that name each other with `-r`.
const DEPTH_MAX: usize = 10;

/// The name of the folder that the requirements of a handler in `folder` are installed into; none if there are none.
///
/// It is a hash of the interpreter, the file, the files that it names with `-r` and `-c`, and the local packages that
/// it names by path.
pub(super) fn packages(
    settings: &Settings,
    folder: &Path,
    python: &Interpreter,
) -> Result<Option<String>, PrepareError> {
    let file = folder.join(REQUIREMENTS);
    if !file.is_file() {
        return Ok(None);
    }
    let mut reader =
        Reader { folder, data_dir: &settings.data_dir, fields: Fields::new("kvern python 1"), requirements: 0 };
    reader.fields.put(python.version.as_bytes());
    reader.fields.put(python.abi.as_bytes());
    reader.file(&file, 0)?;
    let (requirements, fields) = (reader.requirements, reader.fields);
    Ok((requirements > 0).then(|| format!("python-{}", fields.short())))
}

/// Installs the requirements with uv, or else with pip.
pub(super) async fn install(
    settings: &Settings,
    function: &str,
    folder: &Path,
    (python, packages): (&Interpreter, &str),
    progress: &dyn Progress,
) -> Result<(), PrepareError> {
    let job = Job {
        function,
        what: REQUIREMENTS,
        packages,
        stage: &|_| Ok(()),
        command: &|target| command(settings, folder, python, target),
        explain: &|words| explain(words, python),
    };
    install::install(settings, &job, progress).await
}

fn command(settings: &Settings, folder: &Path, python: &Interpreter, target: &Path) -> Command {
    // Both compile to byte code: the packages are imported by every instance that starts.
    let mut command = if let Some(uv) = &settings.uv {
        let mut command = Command::new(uv);
        command.args(["pip", "install", "--compile-bytecode", "--no-progress", "--color", "never", "--python"]);
        command.arg(&python.program);
        command
    } else {
        let mut command = Command::new(settings.pip.as_ref().unwrap_or(&python.program));
        if settings.pip.is_none() {
            command.args(["-m", "pip"]);
        }
        command.args(["install", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]);
        command.args(["--no-color", "--no-warn-script-location", "--root-user-action", "ignore"]);
        command
    };
    // Relative paths in the file are seen from its folder. Two habits of pip's users forbid what is wanted here.
    command.current_dir(folder).env("PIP_REQUIRE_VIRTUALENV", "0").env("PIP_USER", "0");
    command.arg("--target").arg(absolute(target)).arg("--requirement").arg(REQUIREMENTS);
    command
}

/// What the last words of pip or uv mean.
fn explain(words: &str, python: &Interpreter) -> String {
    let program = python.program.display();
    if words.contains("No module named pip") {
        return format!(
            "{REQUIREMENTS} is to be installed with pip, and {program} has none. Try: apt install python3-pip, or \
             {program} -m ensurepip, or install uv"
        );
    }
    let is_offline =
        ["NewConnectionError", "ConnectTimeoutError", "NameResolutionError", "dns error", "client error (Connect)"];
    let requirement = refused(words);
    let named = requirement.as_deref().map_or_else(String::new, |name| format!("{name} of "));
    let reason = if install::found_no_room(words) {
        "the disk is full"
    } else if is_offline.iter().any(|sign| words.contains(sign)) {
        "the package index cannot be reached"
    } else if words.contains("Failed building") || words.contains("Failed to build") {
        "it has no wheel for this machine and could not be built here"
    } else if requirement.is_some() {
        "there is no such package or version for this Python; check its name and version"
    } else {
        "see the last lines of the installer"
    };
    format!("{named}{REQUIREMENTS} cannot be installed for Python {}: {reason}", python.version)
}

/// The requirement that pip or uv names in what it says.
fn refused(words: &str) -> Option<String> {
    const SIGNS: [(&str, &[char]); 8] = [
        ("No matching distribution found for ", &['\n']),
        ("satisfies the requirement ", &['(', '\n']),
        ("Invalid requirement: '", &['\'', '\n']),
        ("Failed building wheel for ", &['\n']),
        ("Failed to build `", &['`', '\n']),
        ("Failed to build ", &['\n']),
        ("there is no version of ", &[' ', ',', '\n']),
        ("Because ", &[' ', '\n']),
    ];
    let find = |&(sign, ends): &(&str, &[char])| {
        let (_, rest) = words.rsplit_once(sign)?;
        let name = rest.split(ends).next()?.trim();
        (!name.is_empty()).then(|| name.chars().take(200).collect())
    };
    SIGNS.iter().find_map(find)
}

// === impl Reader ===

/// Reads requirement files into a hash.
struct Reader<'a> {
    folder: &'a Path,
    data_dir: &'a Path,
    fields: Fields,
    requirements: usize,
}

/// What one line of a requirements file asks for.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    /// `-r base.txt`: that file too.
    File(&'a str),
    /// `./mypackage` or `-e ../mypackage`: the package in that folder or file.
    Local(&'a str),
    /// `pillow==11`.
    Package,
    /// An empty line, a comment, another option.
    Other,
}

impl Reader<'_> {
    fn file(&mut self, path: &Path, depth: usize) -> Result<(), PrepareError> {
        let text = match fs::read(path) {
            // The installer says it better: it knows the line that names the file.
            Err(_) if depth > 0 => return Ok(()),
            text => text.map_err(|e| failed(format!("cannot read {}", path.display()), &e))?,
        };
        self.fields.put(&text);
        for line in String::from_utf8_lossy(&text).lines() {
            match Line::read(line) {
                Line::File(name) if depth < DEPTH_MAX => {
                    // Named from the file that names it.
                    self.file(&path.parent().unwrap_or(self.folder).join(name), depth + 1)?;
                }
                Line::Local(name) => self.local(&self.folder.join(name))?,
                Line::Package => self.requirements += 1,
                Line::File(_) | Line::Other => {}
            }
        }
        Ok(())
    }

    fn local(&mut self, path: &Path) -> Result<(), PrepareError> {
        self.requirements += 1;
        let plan = if path.is_dir() { rule::plan(path, None, self.data_dir)? } else { rule::Plan::one_file(path) };
        self.fields.put_contents(&copy::hash(&plan)?);
        Ok(())
    }
}

impl<'a> Line<'a> {
    fn read(line: &'a str) -> Self {
        let line = line.split(" #").next().unwrap_or_default().trim();
        if line.is_empty() || line.starts_with('#') {
            return Self::Other;
        }
        for option in ["--requirement", "--constraint", "-r", "-c"] {
            if let Some(name) = line.strip_prefix(option) {
                return Self::File(name.trim_start_matches(['=', ' ', '\t']));
            }
        }
        let editable = ["--editable", "-e"].iter().find_map(|option| line.strip_prefix(option));
        let named = editable.unwrap_or(line).trim_start_matches(['=', ' ', '\t']);
        let place = named.split_once("file:").map_or(named, |(_, place)| place.trim_start_matches("//"));
        let place = place.split([' ', ';', '[']).next().unwrap_or_default();
        let is_local = place.starts_with(['.', '/']) || (editable.is_some() && !named.contains("://"));
        match line.starts_with('-') && editable.is_none() {
            true => Self::Other,
            false if is_local => Self::Local(place),
            false => Self::Package,
        }
    }
}

// === helpers ===

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_asks_for_a_package_a_file_or_a_folder() {
        let cases = [
            ("", Line::Other),
            ("  # pillow", Line::Other),
            ("pillow==11.0 # for thumbnails", Line::Package),
            ("requests[socks] >= 2 ; python_version > '3.8'", Line::Package),
            ("git+https://example.org/x.git", Line::Package),
            ("-r base.txt", Line::File("base.txt")),
            ("--requirement=base.txt", Line::File("base.txt")),
            ("-cbounds.txt", Line::File("bounds.txt")),
            ("--index-url https://example.org/simple", Line::Other),
            ("--find-links ./wheels", Line::Other),
            ("./mypackage[fast]", Line::Local("./mypackage")),
            ("-e ../mypackage", Line::Local("../mypackage")),
            ("-e git+https://example.org/x.git", Line::Package),
            ("mine @ file:///opt/mine.whl", Line::Local("/opt/mine.whl")),
        ];
        for (line, expected) in cases {
            assert_eq!(Line::read(line), expected, "{line}");
        }
    }

    #[test]
    fn the_installers_words_name_the_requirement() {
        let cases = [
            (
                "ERROR: Could not find a version that satisfies the requirement nosuch==9 (from versions: none)\n\
                 ERROR: No matching distribution found for nosuch==9\n",
                Some("nosuch==9"),
            ),
            ("ERROR: Invalid requirement: 'a b' (from line 1 of requirements.txt)", Some("a b")),
            ("  ERROR: Failed building wheel for lxml\nERROR: Could not build wheels", Some("lxml")),
            ("  × No solution found:\n  ╰─▶ Because nosuch was not found in the package registry", Some("nosuch")),
            ("  cause: Because there is no version of nosuch==9 and you require nosuch==9, we can", Some("nosuch==9")),
            ("ERROR: something else", None),
        ];
        for (words, expected) in cases {
            assert_eq!(refused(words).as_deref(), expected, "{words}");
        }
    }
}
