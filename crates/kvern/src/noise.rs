//! Tells a save from a file that changes by itself, for `kvern dev`.
//!
//! Whether a person or a program wrote a file cannot be seen. But a person does not save a text five times in ten
//! seconds, and a function that writes `out.txt` beside its code, or a `| tee seen.txt`, would make a reload of each
//! line, and each reload a line. Code is never taken for noise.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kvern_runtime::prepare;
use tokio::time::Instant;

const CHANGES: usize = 5;
const WITHIN: Duration = Duration::from_secs(10);

/// What has changed lately, and what is no longer listened to.
#[derive(Debug, Default)]
pub(crate) struct Noise {
    lately: HashMap<PathBuf, Vec<Instant>>,
    ignored: HashSet<PathBuf>,
}

/// What came of some changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sorted {
    /// What a reload is due to; code, if there is some among it.
    pub(crate) saved: Option<PathBuf>,
    /// From now on ignored.
    pub(crate) noisy: Vec<PathBuf>,
}

// === impl Noise ===

impl Noise {
    /// Sorts changes that came together.
    pub(crate) fn sort(&mut self, changed: BTreeSet<PathBuf>, now: Instant) -> Sorted {
        self.lately.retain(|_, times| times.last().is_some_and(|last| now.duration_since(*last) < WITHIN));
        let (code, rest): (Vec<_>, Vec<_>) = changed.into_iter().partition(|path| is_code(path));
        let mut sorted = Sorted { saved: code.into_iter().next(), noisy: Vec::new() };
        for path in rest.into_iter().filter(|path| !self.ignored.contains(path)).collect::<Vec<_>>() {
            if self.is_noise(&path, now) {
                self.lately.remove(&path);
                self.ignored.insert(path.clone());
                sorted.noisy.push(path);
            } else {
                sorted.saved.get_or_insert(path);
            }
        }
        sorted
    }

    fn is_noise(&mut self, path: &Path, now: Instant) -> bool {
        let times = self.lately.entry(path.to_owned()).or_default();
        times.retain(|time| now.duration_since(*time) < WITHIN);
        times.push(now);
        times.len() >= CHANGES
    }
}

fn is_code(path: &Path) -> bool {
    prepare::is_code_name(path) || path.extension().is_some_and(|ending| ending == "toml")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(paths: &[&str]) -> BTreeSet<PathBuf> {
        paths.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn what_keeps_changing_is_told_once_and_then_ignored() {
        let (mut noise, mut now) = (Noise::default(), Instant::now());
        let mut told = Vec::new();
        for _ in 0..20 {
            now += Duration::from_millis(100);
            told.push(noise.sort(changed(&["out.txt"]), now));
        }
        assert_eq!(told.iter().filter(|sorted| sorted.saved.is_some()).count(), CHANGES - 1);
        assert_eq!(told[CHANGES - 1].noisy, [PathBuf::from("out.txt")]);
        assert!(told[CHANGES..].iter().all(|sorted| *sorted == Sorted::default()));
        assert_eq!(noise.sort(changed(&["a.txt", "hello.py", "out.txt"]), now).saved, Some("hello.py".into()));
    }

    #[test]
    fn a_person_may_save_as_often_as_a_person_can() {
        let (mut noise, mut now) = (Noise::default(), Instant::now());
        for _ in 0..50 {
            now += WITHIN / 4;
            assert_eq!(noise.sort(changed(&["page.html"]), now).saved, Some("page.html".into()));
            assert_eq!(noise.sort(changed(&["hello.py"]), now).saved, Some("hello.py".into()));
        }
        for _ in 0..50 {
            assert_eq!(
                noise.sort(changed(&["kvern.toml"]), now).saved,
                Some("kvern.toml".into()),
                "code is never noise"
            );
        }
    }
}
