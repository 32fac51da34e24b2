//! Finding a record by its timestamp: the first at or after a target, or the largest of all. Exact, also inside a compressed batch.
//!
//! A machine without I/O: it says which time index to look into, from which offset to walk over batches, and which of them to open; the driver (partition::list_offsets) reads
//! and answers. Indexes only shorten the walk; a batch is opened only if its header says that it holds the answer or may hold it.
//!
//! Bounds: records below `from_offset` (the log's start) do not count, those at or above `end_offset` (the high watermark) are not visible yet.

use std::collections::VecDeque;

use super::NO_LEADER_EPOCH;
use super::batch::BatchInfo;
use super::segments::{SegmentBook, Segments};
use super::time_index::{TimeEntry, TimeIndex};

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeTarget {
    /// The first record, in the order of offsets, with at least this timestamp.
    AtOrAfter(i64),
    /// The first record with the largest timestamp of the log (ListOffsets -3, KIP-734).
    Largest,
}

/// What the driver is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupStep {
    /// Ask `TimeLookup::index_entry` of the segment's time index and pass the result to `start_walk`.
    SearchTimeIndex { segment_base: i64 },
    /// Pass each batch of the segment to `batch`, from the one that contains or follows `offset` on; call `segment_done` behind the last.
    WalkBatches { segment_base: i64, offset: i64 },
    /// The answer; None if no record fits.
    Done(Option<FoundRecord>),
}

/// What to do with a batch of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchVerdict {
    /// Its records do not matter.
    Skip,
    /// Pass its records to `record` until that says true; then ask `next_step` again. If it never does, go on walking.
    Open,
    /// The walk is over; ask `next_step` again.
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundRecord {
    pub offset: i64,
    pub timestamp: i64,
    /// Of the batch that holds it.
    pub leader_epoch: i32,
}

/// The state of one look-up.
#[derive(Clone, Debug)]
pub struct TimeLookup {
    target: TimeTarget,
    from_offset: i64,
    end_offset: i64,
    /// Segments that may hold the answer, in the order in which they are searched.
    candidates: VecDeque<SegmentBook>,
    phase: Phase,
    /// For `Largest`: the largest timestamp that is known to be visible, the earliest if there are several, and its segment.
    largest: Option<(i64, TimeEntry)>,
    /// The leader epoch of the batch whose records are being passed.
    opened_epoch: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    NextSegment,
    Index {
        segment_base: i64,
    },
    Walk {
        segment_base: i64,
        offset: i64,
    },
    /// All is known but the record itself, which is in the batch that ends with the entry's offset.
    OpenLargest {
        segment_base: i64,
        entry: TimeEntry,
    },
    Done(Option<FoundRecord>),
}

impl TimeLookup {
    pub fn new(segments: &Segments, target: TimeTarget, from_offset: i64, end_offset: i64) -> Self {
        let may_hold = |book: &&SegmentBook| {
            let visible = book.base_offset < end_offset && segments.end_offset(book.base_offset, i64::MAX) > from_offset;
            let young_enough = book.max_timestamp.is_some_and(|max| match target {
                TimeTarget::AtOrAfter(target) => max.timestamp >= target,
                TimeTarget::Largest => true,
            });
            visible && young_enough
        };
        let candidates = segments.iter().filter(may_hold).copied().collect();
        Self { target, from_offset, end_offset, candidates, phase: Phase::NextSegment, largest: None, opened_epoch: NO_LEADER_EPOCH }
    }

    /// What to do now. Asking again without an answer in between says the same.
    pub fn next_step(&mut self) -> LookupStep {
        loop {
            match self.phase {
                Phase::NextSegment => self.phase = self.choose_segment(),
                Phase::Index { segment_base } => return LookupStep::SearchTimeIndex { segment_base },
                Phase::Walk { segment_base, offset } => return LookupStep::WalkBatches { segment_base, offset },
                Phase::OpenLargest { segment_base, entry } => return LookupStep::WalkBatches { segment_base, offset: entry.offset },
                Phase::Done(found) => return LookupStep::Done(found),
            }
        }
    }

    /// Where in an index of the chosen segment the walk can begin. The driver asks the entries in memory first and, should they have none, those in the file.
    pub fn index_entry(&self, index: TimeIndex<'_>) -> Option<TimeEntry> {
        match self.target {
            TimeTarget::AtOrAfter(target) => index.last_not_above(target),
            TimeTarget::Largest => index.last_below_offset(self.end_offset),
        }
    }

    /// Takes what `index_entry` found, None if nothing.
    pub fn start_walk(&mut self, entry: Option<TimeEntry>) {
        let Phase::Index { segment_base } = self.phase else { panic!("a walk starts after a search of the index") };
        let offset = match (self.target, entry) {
            (_, None) => segment_base,
            // The batch that first reached the target ends with the entry's offset. If the entry is younger than no record of the target, all up to there are too old.
            (TimeTarget::AtOrAfter(target), Some(entry)) if entry.timestamp < target => entry.offset + 1,
            (_, Some(entry)) => entry.offset,
        };
        self.phase = Phase::Walk { segment_base, offset: offset.max(self.from_offset) };
    }

    /// Looks at the header of the next batch of a walk.
    pub fn batch(&mut self, info: &BatchInfo) -> BatchVerdict {
        if info.base_offset >= self.end_offset {
            self.segment_done();
            return BatchVerdict::Stop;
        }
        let may_hold_answer = match (self.phase, self.target) {
            (Phase::OpenLargest { entry, .. }, _) => info.max_timestamp >= entry.timestamp,
            (Phase::Walk { .. }, TimeTarget::AtOrAfter(target)) => info.max_timestamp >= target,
            (Phase::Walk { segment_base, .. }, TimeTarget::Largest) => {
                self.note_largest(segment_base, TimeEntry { timestamp: info.max_timestamp, offset: info.last_offset() });
                false
            }
            _ => false,
        };
        self.opened_epoch = info.leader_epoch;
        if may_hold_answer { BatchVerdict::Open } else { BatchVerdict::Skip }
    }

    /// Takes the next record of an opened batch. True if it is the answer.
    pub fn record(&mut self, offset: i64, timestamp: i64) -> bool {
        let young_enough = match (self.phase, self.target) {
            (Phase::OpenLargest { entry, .. }, _) => timestamp >= entry.timestamp,
            (Phase::Walk { .. }, TimeTarget::AtOrAfter(target)) => timestamp >= target,
            _ => false,
        };
        if !young_enough || offset < self.from_offset || offset >= self.end_offset {
            return false;
        }
        self.phase = Phase::Done(Some(FoundRecord { offset, timestamp, leader_epoch: self.opened_epoch }));
        true
    }

    /// The walk has come to the end of the segment.
    pub fn segment_done(&mut self) {
        self.phase = match self.phase {
            Phase::OpenLargest { .. } => Phase::Done(None),
            Phase::Done(found) => Phase::Done(found),
            Phase::NextSegment | Phase::Index { .. } | Phase::Walk { .. } => {
                self.candidates.pop_front();
                Phase::NextSegment
            }
        };
    }

    fn choose_segment(&mut self) -> Phase {
        while let Some(&SegmentBook { base_offset: segment_base, max_timestamp, .. }) = self.candidates.front() {
            let max_timestamp = max_timestamp.expect("a candidate has a timestamp");
            match self.target {
                TimeTarget::AtOrAfter(_) => return Phase::Index { segment_base },
                // The segment's youngest record is not visible yet: what else it has, its index and a walk tell.
                TimeTarget::Largest if max_timestamp.offset >= self.end_offset => return Phase::Index { segment_base },
                // Its youngest record was deleted: no entry of the index is sure to speak of those that are left.
                TimeTarget::Largest if max_timestamp.offset < self.from_offset => {
                    return Phase::Walk { segment_base, offset: self.from_offset };
                }
                TimeTarget::Largest => {
                    self.note_largest(segment_base, max_timestamp);
                    self.candidates.pop_front();
                }
            }
        }
        self.largest.map_or(Phase::Done(None), |(segment_base, entry)| Phase::OpenLargest { segment_base, entry })
    }

    fn note_largest(&mut self, segment_base: i64, entry: TimeEntry) {
        if entry.timestamp >= 0 && self.largest.is_none_or(|(_, largest)| entry.timestamp > largest.timestamp) {
            self.largest = Some((segment_base, entry));
        }
    }
}

#[cfg(test)]
#[path = "time_lookup_tests.rs"]
mod tests;
