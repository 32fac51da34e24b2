//! The offset index of a segment: at which position of the file the batch with a given offset is to be looked for.
//!
//! Kafka's `.index`: entries of 8 bytes, relative offset i32 and position i32, big-endian, both rising; one for about every `index.interval.bytes`. The offset is the *last*
//! one of the batch that begins at the position, so whoever looks for an offset takes the largest entry that is not above it and walks the batches from there. Entries are
//! hints: one that is missing costs a longer walk, nothing else. Entries that are not in the file yet are in a `OffsetIndexTail`.

/// The bytes of one entry.
pub const OFFSET_ENTRY_BYTES: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetEntry {
    /// The last offset of the batch at `position`.
    pub offset: i64,
    pub position: u32,
}

/// The entries of an index file, borrowed. What lies behind the first entry that does not rise, or behind the last whole one, is not looked at by `checked`.
#[derive(Clone, Copy, Debug)]
pub struct OffsetIndex<'a> {
    base_offset: i64,
    bytes: &'a [u8],
}

impl<'a> OffsetIndex<'a> {
    /// For bytes that were checked before.
    pub fn new(base_offset: i64, bytes: &'a [u8]) -> Self {
        debug_assert!(bytes.len().is_multiple_of(OFFSET_ENTRY_BYTES));
        Self { base_offset, bytes }
    }

    /// For a file as it was found. Kafka leaves an index that it is writing at its full size, the rest zeros, and a lost page is zeros too: both end the index here.
    /// Entries must point into the segment's `size_bytes`.
    pub fn checked(base_offset: i64, bytes: &'a [u8], size_bytes: u32) -> Self {
        let mut previous: Option<(i32, i32)> = None;
        let mut length = 0;
        for entry in bytes.chunks_exact(OFFSET_ENTRY_BYTES) {
            let (relative, position) = raw(entry);
            let rises = match previous {
                None => relative >= 0 && position >= 0,
                Some((last_relative, last_position)) => relative > last_relative && position > last_position,
            };
            // A first entry of zeros says that a batch of one record lies at the beginning: true or not, it tells nothing.
            if !rises || position as u32 >= size_bytes || (relative, position) == (0, 0) {
                break;
            }
            previous = Some((relative, position));
            length += OFFSET_ENTRY_BYTES;
        }
        Self { base_offset, bytes: &bytes[..length] }
    }

    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub fn len(&self) -> usize {
        self.bytes.len() / OFFSET_ENTRY_BYTES
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn entry(&self, index: usize) -> OffsetEntry {
        let (relative, position) = raw(&self.bytes[index * OFFSET_ENTRY_BYTES..][..OFFSET_ENTRY_BYTES]);
        OffsetEntry { offset: self.base_offset + i64::from(relative), position: position as u32 }
    }

    /// The last entry whose offset is not above `offset`.
    pub fn floor_by_offset(&self, offset: i64) -> Option<OffsetEntry> {
        self.floor(|entry| entry.offset <= offset)
    }

    /// The last entry whose position is not above `position`: a place, known without reading, at which a batch begins.
    pub fn floor_by_position(&self, position: u32) -> Option<OffsetEntry> {
        self.floor(|entry| entry.position <= position)
    }

    fn floor(&self, not_above: impl Fn(OffsetEntry) -> bool) -> Option<OffsetEntry> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if not_above(self.entry(middle)) { low = middle + 1 } else { high = middle }
        }
        low.checked_sub(1).map(|index| self.entry(index))
    }
}

fn raw(entry: &[u8]) -> (i32, i32) {
    let word = |from: usize| i32::from_be_bytes(entry[from..from + 4].try_into().expect("four bytes"));
    (word(0), word(4))
}

/// The end of the active segment's index: entries that are in memory only, behind those that its file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetIndexTail {
    base_offset: i64,
    /// Entries that the file holds, from its beginning.
    file_entries: u32,
    /// The further ones, encoded.
    bytes: Vec<u8>,
}

impl OffsetIndexTail {
    pub fn new(base_offset: i64, file_entries: u32) -> Self {
        Self { base_offset, file_entries, bytes: Vec::new() }
    }

    /// Entries in file and memory together.
    pub fn len(&self) -> u32 {
        self.file_entries + (self.bytes.len() / OFFSET_ENTRY_BYTES) as u32
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A file of `segment.index.bytes` holds no more.
    pub fn is_full(&self, index_bytes_max: i32) -> bool {
        self.len() as usize >= index_bytes_max as usize / OFFSET_ENTRY_BYTES
    }

    /// Entries in memory, for a look-up; those in the file come before them.
    pub fn view(&self) -> OffsetIndex<'_> {
        OffsetIndex::new(self.base_offset, &self.bytes)
    }

    pub fn file_entries(&self) -> u32 {
        self.file_entries
    }

    pub fn push(&mut self, entry: OffsetEntry) {
        let relative = i32::try_from(entry.offset - self.base_offset).expect("a segment rolls before its offsets overflow");
        self.bytes.extend_from_slice(&relative.to_be_bytes());
        self.bytes.extend_from_slice(&(entry.position as i32).to_be_bytes());
    }

    /// What is to be appended to the file.
    pub fn unwritten(&self) -> &[u8] {
        &self.bytes
    }

    /// The first `length_bytes` of `unwritten` are in the file now, which holds `file_entries` entries with them.
    pub fn written(&mut self, length_bytes: usize, file_entries: u32) {
        debug_assert!(length_bytes.is_multiple_of(OFFSET_ENTRY_BYTES));
        self.bytes.drain(..length_bytes);
        self.file_entries = file_entries;
    }

    /// Bytes of `unwritten` that speak of batches before `position`.
    pub fn bytes_before(&self, position: u32) -> usize {
        let view = self.view();
        (0..view.len()).take_while(|&index| view.entry(index).position < position).count() * OFFSET_ENTRY_BYTES
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn entries_have_kafkas_bytes() {
        let mut tail = OffsetIndexTail::new(1_000, 0);
        tail.push(OffsetEntry { offset: 1_258, position: 4_100 });
        assert_eq!(tail.unwritten(), [0, 0, 1, 2, 0, 0, 16, 4]);
        assert_eq!((tail.bytes_before(4_100), tail.bytes_before(4_101)), (0, 8));
        tail.written(8, 1);
        tail.push(OffsetEntry { offset: 1_300, position: 9_000 });
        assert_eq!(tail.len(), 2);
        assert!(tail.is_full(23) && !tail.is_full(24));
    }

    #[test]
    fn a_file_ends_at_its_first_entry_that_does_not_rise() {
        let entry = |relative: i32, position: i32| [relative.to_be_bytes(), position.to_be_bytes()].concat();
        let bytes = [entry(5, 0), entry(9, 400), entry(0, 0), entry(20, 900), vec![1, 2, 3]].concat();
        let index = OffsetIndex::checked(100, &bytes, 10_000);
        assert_eq!(index.len(), 2);
        assert_eq!(OffsetIndex::checked(100, &bytes, 400).len(), 1, "an entry beyond the segment's end is none");
        assert!(OffsetIndex::checked(100, &[0; 64], 10_000).is_empty());
    }

    proptest! {
        #[test]
        fn floors_agree_with_a_walk(steps in proptest::collection::vec((1..50i64, 1..5_000u32), 0..60), offset in 0..4_000i64, position in 0..300_000u32) {
            let mut tail = OffsetIndexTail::new(500, 0);
            let (mut last_offset, mut last_position) = (500, 0);
            let mut entries = Vec::new();
            for (offset_step, position_step) in steps {
                last_offset += offset_step;
                last_position += position_step;
                let entry = OffsetEntry { offset: last_offset, position: last_position };
                tail.push(entry);
                entries.push(entry);
            }
            let index = OffsetIndex::checked(500, tail.unwritten(), u32::MAX);
            prop_assert_eq!(index.len(), entries.len());
            prop_assert_eq!(index.floor_by_offset(offset), entries.iter().rev().find(|entry| entry.offset <= offset).copied());
            prop_assert_eq!(index.floor_by_position(position), entries.iter().rev().find(|entry| entry.position <= position).copied());
        }
    }
}
