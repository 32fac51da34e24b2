//! Positions in a log: ListOffsets, OffsetForLeaderEpoch, DeleteRecords.

use std::cell::Cell;

use bytes::Bytes;

use super::{Isolation, Partition, Refusal};
use crate::log::time_lookup::{BatchVerdict, FoundRecord, LookupStep, TimeLookup, TimeTarget};
use crate::log::{BATCH_HEADER_BYTES, BatchInfo, NO_LEADER_EPOCH, NO_OFFSET, NO_TIMESTAMP};
use crate::rt;
use crate::wire::batch::{BatchHeader, Decompressor, Progress, RecordFacts, RecordScanner, TimestampType};

/// A walk over batches reads so much at once.
const WALK_BYTES: usize = 256 << 10;
/// No record of a log is larger than this once it is decompressed; what was stored has passed `max.decompressed.message.bytes`.
const DECOMPRESSED_BYTES_MAX: usize = i32::MAX as usize;

/// What ListOffsets asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetTarget {
    /// -1: the end of what is visible.
    Latest,
    /// -2, and -4 as long as nothing is tiered: where the log begins.
    Earliest,
    /// -3: the record with the largest timestamp.
    LargestTimestamp,
    /// -5 and -6: what tiered storage would know; there is none.
    Tiered,
    /// The first record with at least this timestamp.
    Timestamp(i64),
}

impl OffsetTarget {
    /// None for a negative value without a meaning.
    pub fn from_timestamp(timestamp: i64) -> Option<Self> {
        Some(match timestamp {
            -1 => OffsetTarget::Latest,
            -2 | -4 => OffsetTarget::Earliest,
            -3 => OffsetTarget::LargestTimestamp,
            -5 | -6 => OffsetTarget::Tiered,
            target if target >= 0 => OffsetTarget::Timestamp(target),
            _ => return None,
        })
    }
}

/// An offset with what belongs to it; -1 each for what does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundOffset {
    pub offset: i64,
    pub timestamp: i64,
    pub leader_epoch: i32,
}

impl FoundOffset {
    const NONE: FoundOffset = FoundOffset { offset: NO_OFFSET, timestamp: NO_TIMESTAMP, leader_epoch: NO_LEADER_EPOCH };
}

/// Where an epoch ended; (-1, -1) if that cannot be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    pub leader_epoch: i32,
    pub end_offset: i64,
}

impl Partition {
    /// Answers ListOffsets for one target.
    pub async fn find_offset(&self, target: OffsetTarget, isolation: Isolation, current_leader_epoch: i32) -> Result<FoundOffset, Refusal> {
        self.check_leader(current_leader_epoch)?;
        let visible_end = self.sees(isolation == Isolation::ReadCommitted).visible_end;
        match target {
            OffsetTarget::Latest if self.is_catching_up() => Err(Refusal::OffsetNotAvailable),
            OffsetTarget::Latest => Ok(FoundOffset { offset: visible_end, timestamp: NO_TIMESTAMP, leader_epoch: self.leader_epoch() }),
            OffsetTarget::Earliest => Ok(self.earliest()),
            OffsetTarget::Tiered => Ok(FoundOffset::NONE),
            OffsetTarget::LargestTimestamp => self.find_record(TimeTarget::Largest, visible_end).await,
            OffsetTarget::Timestamp(timestamp) => self.find_record(TimeTarget::AtOrAfter(timestamp), visible_end).await,
        }
    }

    /// The largest epoch that is not above `leader_epoch`, and its end. The current one ends where what is visible does.
    pub fn epoch_end(&self, leader_epoch: i32, current_leader_epoch: i32) -> Result<EpochEnd, Refusal> {
        self.check_leader(current_leader_epoch)?;
        let (leader_epoch, end_offset) = self.log.borrow().leader_epochs().end_offset_for(leader_epoch, self.high_watermark());
        Ok(EpochEnd { leader_epoch, end_offset })
    }

    /// Raises the log's start to `offset`, or to the high watermark for -1. Returns the start that holds then, once it is durable.
    pub async fn delete_records(&self, offset: i64) -> Result<i64, Refusal> {
        const HIGH_WATERMARK: i64 = -1;
        self.check_leader(NO_LEADER_EPOCH)?;
        let log_start_offset = if offset == HIGH_WATERMARK { self.high_watermark() } else { offset };
        if log_start_offset < 0 || log_start_offset > self.high_watermark() {
            return Err(Refusal::OffsetOutOfRange);
        }
        if log_start_offset <= self.log_start_offset() {
            return Ok(self.log_start_offset());
        }
        self.raise_log_start(log_start_offset).await.map_err(|_| Refusal::Storage)?;
        Ok(self.log_start_offset())
    }

    /// Right after an election a leader does not know yet what of its log is committed (KIP-207).
    fn is_catching_up(&self) -> bool {
        self.high_watermark() < self.leadership.get().start_offset
    }

    fn earliest(&self) -> FoundOffset {
        let offset = self.log_start_offset();
        let log = self.log.borrow();
        let earliest = log.leader_epochs().earliest().filter(|entry| entry.start_offset <= offset);
        FoundOffset { offset, timestamp: NO_TIMESTAMP, leader_epoch: earliest.map_or(NO_LEADER_EPOCH, |entry| entry.epoch) }
    }

    async fn find_record(&self, target: TimeTarget, visible_end: i64) -> Result<FoundOffset, Refusal> {
        let mut lookup = TimeLookup::new(self.log.borrow().segments(), target, self.log_start_offset(), self.high_watermark());
        loop {
            match lookup.next_step() {
                LookupStep::SearchTimeIndex { segment_base } => self.search_time_index(&mut lookup, segment_base).await?,
                LookupStep::WalkBatches { segment_base, offset } => self.walk_batches(&mut lookup, segment_base, offset).await?,
                LookupStep::Done(Some(FoundRecord { offset, timestamp, leader_epoch })) if offset < visible_end => {
                    return Ok(FoundOffset { offset, timestamp, leader_epoch });
                }
                LookupStep::Done(_) if self.is_catching_up() => return Err(Refusal::OffsetNotAvailable),
                LookupStep::Done(_) => return Ok(FoundOffset::NONE),
            }
        }
    }

    async fn search_time_index(&self, lookup: &mut TimeLookup, segment_base: i64) -> Result<(), Refusal> {
        let (in_memory, view) = {
            let log = self.log.borrow();
            let in_memory = self.recent_time_index(&log, segment_base).and_then(|tail| lookup.index_entry(tail.view()));
            (in_memory, log.segments().get(segment_base).map(|book| self.segment_view(book, book.size_bytes)))
        };
        let entry = match (in_memory, view) {
            (Some(entry), _) => Some(entry),
            (None, Some(view)) => {
                let searched = self.environment.reader.time_entry(&view, |index| lookup.index_entry(index)).await;
                searched.map_err(|error| self.unreadable(&error))?
            }
            (None, None) => None,
        };
        lookup.start_walk(entry);
        Ok(())
    }

    /// Shows the look-up one batch after the other, and the records of those that it wants to see.
    async fn walk_batches(&self, lookup: &mut TimeLookup, segment_base: i64, from: i64) -> Result<(), Refusal> {
        let mut offset = from;
        loop {
            let segment_end = {
                let log = self.log.borrow();
                log.segments().end_offset(segment_base, log.log_end_offset())
            };
            let batches = if offset < segment_end { self.read_batches(offset, WALK_BYTES).await? } else { Vec::new() };
            if batches.is_empty() {
                lookup.segment_done();
                return Ok(());
            }
            for (info, bytes) in batches {
                if info.base_offset >= segment_end {
                    lookup.segment_done();
                    return Ok(());
                }
                offset = info.last_offset() + 1;
                match lookup.batch(&info) {
                    BatchVerdict::Skip => {}
                    BatchVerdict::Stop => return Ok(()),
                    BatchVerdict::Open => {
                        let opened = open_batch(lookup, &info, bytes).await;
                        if opened.map_err(|error| self.undecodable(&info, &error))? {
                            return Ok(());
                        }
                    }
                }
            }
            rt::yield_now().await;
        }
    }

    fn undecodable(&self, info: &BatchInfo, error: &str) -> Refusal {
        tracing::error!(topic = %self.topic, partition = self.id.partition, base_offset = info.base_offset, error, "a stored batch cannot be read");
        Refusal::Storage
    }
}

/// Passes the records of a batch to the look-up, a slice of the decompressed bytes at a time. Returns whether one of them is the answer.
async fn open_batch(lookup: &mut TimeLookup, info: &BatchInfo, batch: Bytes) -> Result<bool, String> {
    let header = BatchHeader::parse(&batch).map_err(|error| error.to_string())?;
    let is_append_time = header.attributes.timestamp_type() == TimestampType::LogAppendTime;
    let is_found = Cell::new(false);
    let mut visit = |facts: RecordFacts| {
        let timestamp = if is_append_time { info.max_timestamp } else { header.base_timestamp.saturating_add(facts.timestamp_delta) };
        if !is_found.get() {
            is_found.set(lookup.record(info.base_offset + i64::from(facts.offset_delta), timestamp));
        }
    };
    let mut scanner = RecordScanner::new(info.record_count);
    let compression = header.compression().map_err(|error| error.to_string())?;
    let mut decompressor =
        Decompressor::new(compression, batch.slice(BATCH_HEADER_BYTES..), DECOMPRESSED_BYTES_MAX).map_err(|error| error.to_string())?;
    let mut slice = Vec::new();
    loop {
        let progress = decompressor.step(&mut slice).map_err(|error| error.to_string())?;
        scanner.scan(&slice, &mut visit).map_err(|error| error.to_string())?;
        if progress == Progress::Done || is_found.get() {
            return Ok(is_found.get());
        }
        rt::yield_now().await;
    }
}
