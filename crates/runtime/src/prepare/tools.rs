//! The programs that `prepare` needs: where they are, and whether they are new enough.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kvern_core::Language;
use rustix::fs::Access;
use tokio::process::Command;

use crate::contract::PrepareError;

use super::{environment, error, failed};

/// Where versions are kept, and which tools make and run them.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The data directory: copies go to `versions/` in it, installed requirements to `packages/`.
    pub data_dir: PathBuf,
    /// The Python that runs handlers; none if there is none.
    pub python: Option<PathBuf>,
    /// The Node.js that runs handlers; none if there is none.
    pub node: Option<PathBuf>,
    /// Installs `package.json`; none if there is none.
    pub npm: Option<PathBuf>,
    /// Installs `requirements.txt` if it is there: it is several times faster than pip.
    pub uv: Option<PathBuf>,
    /// Installs `requirements.txt` if there is no uv; none means `python -m pip`.
    pub pip: Option<PathBuf>,
    /// A binary that calls [`crate::jail_main`] when its first argument is `__jail`: the server's own.
    pub jail: PathBuf,
    /// The time that one installation may take. Default 10 minutes: the largest wheels over a slow line.
    pub install_timeout: Duration,
    /// How often a long installation says that it still runs. Default 5 seconds.
    pub progress_every: Duration,
    checked: Checked,
}

/// The interpreter of a language, as checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interpreter {
    /// The program itself and not a version manager's shim, which would cost tens of milliseconds per instance.
    pub program: PathBuf,
    /// Its version, such as `3.11.7`.
    pub version: String,
    /// What compiled packages must fit: interpreter and machine, such as `cpython-311 x86_64`.
    pub abi: String,
}

/// What was found once: asking an interpreter costs a process.
type Checked = Arc<Mutex<HashMap<(PathBuf, PathBuf), Interpreter>>>;

/// The time for an interpreter to say its version: much, because the first start on a cold disk is slow.
const CHECK_TIMEOUT: Duration = Duration::from_secs(30);

/// Each prints version, ABI, machine and the program itself, a line each. Python 2 can read it too, and is refused
/// for its version.
const ASK_PYTHON: &str = "import sys, os; \
    print('%d.%d.%d' % sys.version_info[:3]); \
    print(getattr(getattr(sys, 'implementation', None), 'cache_tag', None)); \
    print(os.uname()[4]); \
    print(sys.executable)";
const ASK_NODE: &str = "const { process: p } = globalThis; \
    console.log([p.versions.node, 'node-' + p.versions.modules, p.arch, p.execPath].join('\\n'))";

/// The interpreter that runs handlers of this language in this working directory (version managers choose by it).
///
/// # Errors
/// [`PrepareError`] if it is missing or too old: Python 3.9 and Node.js 18 are the oldest.
pub async fn interpreter(settings: &Settings, language: Language, home: &Path) -> Result<Interpreter, PrepareError> {
    let (program, needed) = match language {
        Language::Python => (&settings.python, PYTHON),
        Language::Node => (&settings.node, NODE),
    };
    let Some(program) = program else {
        return Err(error(format!("there is no {} on PATH, and the function needs {needed}", needed.program)));
    };
    let key = (program.clone(), home.to_path_buf());
    if let Some(known) = settings.checked.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return Ok(known.clone());
    }
    let found = ask(program, needed, home).await?;
    settings.checked.lock().unwrap_or_else(PoisonError::into_inner).insert(key, found.clone());
    Ok(found)
}

/// Finds a program on PATH.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let is_program = |path: &PathBuf| path.is_file() && rustix::fs::access(path, Access::EXEC_OK).is_ok();
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(is_program)
}

// === impl Settings ===

impl Settings {
    /// Settings for this data directory, with the tools that are on PATH now.
    ///
    /// The jail is `/proc/self/exe`: the running binary also when the file was replaced by an upgrade.
    #[must_use]
    pub fn new(data_dir: PathBuf) -> Self {
        Self {
            data_dir,
            python: find("python3"),
            node: find("node"),
            npm: find("npm"),
            uv: find("uv"),
            pip: None,
            jail: PathBuf::from("/proc/self/exe"),
            install_timeout: Duration::from_secs(600),
            progress_every: Duration::from_secs(5),
            checked: Checked::default(),
        }
    }
}

// === helpers ===

/// What a language needs.
#[derive(Clone, Copy)]
struct Needed {
    name: &'static str,
    program: &'static str,
    at_least: (u32, u32),
    ask: &'static [&'static str],
    get: &'static str,
}

const PYTHON: Needed = Needed {
    name: "Python",
    program: "python3",
    at_least: (3, 9),
    ask: &["-I", "-S", "-c", ASK_PYTHON],
    get: "apt install python3",
};
const NODE: Needed = Needed {
    name: "Node.js",
    program: "node",
    at_least: (18, 0),
    ask: &["-e", ASK_NODE],
    get: "apt install nodejs, or https://nodejs.org/en/download",
};

impl std::fmt::Display for Needed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, at_least: (major, minor), get, .. } = self;
        match minor {
            0 => write!(f, "{name} {major} or later. Try: {get}"),
            _ => write!(f, "{name} {major}.{minor} or later. Try: {get}"),
        }
    }
}

async fn ask(program: &Path, needed: Needed, home: &Path) -> Result<Interpreter, PrepareError> {
    let mut command = Command::new(program);
    command.args(needed.ask).env_clear().envs(environment::of_tool());
    command.current_dir(home).stdin(Stdio::null()).kill_on_drop(true);
    let shown = program.display();
    let output = tokio::time::timeout(CHECK_TIMEOUT, command.output())
        .await
        .map_err(|_| error(format!("{shown} did not say its version within {} s", CHECK_TIMEOUT.as_secs())))?
        .map_err(|e| cannot_run(program, needed, &e))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let [version, tag, machine, itself] = lines[..] else {
        let message = format!("{shown} did not say its version ({}), and the function needs {needed}", output.status);
        let detail = Some(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        return Err(PrepareError { detail, ..error(message) });
    };
    if !is_at_least(version, needed.at_least) {
        return Err(error(format!("{shown} is {} {version}, and the function needs {needed}", needed.name)));
    }
    // An embedded Python may not know where it is.
    let program = if itself.is_empty() { program } else { Path::new(itself) };
    Ok(Interpreter { program: program.into(), version: version.into(), abi: format!("{tag} {machine}") })
}

/// A machine that has no room for one more process has the interpreter all the same.
fn cannot_run(program: &Path, needed: Needed, why: &io::Error) -> PrepareError {
    let shown = program.display();
    let is_bad = matches!(why.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied)
        || why.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error());
    match is_bad {
        true => failed(format!("cannot run {shown}, and the function needs {needed}"), why),
        false => failed(format!("cannot run {shown}"), why),
    }
}

fn is_at_least(version: &str, (major, minor): (u32, u32)) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_interpreter_is_to_be_installed() {
        let said = |errno: rustix::io::Errno| cannot_run(Path::new("/bin/python3"), PYTHON, &errno.into()).message;
        assert!(said(rustix::io::Errno::NOENT).contains("Try: apt install python3"));
        let full = said(rustix::io::Errno::MFILE);
        assert!(full.starts_with("cannot run /bin/python3: Too many open files"), "{full}");
    }
}
