//! The state of one partition's log: what may be appended, where it goes, and every book that follows from it.
//!
//! A partition asks `check`, lays the bytes into the journal at the place that `place` names, and then tells `append`. Nothing between the three may await, so that offsets
//! are given in the order of admission. The log's end counts what is appended, durable or not; what readers may see is bounded by the partition's high watermark.

use super::leader_epoch::LeaderEpochs;
use super::offset_index::{OffsetEntry, OffsetIndexTail};
use super::producer_state::{CompletedTransaction, ProducerCheck, ProducerStates};
use super::segments::{RollRules, SegmentBook, Segments};
use super::time_index::TimeIndexTail;
use super::{AppendError, BatchInfo, EndMarker, Origin, ValidatedBatch};

/// What admission says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Append,
    /// The batch is in the log already, at these offsets. It may be answered as a success once `last_offset` is below the high watermark.
    Duplicate {
        base_offset: i64,
        last_offset: i64,
        timestamp: i64,
    },
}

/// Where a batch lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    pub base_offset: i64,
    pub last_offset: i64,
    /// The base offset of its segment.
    pub segment_base: i64,
    /// Its first byte within the segment's file.
    pub position: u32,
    /// Present if the batch begins a new segment.
    pub roll: Option<Roll>,
    /// Present if the batch is a marker that ends a transaction with records here.
    pub completed_transaction: Option<CompletedTransaction>,
}

/// The segment that has just been closed: placement cuts its file to its last byte, the partition writes out the rest of its indexes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roll {
    pub previous_base: i64,
    pub previous_size_bytes: u32,
    pub offset_index: OffsetIndexTail,
    pub time_index: TimeIndexTail,
}

/// The active segment's indexes, and how far the last entry is behind.
#[derive(Clone, Debug)]
pub struct ActiveIndexes {
    pub offset_index: OffsetIndexTail,
    pub time_index: TimeIndexTail,
    bytes_since_entry: u32,
}

impl ActiveIndexes {
    pub fn new(offset_index: OffsetIndexTail, time_index: TimeIndexTail) -> Self {
        Self { offset_index, time_index, bytes_since_entry: 0 }
    }

    pub fn empty(base_offset: i64) -> Self {
        Self::new(OffsetIndexTail::new(base_offset, 0), TimeIndexTail::new(base_offset, 0, None))
    }

    fn is_full(&self, rules: &RollRules) -> bool {
        self.offset_index.is_full(rules.segment_index_bytes) || self.time_index.is_full(rules.segment_index_bytes)
    }

    /// Notes the batch at `position`, which `book` contains already, if the last entry is an interval behind.
    pub fn add(&mut self, info: &BatchInfo, position: u32, book: &SegmentBook, index_interval_bytes: i32) {
        if i64::from(self.bytes_since_entry) > i64::from(index_interval_bytes) {
            self.offset_index.push(OffsetEntry { offset: info.last_offset(), position });
            if let Some(max_timestamp) = book.max_timestamp {
                self.time_index.push_if_later(max_timestamp);
            }
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry = self.bytes_since_entry.saturating_add(info.size_bytes);
    }
}

/// Where a log stands when it is opened, put together from its files, the checkpoint and the journal.
#[derive(Clone, Debug)]
pub struct LogStart {
    pub log_start_offset: i64,
    pub log_end_offset: i64,
    pub segments: Segments,
    pub indexes: ActiveIndexes,
    pub leader_epochs: LeaderEpochs,
    pub producers: ProducerStates,
}

impl LogStart {
    /// A log without a record, whose first one will have `offset`.
    pub fn empty(offset: i64, now_ms: i64, jitter_seed: u64) -> Self {
        Self {
            log_start_offset: offset,
            log_end_offset: offset,
            segments: Segments::new(vec![SegmentBook::empty(offset, now_ms)], jitter_seed),
            indexes: ActiveIndexes::empty(offset),
            leader_epochs: LeaderEpochs::default(),
            producers: ProducerStates::new(offset),
        }
    }
}

/// One partition's log.
#[derive(Clone, Debug)]
pub struct Log {
    rules: RollRules,
    log_start_offset: i64,
    log_end_offset: i64,
    segments: Segments,
    indexes: ActiveIndexes,
    leader_epochs: LeaderEpochs,
    producers: ProducerStates,
}

impl Log {
    pub fn new(start: LogStart, rules: RollRules) -> Self {
        assert!(start.log_start_offset <= start.log_end_offset, "a log does not end before it begins");
        assert!(start.segments.active().base_offset <= start.log_end_offset, "the active segment holds the log's end");
        Self {
            rules,
            log_start_offset: start.log_start_offset,
            log_end_offset: start.log_end_offset,
            segments: start.segments,
            indexes: start.indexes,
            leader_epochs: start.leader_epochs,
            producers: start.producers,
        }
    }

    /// Whether the batch may be appended now. Changes nothing.
    pub fn check(&self, batch: &ValidatedBatch, origin: Origin) -> Result<Admission, AppendError> {
        let info = &batch.info;
        if origin == Origin::Replication {
            // A follower may hold a log that begins inside its leader's batch (DeleteRecords); everywhere else bytes must continue where the log ends.
            let continues = info.base_offset >= self.log_end_offset;
            let begins_inside = self.log_start_offset == self.log_end_offset && info.last_offset() >= self.log_end_offset;
            if !continues && !begins_inside {
                return Err(AppendError::UnexpectedOffset { base_offset: info.base_offset, log_end_offset: self.log_end_offset });
            }
        } else if i64::from(info.size_bytes) > i64::from(self.rules.segment_bytes) {
            return Err(AppendError::BatchLargerThanSegment { size_bytes: info.size_bytes, segment_bytes: self.rules.segment_bytes });
        }
        match self.producers.check(info, batch.end_marker.as_ref(), origin)? {
            ProducerCheck::Accept => Ok(Admission::Append),
            ProducerCheck::Duplicate(original) => Ok(Admission::Duplicate {
                base_offset: original.base_offset(),
                last_offset: original.last_offset,
                timestamp: original.timestamp,
            }),
        }
    }

    /// Where a batch that was admitted will lie. Changes nothing, so that a journal without room costs no offset.
    pub fn place(&self, batch: &ValidatedBatch, origin: Origin, now_ms: i64) -> Placed {
        let info = &batch.info;
        let base_offset = if origin == Origin::Replication { info.base_offset } else { self.log_end_offset };
        let active = self.segments.active();
        let index_full = active.size_bytes > 0 && self.indexes.is_full(&self.rules);
        let rolls = index_full || self.segments.must_roll(info, base_offset, now_ms, &self.rules);
        Placed {
            base_offset,
            last_offset: info.last_offset_from(base_offset),
            segment_base: if rolls { base_offset } else { active.base_offset },
            position: if rolls { 0 } else { active.size_bytes },
        }
    }

    /// Takes an admitted batch into all books, at the place that `place` said, under `leader_epoch`.
    pub fn append(&mut self, batch: &ValidatedBatch, placed: &Placed, leader_epoch: i32, now_ms: i64) -> Appended {
        let info = BatchInfo { base_offset: placed.base_offset, leader_epoch, ..batch.info.clone() };
        self.apply(&info, batch.end_marker.as_ref(), placed, now_ms)
    }

    /// As `append`, for a batch that the journal holds and this log does not know yet: the way by which a restart gets to the log's end.
    pub fn replay(&mut self, info: &BatchInfo, end_marker: Option<&EndMarker>, segment_base: i64, position: u32) -> Appended {
        let placed = Placed { base_offset: info.base_offset, last_offset: info.last_offset(), segment_base, position };
        self.apply(info, end_marker, &placed, info.max_timestamp)
    }

    fn apply(&mut self, info: &BatchInfo, end_marker: Option<&EndMarker>, placed: &Placed, now_ms: i64) -> Appended {
        assert!(info.base_offset >= self.log_end_offset || self.log_start_offset == self.log_end_offset, "offsets only rise");
        let roll = (placed.segment_base != self.segments.active().base_offset).then(|| self.roll(placed.segment_base, now_ms));
        assert_eq!(placed.position, self.segments.active().size_bytes, "a batch lies where the one before it ends");

        let book = self.segments.active_mut();
        book.add(info);
        self.indexes.add(info, placed.position, book, self.rules.index_interval_bytes);
        self.leader_epochs.assign(info.leader_epoch, info.base_offset);
        let completed_transaction = self.producers.apply(info, end_marker, now_ms);
        self.log_end_offset = placed.last_offset + 1;

        Appended {
            base_offset: placed.base_offset,
            last_offset: placed.last_offset,
            segment_base: placed.segment_base,
            position: placed.position,
            roll,
            completed_transaction,
        }
    }

    /// Closes the active segment and begins one at `base_offset`.
    pub fn roll(&mut self, base_offset: i64, now_ms: i64) -> Roll {
        let mut closed = std::mem::replace(&mut self.indexes, ActiveIndexes::empty(base_offset));
        let book = *self.segments.active();
        if let Some(max_timestamp) = book.max_timestamp {
            closed.time_index.push_if_later(max_timestamp);
        }
        self.segments.push(SegmentBook::empty(base_offset, now_ms));
        Roll {
            previous_base: book.base_offset,
            previous_size_bytes: book.size_bytes,
            offset_index: closed.offset_index,
            time_index: closed.time_index,
        }
    }

    /// Raises the log's start; records below it are no longer to be read. The caller has checked it against the high watermark. Returns whether it moved.
    pub fn raise_log_start(&mut self, log_start_offset: i64) -> bool {
        if log_start_offset <= self.log_start_offset {
            return false;
        }
        assert!(log_start_offset <= self.log_end_offset, "a log does not begin after its end");
        self.log_start_offset = log_start_offset;
        self.leader_epochs.truncate_from_start(log_start_offset);
        self.producers.log_start_moved(log_start_offset);
        true
    }

    /// A leader's new epoch begins at the log's end.
    pub fn begin_leader_epoch(&mut self, leader_epoch: i32) -> bool {
        self.leader_epochs.assign(leader_epoch, self.log_end_offset)
    }

    pub fn high_watermark_moved(&mut self, high_watermark: i64) {
        self.producers.high_watermark_moved(high_watermark);
    }

    /// The last stable offset: records below it belong to no open transaction.
    pub fn last_stable_offset(&self, high_watermark: i64) -> i64 {
        // Records of an open transaction may have been deleted (DeleteRecords): nothing below the log's start is stable or not.
        self.producers.first_unstable_offset().map_or(high_watermark, |unstable| unstable.max(self.log_start_offset).min(high_watermark))
    }

    pub fn set_rules(&mut self, rules: RollRules) {
        self.rules = rules;
    }

    pub fn rules(&self) -> &RollRules {
        &self.rules
    }

    pub fn log_start_offset(&self) -> i64 {
        self.log_start_offset
    }

    /// The offset of the next record.
    pub fn log_end_offset(&self) -> i64 {
        self.log_end_offset
    }

    pub fn segments(&self) -> &Segments {
        &self.segments
    }

    pub fn segments_mut(&mut self) -> &mut Segments {
        &mut self.segments
    }

    pub fn indexes(&self) -> &ActiveIndexes {
        &self.indexes
    }

    pub fn indexes_mut(&mut self) -> &mut ActiveIndexes {
        &mut self.indexes
    }

    pub fn leader_epochs(&self) -> &LeaderEpochs {
        &self.leader_epochs
    }

    pub fn producers(&self) -> &ProducerStates {
        &self.producers
    }

    pub fn producers_mut(&mut self) -> &mut ProducerStates {
        &mut self.producers
    }
}

/// The place that the log gives to its next batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    pub base_offset: i64,
    pub last_offset: i64,
    pub segment_base: i64,
    pub position: u32,
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "history_tests.rs"]
mod history_tests;
