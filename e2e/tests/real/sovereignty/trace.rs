//! Reads what `strace -ff -y` wrote: which paths were written, and what left the machine.
//!
//! A line that changes the disk or leaves the machine looks like one of these; what failed because there was nothing, or
//! because it was there already, has changed nothing.
//!
//! ```text
//! openat(AT_FDCWD</srv/app>, "data/x", O_WRONLY|O_CREAT|O_TRUNC, 0666) = 3</srv/app/data/x>
//! renameat(AT_FDCWD</srv/app>, "a", 7</srv/data>, "b") = 0
//! connect(5<socket:[1]>, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("192.0.2.1")}, 16) = -1 ENETUNREACH
//! ```

use std::path::{Component, Path, PathBuf};

/// Something that changes the disk or leaves the machine.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Deed {
    /// What is changed; empty for the network.
    pub(super) paths: Vec<PathBuf>,
    /// Whether it is meant for another machine.
    pub(super) leaves: bool,
    /// As it stands in the trace.
    pub(super) line: String,
}

const WRITES: [&str; 6] = ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND", "O_TMPFILE"];
const CHANGED_NOTHING: [&str; 2] = ["ENOENT", "EEXIST"];

/// All deeds in the traces of a folder; relative paths of calls that do not tell begin at `home`.
pub(super) fn deeds(folder: &Path, home: &Path) -> Vec<Deed> {
    let traces = std::fs::read_dir(folder).expect("the traces").flatten().map(|entry| entry.path());
    let traces = traces.filter(|path| path.file_stem().is_some_and(|stem| stem == "trace"));
    let texts = traces.map(|path| String::from_utf8_lossy(&std::fs::read(path).expect("a trace")).into_owned());
    texts.flat_map(|text| text.lines().filter_map(|line| deed(line, home)).collect::<Vec<_>>()).collect()
}

fn deed(line: &str, home: &Path) -> Option<Deed> {
    let (call, rest) = line.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ").unwrap_or((rest, ""));
    if CHANGED_NOTHING.iter().any(|error| result.contains(error)) {
        return None;
    }
    let is_network = call == "connect" || call.starts_with("send");
    let paths = match call {
        _ if is_network => Vec::new(),
        "open" | "openat" | "openat2" if !WRITES.iter().any(|flag| arguments.contains(flag)) => return None,
        "open" | "openat" | "openat2" | "creat" => match opened(result) {
            Some(path) => vec![path],
            None => named(arguments, home),
        },
        // Its first text is what the link says, and nothing is done there.
        "symlink" | "symlinkat" => named(arguments, home).split_off(1),
        _ => named(arguments, home),
    };
    let leaves = is_network && is_foreign(arguments);
    (leaves || !is_network).then(|| Deed { paths, leaves, line: line.to_owned() })
}

/// The path of a descriptor that a call gave.
fn opened(result: &str) -> Option<PathBuf> {
    let (_, path) = result.split_once('<')?;
    Some(lexical(Path::new(path.trim_end_matches("(deleted)").trim_end_matches('>'))))
}

/// The paths among the arguments: each text, below the folder that stands before it.
fn named(arguments: &str, home: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    let mut rest = arguments;
    while let Some((before, after)) = rest.split_once('"') {
        let Some((text, after)) = after.split_once('"') else { break };
        let folder = before.trim_end_matches([',', ' ']).strip_suffix('>').and_then(|b| b.rsplit_once('<'));
        let base = folder.map_or(home, |(_, folder)| Path::new(folder));
        paths.push(lexical(&base.join(text)));
        rest = after;
    }
    paths
}

/// The path without `.` and `..`.
fn lexical(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut so_far, part| {
        match part {
            Component::ParentDir => _ = so_far.pop(),
            Component::CurDir => {}
            other => so_far.push(other),
        }
        so_far
    })
}

/// Whether an internet address is named that is not loopback.
fn is_foreign(arguments: &str) -> bool {
    let is_internet = arguments.contains("sa_family=AF_INET");
    let is_loopback = arguments.contains("inet_addr(\"127.") || arguments.contains("\"::1\"");
    is_internet && !is_loopback
}

#[test]
fn the_trace_is_read_right() {
    let home = Path::new("/srv/app");
    let read = |line: &str| deed(line, home).map(|deed| (deed.paths, deed.leaves));
    let path = |text: &str| Some((vec![PathBuf::from(text)], false));
    let opened =
        |flags: &str, result: &str| read(&format!("openat(AT_FDCWD</srv/app>, \"data/x\", {flags}) = {result}"));
    assert_eq!(opened("O_WRONLY|O_CREAT, 0666", "3</srv/app/data/x>"), path("/srv/app/data/x"));
    assert_eq!(opened("O_WRONLY|O_CREAT, 0666", "-1 EROFS (Read-only file system)"), path("/srv/app/data/x"));
    assert_eq!(opened("O_RDONLY|O_CLOEXEC", "3</srv/app/data/x>"), None);
    assert_eq!(read("mkdir(\"../other\", 0777) = 0"), path("/srv/other"));
    assert_eq!(read("mkdir(\"/var\", 0777) = -1 EEXIST (File exists)"), None);
    assert_eq!(read("symlink(\"/etc/passwd\", \"link\") = 0"), path("/srv/app/link"));
    let two = Some((vec![PathBuf::from("/srv/app/a"), PathBuf::from("/srv/data/b")], false));
    assert_eq!(read("renameat(AT_FDCWD</srv/app>, \"a\", 7</srv/data>, \"b\") = 0"), two);
    let connect = |address: &str| read(&format!("connect(5<s:[1]>, {{{address}}}, 16) = -1 ENETUNREACH (no route)"));
    assert_eq!(connect("sa_family=AF_INET, sin_addr=inet_addr(\"192.0.2.1\")"), Some((Vec::new(), true)));
    assert_eq!(connect("sa_family=AF_INET, sin_addr=inet_addr(\"127.0.0.1\")"), None);
    assert_eq!(connect("sa_family=AF_UNIX, sun_path=\"/run/x\""), None);
}
