//! The machine is driven over a log of batches whose records' timestamps are listed, with the indexes that the log itself would have written.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::log::{Log, LogStart, Origin, RollRules, ValidatedBatch};

const CLIENT: Origin = Origin::Client { transaction_version: 0 };

struct World {
    log: Log,
    /// Segment base, header and the records' timestamps.
    batches: Vec<(i64, BatchInfo, Vec<i64>)>,
    closed_indexes: Vec<(i64, Vec<u8>)>,
}

impl World {
    fn new(batches: &[Vec<i64>]) -> Self {
        let rules = RollRules { segment_bytes: 450, index_interval_bytes: 150, ..RollRules::default() };
        let mut world = Self { log: Log::new(LogStart::empty(0, 0, 1), rules), batches: Vec::new(), closed_indexes: Vec::new() };
        for timestamps in batches {
            world.append(timestamps);
        }
        world
    }

    fn append(&mut self, timestamps: &[i64]) {
        let info = BatchInfo {
            base_offset: 0,
            leader_epoch: 4,
            size_bytes: 100,
            last_offset_delta: timestamps.len() as i32 - 1,
            max_timestamp: *timestamps.iter().max().unwrap(),
            is_log_append_time: false,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            is_transactional: false,
            is_control: false,
            record_count: timestamps.len() as i32,
        };
        let batch = ValidatedBatch { info, bytes: Bytes::new(), end_marker: None, log_append_time_ms: -1 };
        let placed = self.log.place(&batch, CLIENT, 0);
        let appended = self.log.append(&batch, &placed, 4, 0);
        if let Some(roll) = appended.roll {
            self.closed_indexes.push((roll.previous_base, roll.time_index.unwritten().to_vec()));
        }
        let info = BatchInfo { base_offset: appended.base_offset, ..batch.info };
        self.batches.push((appended.segment_base, info, timestamps.to_vec()));
    }

    fn look_up(&self, target: TimeTarget, from: i64, end: i64) -> (Option<FoundRecord>, usize) {
        let mut lookup = TimeLookup::new(self.log.segments(), target, from, end);
        let mut opened = 0;
        loop {
            match lookup.next_step() {
                LookupStep::Done(found) => return (found, opened),
                LookupStep::SearchTimeIndex { segment_base } => {
                    let closed = self.closed_indexes.iter().find(|(base, _)| *base == segment_base);
                    let entry = match closed {
                        Some((base, bytes)) => lookup.index_entry(TimeIndex::new(*base, bytes)),
                        None => lookup.index_entry(self.log.indexes().time_index.view()),
                    };
                    lookup.start_walk(entry);
                }
                LookupStep::WalkBatches { segment_base, offset } => opened += self.walk(&mut lookup, segment_base, offset),
            }
        }
    }

    fn walk(&self, lookup: &mut TimeLookup, segment_base: i64, offset: i64) -> usize {
        let mut opened = 0;
        for (_, info, timestamps) in self.batches.iter().filter(|(base, info, _)| *base == segment_base && info.last_offset() >= offset) {
            match lookup.batch(info) {
                BatchVerdict::Skip => continue,
                BatchVerdict::Stop => return opened,
                BatchVerdict::Open => {
                    opened += 1;
                    let found =
                        timestamps.iter().enumerate().any(|(index, &timestamp)| lookup.record(info.base_offset + index as i64, timestamp));
                    if found {
                        return opened;
                    }
                }
            }
        }
        lookup.segment_done();
        opened
    }

    /// The answer by looking at every record.
    fn by_walking(&self, target: TimeTarget, from: i64, end: i64) -> Option<(i64, i64)> {
        let records = self.batches.iter().flat_map(|(_, info, timestamps)| {
            timestamps.iter().enumerate().map(|(index, &timestamp)| (info.base_offset + index as i64, timestamp))
        });
        let mut visible = records.filter(|&(offset, _)| offset >= from && offset < end);
        match target {
            TimeTarget::AtOrAfter(target) => visible.find(|&(_, timestamp)| timestamp >= target),
            TimeTarget::Largest => visible.rev_max(),
        }
    }
}

trait FirstMax: Iterator<Item = (i64, i64)> + Sized {
    /// The first of those with the largest timestamp.
    fn rev_max(self) -> Option<(i64, i64)> {
        self.fold(None, |best, record| if best.is_none_or(|(_, max)| record.1 > max) { Some(record) } else { best })
    }
}

impl<I: Iterator<Item = (i64, i64)>> FirstMax for I {}

#[test]
fn the_first_record_at_or_after_a_time_is_found_inside_its_batch() {
    let world = World::new(&[vec![10, 20, 30], vec![40, 25, 50], vec![50, 60]]);
    let found = |target| world.look_up(TimeTarget::AtOrAfter(target), 0, 8);
    assert_eq!(found(15), (Some(FoundRecord { offset: 1, timestamp: 20, leader_epoch: 4 }), 1));
    assert_eq!(found(41).0.unwrap().offset, 5);
    assert_eq!(found(61), (None, 0), "the segments' books alone rule it out");
}

#[test]
fn what_is_not_visible_or_deleted_is_not_found() {
    let world = World::new(&[vec![10, 90], vec![40, 25], vec![95, 60]]);
    assert_eq!(world.look_up(TimeTarget::AtOrAfter(50), 2, 4).0, None);
    assert_eq!(world.look_up(TimeTarget::Largest, 0, 4).0.unwrap().offset, 1);
    assert_eq!(world.look_up(TimeTarget::Largest, 2, 4).0.unwrap().offset, 2);
    assert_eq!(world.look_up(TimeTarget::Largest, 0, 6).0.unwrap().offset, 4);
    assert_eq!(World::new(&[]).look_up(TimeTarget::Largest, 0, 0).0, None);
}

proptest! {
    #[test]
    fn look_ups_agree_with_a_walk_over_all_records(
        batches in proptest::collection::vec(proptest::collection::vec(0..60i64, 1..4), 1..40),
        target in 0..70i64,
        (start, cut) in (0..30usize, 0..10usize),
    ) {
        let world = World::new(&batches);
        // A log may begin inside a batch (DeleteRecords), what is visible ends with one.
        let from = (start as i64).min(world.log.log_end_offset());
        let visible = &world.batches[..world.batches.len().saturating_sub(cut)];
        let end = visible.last().map_or(0, |(_, info, _)| info.last_offset() + 1);
        let (from, end) = (from.min(end), end);
        for target in [TimeTarget::AtOrAfter(target), TimeTarget::Largest] {
            let found = world.look_up(target, from, end).0.map(|found| (found.offset, found.timestamp));
            let expected = world.by_walking(target, from, end);
            // The largest of a batch that the start cuts through is not always told apart by headers; it is then the largest of the rest or nothing of the deleted part.
            if matches!(target, TimeTarget::Largest) && found != expected {
                prop_assert!(found.is_none_or(|(offset, _)| offset >= from));
                let cut_through = world.batches.iter().any(|(_, info, _)| info.base_offset < from && info.last_offset() >= from);
                prop_assert!(cut_through, "{found:?} instead of {expected:?}");
            } else {
                prop_assert_eq!(found, expected);
            }
        }
    }
}
