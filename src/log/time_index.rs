//! The time index of a segment: from which offset on a timestamp is to be looked for.
//!
//! Kafka's `.timeindex`: entries of 12 bytes, timestamp i64 and relative offset i32, big-endian. An entry (t, o) says that no record up to offset o is younger than t, and
//! that the batch which ends with o holds one of timestamp t. So whoever looks for the first record at or after a target may skip everything up to the last entry whose
//! timestamp is below the target. Timestamps rise from entry to entry; the last entry of a closed segment holds the segment's largest timestamp, which retention reads.

use super::NO_TIMESTAMP;

/// The bytes of one entry.
pub const TIME_ENTRY_BYTES: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeEntry {
    pub timestamp: i64,
    /// The last offset of the batch that holds the timestamp.
    pub offset: i64,
}

/// The entries of an index file, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct TimeIndex<'a> {
    base_offset: i64,
    bytes: &'a [u8],
}

impl<'a> TimeIndex<'a> {
    /// For bytes that were checked before.
    pub fn new(base_offset: i64, bytes: &'a [u8]) -> Self {
        debug_assert!(bytes.len().is_multiple_of(TIME_ENTRY_BYTES));
        Self { base_offset, bytes }
    }

    /// For a file as it was found: zeros and entries that fall end it. An entry that repeats the one before does no harm.
    pub fn checked(base_offset: i64, bytes: &'a [u8]) -> Self {
        let mut previous: Option<(i64, i32)> = None;
        let mut length = 0;
        for entry in bytes.chunks_exact(TIME_ENTRY_BYTES) {
            let (timestamp, relative) = raw(entry);
            let rises = match previous {
                None => timestamp >= 0 && relative >= 0,
                Some((last_timestamp, last_relative)) => timestamp >= last_timestamp && relative >= last_relative,
            };
            if !rises || (timestamp, relative) == (0, 0) {
                break;
            }
            previous = Some((timestamp, relative));
            length += TIME_ENTRY_BYTES;
        }
        Self { base_offset, bytes: &bytes[..length] }
    }

    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub fn len(&self) -> usize {
        self.bytes.len() / TIME_ENTRY_BYTES
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn entry(&self, index: usize) -> TimeEntry {
        let (timestamp, relative) = raw(&self.bytes[index * TIME_ENTRY_BYTES..][..TIME_ENTRY_BYTES]);
        TimeEntry { timestamp, offset: self.base_offset + i64::from(relative) }
    }

    pub fn last(&self) -> Option<TimeEntry> {
        self.len().checked_sub(1).map(|index| self.entry(index))
    }

    /// The last entry whose timestamp is not above `target`. If it is below, records up to its offset are all too old; if it is equal, the first record with this timestamp is
    /// in the batch that ends with its offset.
    pub fn last_not_above(&self, target: i64) -> Option<TimeEntry> {
        self.last_that(|entry| entry.timestamp <= target)
    }

    /// The last entry that speaks of a batch below `offset`.
    pub fn last_below_offset(&self, offset: i64) -> Option<TimeEntry> {
        self.last_that(|entry| entry.offset < offset)
    }

    /// `holds` is true up to some entry and false from there on.
    fn last_that(&self, holds: impl Fn(TimeEntry) -> bool) -> Option<TimeEntry> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if holds(self.entry(middle)) { low = middle + 1 } else { high = middle }
        }
        low.checked_sub(1).map(|index| self.entry(index))
    }
}

fn raw(entry: &[u8]) -> (i64, i32) {
    let timestamp = i64::from_be_bytes(entry[..8].try_into().expect("eight bytes"));
    (timestamp, i32::from_be_bytes(entry[8..12].try_into().expect("four bytes")))
}

/// The end of the active segment's time index: entries that are in memory only, behind those that its file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeIndexTail {
    base_offset: i64,
    file_entries: u32,
    bytes: Vec<u8>,
    /// Of file and memory together.
    last: Option<TimeEntry>,
}

impl TimeIndexTail {
    /// `last` is the last entry of the file, if it has any.
    pub fn new(base_offset: i64, file_entries: u32, last: Option<TimeEntry>) -> Self {
        Self { base_offset, file_entries, bytes: Vec::new(), last }
    }

    pub fn len(&self) -> u32 {
        self.file_entries + (self.bytes.len() / TIME_ENTRY_BYTES) as u32
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One place is kept free for the entry that closes the segment.
    pub fn is_full(&self, index_bytes_max: i32) -> bool {
        self.len() as usize + 1 >= index_bytes_max as usize / TIME_ENTRY_BYTES
    }

    pub fn view(&self) -> TimeIndex<'_> {
        TimeIndex::new(self.base_offset, &self.bytes)
    }

    pub fn file_entries(&self) -> u32 {
        self.file_entries
    }

    pub fn last(&self) -> Option<TimeEntry> {
        self.last
    }

    /// Adds the segment's largest timestamp so far, if it is larger than the last one noted.
    pub fn push_if_later(&mut self, entry: TimeEntry) {
        if entry.timestamp <= self.last.map_or(NO_TIMESTAMP, |last| last.timestamp) {
            return;
        }
        let relative = i32::try_from(entry.offset - self.base_offset).expect("a segment rolls before its offsets overflow");
        self.bytes.extend_from_slice(&entry.timestamp.to_be_bytes());
        self.bytes.extend_from_slice(&relative.to_be_bytes());
        self.last = Some(entry);
    }

    /// What is to be appended to the file.
    pub fn unwritten(&self) -> &[u8] {
        &self.bytes
    }

    /// The first `length_bytes` of `unwritten` are in the file now, which holds `file_entries` entries with them.
    pub fn written(&mut self, length_bytes: usize, file_entries: u32) {
        debug_assert!(length_bytes.is_multiple_of(TIME_ENTRY_BYTES));
        self.bytes.drain(..length_bytes);
        self.file_entries = file_entries;
    }

    /// The file was looked at: it holds `file_entries` entries, the last of them `last`. Until then `last` was at least as young as anything in it.
    pub fn file_opened(&mut self, file_entries: u32, last: Option<TimeEntry>) {
        self.file_entries = file_entries;
        if self.bytes.is_empty() {
            self.last = last;
        }
    }

    /// Bytes of `unwritten` that speak of batches before `offset`.
    pub fn bytes_before(&self, offset: i64) -> usize {
        let view = self.view();
        (0..view.len()).take_while(|&index| view.entry(index).offset < offset).count() * TIME_ENTRY_BYTES
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn entries_have_kafkas_bytes_and_only_rise() {
        let mut tail = TimeIndexTail::new(1_000, 0, None);
        tail.push_if_later(TimeEntry { timestamp: 258, offset: 1_003 });
        tail.push_if_later(TimeEntry { timestamp: 258, offset: 1_009 });
        tail.push_if_later(TimeEntry { timestamp: 7, offset: 1_010 });
        assert_eq!(tail.unwritten(), [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 3]);
        assert!(tail.is_full(24 + 11) && !tail.is_full(36));
        tail.written(12, 1);
        assert_eq!((tail.len(), tail.last().unwrap().timestamp), (1, 258));
    }

    #[test]
    fn a_preallocated_file_ends_at_its_zeros() {
        let mut tail = TimeIndexTail::new(0, 0, None);
        tail.push_if_later(TimeEntry { timestamp: 5, offset: 3 });
        let bytes = [tail.unwritten(), &[0; 120]].concat();
        assert_eq!(TimeIndex::checked(0, &bytes).last(), Some(TimeEntry { timestamp: 5, offset: 3 }));
    }

    proptest! {
        #[test]
        fn look_ups_agree_with_a_walk(steps in proptest::collection::vec((1..50i64, 0..20i64), 0..60), target in 0..3_000i64) {
            let mut tail = TimeIndexTail::new(10, 0, None);
            let (mut timestamp, mut offset) = (0, 10);
            let mut entries = Vec::new();
            for (time_step, offset_step) in steps {
                timestamp += time_step;
                offset += offset_step;
                tail.push_if_later(TimeEntry { timestamp, offset });
                entries.push(TimeEntry { timestamp, offset });
            }
            let index = TimeIndex::checked(10, tail.unwritten());
            prop_assert_eq!(index.len(), entries.len());
            prop_assert_eq!(index.last_not_above(target), entries.iter().rev().find(|entry| entry.timestamp <= target).copied());
            prop_assert_eq!(index.last_below_offset(target), entries.iter().rev().find(|entry| entry.offset < target).copied());
        }
    }
}
