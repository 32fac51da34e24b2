//! The book of a log's segments: where each begins, how long it is, how young its youngest record, and when the next one begins.
//!
//! The last segment is the active one. A log always has one, if only an empty one at its end.

use super::time_index::TimeEntry;
use super::{BatchInfo, NO_TIMESTAMP};

/// When a segment is full. From the topic's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RollRules {
    /// `segment.bytes`.
    pub segment_bytes: i32,
    /// `segment.ms`; where the topic is compacted, no more than `max.compaction.lag.ms`.
    pub segment_ms: i64,
    /// `segment.jitter.ms`: up to so much earlier a segment rolls, so that those of many partitions do not roll at once.
    pub segment_jitter_ms: i64,
    /// `segment.index.bytes`.
    pub segment_index_bytes: i32,
    /// `index.interval.bytes`.
    pub index_interval_bytes: i32,
}

impl Default for RollRules {
    fn default() -> Self {
        const DAY_MS: i64 = 24 * 60 * 60 * 1000;
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * DAY_MS,
            segment_jitter_ms: 0,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
        }
    }
}

impl RollRules {
    /// How much earlier the segment that begins at `base_offset` rolls. `seed` is random, one for each log, so that a segment keeps its jitter while it lives.
    fn jitter_ms(&self, seed: u64, base_offset: i64) -> i64 {
        let limit = self.segment_jitter_ms.min(self.segment_ms);
        if limit <= 0 {
            return 0;
        }
        // One round of splitmix64, a mixing function without weak bits.
        let mut mixed = seed ^ (base_offset as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as i64
    }
}

/// One segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentBook {
    pub base_offset: i64,
    /// The bytes of its batches; the file of the active segment may be longer by zeros.
    pub size_bytes: u32,
    /// Its largest timestamp and the last offset of the first batch that has it; None while no record of it has one.
    pub max_timestamp: Option<TimeEntry>,
    /// The largest timestamp of its first batch: from then on `segment.ms` runs. None while it is empty.
    pub first_timestamp: Option<i64>,
    /// Where records have no timestamps `segment.ms` runs from here.
    pub created_ms: i64,
}

impl SegmentBook {
    pub fn empty(base_offset: i64, created_ms: i64) -> Self {
        Self { base_offset, size_bytes: 0, max_timestamp: None, first_timestamp: None, created_ms }
    }

    /// Takes the next batch in. `info.base_offset` is the true one.
    pub fn add(&mut self, info: &BatchInfo) {
        self.size_bytes += info.size_bytes;
        self.first_timestamp.get_or_insert(info.max_timestamp);
        if info.max_timestamp > self.max_timestamp.map_or(NO_TIMESTAMP, |max| max.timestamp) {
            self.max_timestamp = Some(TimeEntry { timestamp: info.max_timestamp, offset: info.last_offset() });
        }
    }

    /// Age is measured by the records: from the first batch's timestamp to that of the batch that wants to be appended.
    fn age_ms(&self, batch_timestamp: i64, now_ms: i64) -> i64 {
        match self.first_timestamp {
            Some(first) if first >= 0 => batch_timestamp - first,
            _ => now_ms - self.created_ms,
        }
    }
}

/// All segments of a log, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments {
    books: Vec<SegmentBook>,
    jitter_seed: u64,
}

impl Segments {
    /// `books` in rising order of base offsets, at least one.
    pub fn new(books: Vec<SegmentBook>, jitter_seed: u64) -> Self {
        assert!(!books.is_empty(), "a log has an active segment");
        assert!(books.is_sorted_by(|left, right| left.base_offset < right.base_offset), "segments are in order and apart");
        Self { books, jitter_seed }
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &SegmentBook> + ExactSizeIterator {
        self.books.iter()
    }

    pub fn count(&self) -> usize {
        self.books.len()
    }

    pub fn active(&self) -> &SegmentBook {
        self.books.last().expect("a log has an active segment")
    }

    pub fn active_mut(&mut self) -> &mut SegmentBook {
        self.books.last_mut().expect("a log has an active segment")
    }

    pub fn size_bytes(&self) -> u64 {
        self.books.iter().map(|book| u64::from(book.size_bytes)).sum()
    }

    /// The segment in which `offset` lies or would lie: the last that does not begin above it. None below the first.
    pub fn containing(&self, offset: i64) -> Option<&SegmentBook> {
        let next = self.books.partition_point(|book| book.base_offset <= offset);
        next.checked_sub(1).map(|index| &self.books[index])
    }

    pub fn get(&self, base_offset: i64) -> Option<&SegmentBook> {
        self.containing(base_offset).filter(|book| book.base_offset == base_offset)
    }

    /// The segment after that which begins at `base_offset`.
    pub fn after(&self, base_offset: i64) -> Option<&SegmentBook> {
        self.books.get(self.books.partition_point(|book| book.base_offset <= base_offset))
    }

    /// Where the segment's offsets end (exclusive): at the next one's base, or at the log's end.
    pub fn end_offset(&self, base_offset: i64, log_end_offset: i64) -> i64 {
        self.after(base_offset).map_or(log_end_offset, |next| next.base_offset)
    }

    pub fn push(&mut self, book: SegmentBook) {
        assert!(book.base_offset > self.active().base_offset, "a segment begins above the one before it");
        self.books.push(book);
    }

    /// Takes the segments out that end at or below `log_start_offset`; the active one stays.
    pub fn remove_below(&mut self, log_start_offset: i64) -> Vec<SegmentBook> {
        let first_kept = self.books.partition_point(|book| book.base_offset <= log_start_offset).saturating_sub(1);
        self.books.drain(..first_kept).collect()
    }

    /// Puts `book` in the place of the segments from its base up to, not with, `end_base`, and gives these back.
    pub fn replace(&mut self, end_base: i64, book: SegmentBook) -> Vec<SegmentBook> {
        let first = self.books.partition_point(|known| known.base_offset < book.base_offset);
        let end = self.books.partition_point(|known| known.base_offset < end_base);
        assert!(first < end && end < self.books.len(), "closed segments are replaced, never the active one");
        self.books.splice(first..end, [book]).collect()
    }

    /// Whether the batch must begin a new segment. An index that is full is the caller's to see.
    pub fn must_roll(&self, info: &BatchInfo, base_offset: i64, now_ms: i64, rules: &RollRules) -> bool {
        let active = self.active();
        if active.size_bytes == 0 {
            return false;
        }
        let too_large = i64::from(active.size_bytes) + i64::from(info.size_bytes) > i64::from(rules.segment_bytes);
        let relative_offset_overflows = info.last_offset_from(base_offset) - active.base_offset > i64::from(i32::MAX);
        let age_ms_max = rules.segment_ms - rules.jitter_ms(self.jitter_seed, active.base_offset);
        let too_old = active.age_ms(info.max_timestamp, now_ms) > age_ms_max;
        too_large || too_old || relative_offset_overflows
    }
}
