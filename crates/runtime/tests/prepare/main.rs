//! `prepare`: what makes a version, what is copied, what is installed, and what is left when it breaks off.

mod exec;
mod node;
mod python;
mod rule;
mod store;
mod version;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use kvern_core::{Door, Function, Keep, Language, Mode, RetryPolicy, Scale};
use kvern_runtime::prepare::{Settings, prepare};
use kvern_runtime::{FunctionVersion, PrepareError, Progress};
use tempfile::TempDir;

/// A home with files, a data directory, and a function that is prepared from the one into the other.
struct World {
    folder: TempDir,
    settings: Settings,
    function: Function,
    seen: Seen,
}

/// Keeps what whoever waits is told, and answers one line by something that happens.
#[derive(Default)]
struct Seen {
    lines: Mutex<Vec<String>>,
    answer: Mutex<Option<Answer>>,
}

/// What is done at the first line that holds these words.
type Answer = (&'static str, Box<dyn FnOnce() + Send>);

impl World {
    /// A function whose handler is `home/hello.py`.
    fn python() -> Self {
        let world = Self::with(handler(Language::Python, "hello.py"));
        world.write("hello.py", "def main(name='you'):\n    return f'hello {name}'\n");
        world
    }

    /// A function whose handler is `home/hello.mjs`.
    fn node() -> Self {
        let world = Self::with(handler(Language::Node, "hello.mjs"));
        world.write("hello.mjs", "export default () => 'hello';\n");
        world
    }

    /// A function that is a program.
    fn exec(argv: &[&str]) -> Self {
        Self::with(Door::Exec { argv: argv.iter().map(|&argument| argument.to_owned()).collect() })
    }

    fn with(door: Door) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("home")).expect("a home");
        let mut settings = Settings::new(folder.path().join("state"));
        settings.uv = None;
        settings.jail = env!("CARGO_BIN_EXE_kvern-test-jail").into();
        let function = function(door, folder.path().join("home"));
        Self { folder, settings, function, seen: Seen::default() }
    }

    fn home(&self) -> &Path {
        &self.function.home
    }

    fn data_dir(&self) -> &Path {
        &self.settings.data_dir
    }

    /// Writes a file of the home, with its folders.
    fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.home().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        fs::write(&path, text).expect("a file");
        path
    }

    /// Writes an executable file of the home.
    fn write_program(&self, path: &str, text: &str) -> PathBuf {
        let path = self.write(path, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("permissions");
        path
    }

    /// Makes a file of the home that has this size and no content.
    fn write_hollow(&self, path: &str, size: u64) {
        let path = self.write(path, "");
        fs::File::options().write(true).open(path).and_then(|file| file.set_len(size)).expect("a hollow file");
    }

    async fn prepare(&self) -> Result<FunctionVersion, PrepareError> {
        prepare(&self.settings, &self.function, &self.seen).await
    }

    async fn prepared(&self) -> FunctionVersion {
        self.prepare().await.unwrap_or_else(|e| panic!("{e}\n{:?}", e.detail))
    }

    async fn version(&self) -> String {
        self.prepared().await.version.to_string()
    }

    async fn refused(&self) -> PrepareError {
        self.prepare().await.expect_err("this cannot be prepared")
    }
}

impl Seen {
    fn answer(&self, words: &'static str, answer: impl FnOnce() + Send + 'static) {
        *self.answer.lock().expect("no panic") = Some((words, Box::new(answer)));
    }

    fn lines_with(&self, words: &str) -> Vec<String> {
        let lines = self.lines.lock().expect("no panic");
        lines.iter().filter(|line| line.contains(words)).cloned().collect()
    }
}

impl Progress for Seen {
    fn step(&self, line: &str) {
        self.lines.lock().expect("no panic").push(line.to_owned());
        let answer = self.answer.lock().expect("no panic").take_if(|(words, _)| line.contains(*words));
        if let Some((_, answer)) = answer {
            answer();
        }
    }
}

fn handler(language: Language, file: &str) -> Door {
    Door::Handler { language, file: file.into(), entry: Some("main".to_owned()) }
}

fn function(door: Door, home: PathBuf) -> Function {
    Function {
        name: "hello".parse().expect("a name"),
        door,
        home,
        route: None,
        mode: Mode::Async,
        timeout: Duration::from_secs(60),
        retry: RetryPolicy::default(),
        concurrency: 1,
        scale: Scale { min: 0, max: 1, idle: Duration::from_secs(60) },
        memory: None,
        env: Vec::new(),
        max_input: 1 << 20,
        max_output: 1 << 20,
        max_queued: 100,
        keep: Keep { succeeded: Duration::from_secs(60), failed: Duration::from_secs(60), ..Keep::default() },
    }
}

/// The paths of all files below a folder, sorted; links are files.
fn files_of(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(at) = folders.pop() {
        for entry in at.read_dir().expect("a folder").map(|entry| entry.expect("an entry")) {
            if entry.file_type().expect("a type").is_dir() {
                folders.push(entry.path());
            } else {
                files.push(entry.path().strip_prefix(folder).expect("below").display().to_string());
            }
        }
    }
    files.sort();
    files
}

/// Runs a program to its end and gives back what it said.
fn run(program: impl AsRef<std::ffi::OsStr>, arguments: &[&std::ffi::OsStr], home: &Path) -> String {
    let output = Command::new(program).args(arguments).current_dir(home).output().expect("a program");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Whether a tool is here; its absence is loud, and in CI a failure.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn is_here(tool: Option<&PathBuf>, name: &str) -> bool {
    assert!(tool.is_some() || std::env::var("CI").as_deref() != Ok("true"), "CI needs {name}");
    if tool.is_none() {
        eprintln!("SKIPPED, and not passed: there is no {name} here");
    }
    tool.is_some()
}
