//! Filters: which runs may have a key, asked of memory alone.
//!
//! Each run has a Bloom filter (Bloom 1970): 16 bits for each of its keys, 8 of which a key sets. A run has a key only if
//! all 8 are set, and of the keys that it does not have it seems to have one in 1,700. In memory the filters of 64 runs lie
//! across (as in BitFunnel, SIGIR 2017): one word for each position, in which each run has a bit. So a key that is new, as
//! almost all are, costs 8 words for 64 runs together.
//!
//! A filter in `key_runs` is invalid if its positions are no power of two.

use super::entry::Key;

/// At least so many positions for each key, so that a full run has 16: ten million keys take 20 MB of memory.
const POSITIONS_PER_KEY_MIN: usize = 12;
/// Positions that a key sets.
const POSITIONS_SET: u64 = 8;
/// Runs of a group: the bits of a word.
const GROUP_RUNS: usize = 64;

/// The filter of one run.
#[derive(Debug)]
pub(crate) struct Filter {
    words: Vec<u64>,
}

/// The filters of all runs.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    groups: Vec<Group>,
}

/// The filters of up to 64 runs.
#[derive(Debug)]
struct Group {
    runs: [Option<i64>; GROUP_RUNS],
    /// By position: bit `r` is that of `runs[r]`.
    across: Vec<u64>,
}

// === impl Filter ===

impl Filter {
    /// An empty one that is large enough for so many keys.
    pub(crate) fn for_keys(keys: usize) -> Self {
        let positions = (keys.max(1) * POSITIONS_PER_KEY_MIN).next_power_of_two().max(64);
        Self { words: vec![0; positions / 64] }
    }

    pub(crate) fn insert(&mut self, key: &Key) {
        for at in positions(key, self.positions()) {
            self.words[at / 64] |= 1 << (at % 64);
        }
    }

    fn positions(&self) -> usize {
        self.words.len() * 64
    }

    /// As `key_runs` keeps it.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// From what `key_runs` keeps; none if that is no filter.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.as_chunks();
        let is_valid = rest.is_empty() && words.len().is_power_of_two();
        is_valid.then(|| Self { words: words.iter().map(|word| u64::from_le_bytes(*word)).collect() })
    }
}

// === impl Filters ===

impl Filters {
    /// Runs that may have this key, the newest first.
    pub(crate) fn candidates(&self, key: &Key) -> Vec<i64> {
        let mut runs: Vec<i64> = self.groups.iter().flat_map(|group| group.candidates(key)).collect();
        runs.sort_unstable_by(|a, b| b.cmp(a));
        runs
    }

    pub(crate) fn add(&mut self, run: i64, filter: &Filter) {
        let fits = |group: &Group| group.across.len() == filter.positions() && group.runs.contains(&None);
        let at = self.groups.iter().position(fits).unwrap_or_else(|| {
            self.groups.push(Group { runs: [None; GROUP_RUNS], across: vec![0; filter.positions()] });
            self.groups.len() - 1
        });
        self.groups[at].add(run, filter);
    }

    pub(crate) fn remove(&mut self, run: i64) {
        for group in &mut self.groups {
            group.remove(run);
        }
        self.groups.retain(|group| group.runs.iter().any(Option::is_some));
    }
}

// === impl Group ===

impl Group {
    fn candidates(&self, key: &Key) -> impl Iterator<Item = i64> {
        // All of them at once: the memory is far, and the eight ways there need not wait for each other.
        let mut left = positions(key, self.across.len()).fold(u64::MAX, |all, at| all & self.across[at]);
        std::iter::from_fn(move || {
            let bit = (left != 0).then(|| left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some(bit)
        })
        .filter_map(|bit| self.runs[bit])
    }

    fn add(&mut self, run: i64, filter: &Filter) {
        let Some(bit) = self.runs.iter().position(Option::is_none) else { return };
        self.runs[bit] = Some(run);
        for (word, across) in filter.words.iter().zip(self.across.chunks_exact_mut(64)) {
            for (at, across) in across.iter_mut().enumerate() {
                *across |= (word >> at & 1) << bit;
            }
        }
    }

    fn remove(&mut self, run: i64) {
        for bit in 0..GROUP_RUNS {
            if self.runs[bit] == Some(run) {
                self.runs[bit] = None;
                self.across.iter_mut().for_each(|across| *across &= !(1 << bit));
            }
        }
    }
}

/// Where a key is in a filter with so many positions, a power of two. The two halves of a hash are as good as eight
/// hashes (Kirsch and Mitzenmacher 2006).
fn positions(key: &Key, count: usize) -> impl Iterator<Item = usize> {
    let (first, step) = (*key as u64, (key >> 64) as u64 | 1);
    (0..POSITIONS_SET).map(move |at| first.wrapping_add(step.wrapping_mul(at)) as usize & (count - 1))
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

    use super::*;

    const KEYS: u64 = 4096;

    fn key(number: u64) -> Key {
        let half = |half: u8| u128::from(BuildHasherDefault::<DefaultHasher>::new().hash_one((number, half)));
        half(0) << 64 | half(1)
    }

    fn filter_of(keys: impl Iterator<Item = u64>) -> Filter {
        let mut filter = Filter::for_keys(KEYS as usize);
        keys.for_each(|number| filter.insert(&key(number)));
        Filter::from_bytes(&filter.to_bytes()).expect("it was a filter")
    }

    /// Run `r` has the keys from `KEYS * r` on.
    fn filters(runs: u64) -> Filters {
        let mut filters = Filters::default();
        for run in 0..runs {
            filters.add(run.cast_signed(), &filter_of(KEYS * run..KEYS * (run + 1)));
        }
        filters
    }

    #[test]
    fn every_run_is_a_candidate_for_its_keys_and_for_few_others() {
        // Two groups.
        let filters = filters(70);
        for number in (0..KEYS * 70).step_by(7) {
            let run = (number / KEYS).cast_signed();
            assert!(filters.candidates(&key(number)).contains(&run), "key {number} of run {run}");
        }
        let others = 10_000;
        let false_ones: usize = (0..others).map(|number| filters.candidates(&key(KEYS * 70 + number)).len()).sum();
        let share = false_ones as f64 / (others * 70) as f64;
        assert!(share < 1.0 / 1000.0, "one in {:.0}", 1.0 / share);
    }

    #[test]
    fn candidates_come_newest_first_and_a_removed_run_is_none() {
        let mut filters = Filters::default();
        for run in [1, 2, 3] {
            filters.add(run, &filter_of(0..10));
        }
        assert_eq!(filters.candidates(&key(5)), [3, 2, 1]);
        filters.remove(2);
        assert_eq!(filters.candidates(&key(5)), [3, 1]);
        filters.add(4, &filter_of(20..30));
        assert_eq!(filters.candidates(&key(5)), [3, 1], "the bit of the removed run begins anew");
        for run in [1, 3, 4] {
            filters.remove(run);
        }
        assert!(filters.groups.is_empty(), "and no memory is kept for none");
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for bytes in [0, 7, 24, 129] {
            assert!(Filter::from_bytes(&vec![0; bytes]).is_none(), "{bytes} bytes");
        }
    }
}
