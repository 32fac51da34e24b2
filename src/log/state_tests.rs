//! Tests of one partition's log: offsets, rolls, index entries, the start, what is replicated.

use bytes::Bytes;

use super::*;
use crate::log::time_index::TimeEntry;

const CLIENT: Origin = Origin::Client { transaction_version: 0 };

/// A batch of `count` records and `size_bytes` bytes without a producer id.
fn batch(count: i32, size_bytes: u32, timestamp: i64) -> ValidatedBatch {
    let info = BatchInfo {
        base_offset: 0,
        leader_epoch: -1,
        size_bytes,
        last_offset_delta: count - 1,
        max_timestamp: timestamp,
        is_log_append_time: false,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        is_transactional: false,
        is_control: false,
        record_count: count,
    };
    ValidatedBatch { info, bytes: Bytes::new(), end_marker: None, log_append_time_ms: -1 }
}

fn log(rules: RollRules) -> Log {
    Log::new(LogStart::empty(0, 0, 1), rules)
}

fn append(log: &mut Log, batch: &ValidatedBatch, now_ms: i64) -> Appended {
    assert_eq!(log.check(batch, CLIENT), Ok(Admission::Append));
    let placed = log.place(batch, CLIENT, now_ms);
    log.append(batch, &placed, 5, now_ms)
}

#[test]
fn batches_lie_one_behind_the_other() {
    let mut log = log(RollRules::default());
    let first = append(&mut log, &batch(3, 100, 10), 0);
    let second = append(&mut log, &batch(2, 80, 10), 0);
    assert_eq!((first.base_offset, first.last_offset, first.position), (0, 2, 0));
    assert_eq!((second.base_offset, second.last_offset, second.position), (3, 4, 100));
    assert_eq!(log.log_end_offset(), 5);
    assert_eq!(log.leader_epochs().end_offset_for(5, log.log_end_offset()), (5, 5));
}

#[test]
fn a_segment_rolls_before_it_gets_too_large() {
    let mut log = log(RollRules { segment_bytes: 200, ..RollRules::default() });
    append(&mut log, &batch(1, 150, 7), 0);
    let fits = append(&mut log, &batch(1, 50, 9), 0);
    assert_eq!((fits.segment_base, fits.position, fits.roll), (0, 150, None));
    let next = append(&mut log, &batch(1, 1, 9), 0);
    assert_eq!((next.segment_base, next.position), (2, 0));
    let roll = next.roll.unwrap();
    assert_eq!((roll.previous_base, roll.previous_size_bytes), (0, 200));
    assert_eq!(
        roll.time_index.last(),
        Some(TimeEntry { timestamp: 9, offset: 1 }),
        "a closed segment's time index ends with its largest timestamp"
    );
    assert_eq!(log.check(&batch(1, 201, 0), CLIENT), Err(AppendError::BatchLargerThanSegment { size_bytes: 201, segment_bytes: 200 }));
}

#[test]
fn a_segment_ages_by_the_time_of_its_records() {
    let rules = RollRules { segment_ms: 1_000, ..RollRules::default() };
    let mut by_records = log(rules);
    append(&mut by_records, &batch(1, 10, 5_000), 0);
    assert!(append(&mut by_records, &batch(1, 10, 6_000), 1 << 40).roll.is_none(), "wall clock does not matter");
    assert!(append(&mut by_records, &batch(1, 10, 6_001), 0).roll.is_some());

    let mut without_timestamps = log(rules);
    append(&mut without_timestamps, &batch(1, 10, -1), 0);
    assert!(append(&mut without_timestamps, &batch(1, 10, -1), 1_000).roll.is_none());
    assert!(append(&mut without_timestamps, &batch(1, 10, -1), 1_001).roll.is_some());
}

#[test]
fn jitter_makes_a_segment_roll_earlier_and_keeps_its_value() {
    let rules = RollRules { segment_ms: 1_000, segment_jitter_ms: 400, ..RollRules::default() };
    let mut jittered = log(rules);
    append(&mut jittered, &batch(1, 10, 0), 0);
    let first_rolling = (0..=1_001).find(|&timestamp| jittered.segments().must_roll(&batch(1, 10, timestamp).info, 1, 0, &rules)).unwrap();
    assert!((601..=1_001).contains(&first_rolling));
    assert!((first_rolling..=2_000).all(|timestamp| jittered.segments().must_roll(&batch(1, 10, timestamp).info, 1, 0, &rules)));
}

#[test]
fn a_segment_rolls_when_its_relative_offsets_or_its_index_are_used_up() {
    let mut far = Log::new(LogStart::empty(0, 0, 1), RollRules::default());
    append(&mut far, &batch(i32::MAX, 10, 0), 0);
    assert!(append(&mut far, &batch(1, 10, 0), 0).roll.is_none(), "relative offset 2^31-1 still fits");
    assert!(append(&mut far, &batch(1, 10, 0), 0).roll.is_some());

    // A time index of 36 bytes has room for two entries and the closing one.
    let mut small_index = log(RollRules { segment_index_bytes: 36, index_interval_bytes: 0, ..RollRules::default() });
    let rolled: Vec<bool> = (0..5).map(|index| append(&mut small_index, &batch(1, 10, index), 0).roll.is_some()).collect();
    assert_eq!(rolled, [false, false, false, true, false]);
}

#[test]
fn index_entries_are_an_interval_apart_and_point_at_the_batch_whose_last_offset_they_name() {
    let mut log = log(RollRules { index_interval_bytes: 250, ..RollRules::default() });
    for index in 0..7 {
        append(&mut log, &batch(10, 100, 1_000 - index), 0);
    }
    let offsets = log.indexes().offset_index.view();
    let entries: Vec<_> = (0..offsets.len()).map(|index| offsets.entry(index)).collect();
    assert_eq!(entries, [OffsetEntry { offset: 39, position: 300 }, OffsetEntry { offset: 69, position: 600 }]);
    let times = log.indexes().time_index.view();
    assert_eq!((times.len(), times.last()), (1, Some(TimeEntry { timestamp: 1_000, offset: 9 })));
}

#[test]
fn raising_the_start_forgets_whole_segments_below_it() {
    let mut log = log(RollRules { segment_bytes: 100, ..RollRules::default() });
    for _ in 0..4 {
        append(&mut log, &batch(10, 100, 0), 0);
    }
    assert!(log.raise_log_start(25));
    assert!(!log.raise_log_start(20));
    let removed: Vec<i64> = log.segments_mut().remove_below(25).iter().map(|book| book.base_offset).collect();
    assert_eq!(removed, [0, 10]);
    assert_eq!(log.segments().containing(25).unwrap().base_offset, 20);
    assert_eq!(log.leader_epochs().earliest().unwrap().start_offset, 25);
}

#[test]
fn replicated_bytes_continue_where_the_log_ends() {
    let mut log = log(RollRules::default());
    append(&mut log, &batch(5, 100, 0), 0);
    let mut replicated = batch(5, 100, 0);
    replicated.info.base_offset = 4;
    assert!(matches!(
        log.check(&replicated, Origin::Replication),
        Err(AppendError::UnexpectedOffset { base_offset: 4, log_end_offset: 5 })
    ));
    replicated.info.base_offset = 5;
    assert_eq!(log.check(&replicated, Origin::Replication), Ok(Admission::Append));
    assert_eq!(log.place(&replicated, Origin::Replication, 0).last_offset, 9);
}
