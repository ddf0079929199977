//! Entries: a key and the job that it made, as rows of `new_keys` and `key_chunks` keep them, one behind the other.
//!
//! An entry is 24 bytes: the 16 of the key, then `jobs.seq`, the greatest byte first. What follows the last whole entry of
//! a row is ignored.

/// A key, its first byte the greatest: a hash already, so that its bits can be taken as they come.
pub(crate) type Key = u128;

/// A key and the job that it made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    /// `jobs.seq`.
    pub(crate) seq: i64,
}

const ENTRY_BYTES: usize = size_of::<Key>() + size_of::<i64>();

// === impl Entry ===

impl Entry {
    fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        let (key, seq) = bytes.split_at_mut(size_of::<Key>());
        key.copy_from_slice(&self.key.to_be_bytes());
        seq.copy_from_slice(&self.seq.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; ENTRY_BYTES]) -> Self {
        let (mut key, mut seq) = ([0; size_of::<Key>()], [0; size_of::<i64>()]);
        let (first, last) = bytes.split_at(size_of::<Key>());
        key.copy_from_slice(first);
        seq.copy_from_slice(last);
        Self { key: Key::from_be_bytes(key), seq: i64::from_be_bytes(seq) }
    }
}

/// As a row keeps them.
pub(super) fn encode(entries: impl Iterator<Item = Entry>) -> Vec<u8> {
    entries.flat_map(Entry::to_bytes).collect()
}

/// What a row keeps.
pub(super) fn decode(row: &[u8]) -> impl DoubleEndedIterator<Item = Entry> + ExactSizeIterator {
    row.as_chunks().0.iter().map(Entry::from_bytes)
}

/// The job of a key in a row that is sorted by key.
pub(super) fn search(row: &[u8], key: &Key) -> Option<i64> {
    let entries = row.as_chunks::<ENTRY_BYTES>().0;
    let found = entries.binary_search_by_key(key, |entry| Entry::from_bytes(entry).key).ok()?;
    Some(Entry::from_bytes(&entries[found]).seq)
}

/// The first four bytes of a key: what the place of a chunk says of its first key.
pub(super) fn top(key: &Key) -> u32 {
    (key >> 96) as u32
}

/// The place of a row: rows of one run lie together, in the order of what is within.
pub(super) fn place(run: i64, within: u32) -> i64 {
    run << 32 | i64::from(within)
}

/// The run in which this place is.
pub(super) fn run_at(place: i64) -> i64 {
    place >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u8) -> Entry {
        Entry { key: Key::from_be_bytes([number; 16]), seq: i64::from(number) << 40 }
    }

    #[test]
    fn a_row_gives_back_its_entries() {
        let entries = [entry(3), entry(5), entry(200)];
        let mut row = encode(entries.into_iter());
        assert_eq!(decode(&row).collect::<Vec<_>>(), entries);
        for wanted in entries {
            assert_eq!(search(&row, &wanted.key), Some(wanted.seq));
        }
        assert_eq!(search(&row, &entry(4).key), None);
        row.truncate(row.len() - 1);
        assert_eq!(decode(&row).collect::<Vec<_>>(), entries[..2], "a torn entry is none");
    }

    #[test]
    fn places_sort_by_run_and_then_within() {
        let places = [place(1, 0), place(1, u32::MAX), place(2, 0), place(2, top(&entry(200).key))];
        assert!(places.is_sorted());
        assert_eq!(places.map(run_at), [1, 1, 2, 2]);
    }
}
