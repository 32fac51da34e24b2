//! Rounds over histories: what is left of a log is what its readers need.

use std::collections::BTreeMap;
use std::hash::RandomState;

use bytes::Bytes;
use proptest::prelude::*;

use super::offset_map::SLOT_BYTES;
use super::*;
use crate::log::transaction_index::AbortedTransaction;
use crate::log::{BATCH_HEADER_BYTES, BatchInfo, EndMarker, ProducerStates};
use crate::wire::batch::{BatchBuilder, BatchHeader, BatchOptions, Compression, RecordIterator, SLICE_BYTES, decompress_all};

const DELETE_RETENTION_MS: i64 = 1_000;

type KeyAndValue<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

/// Offset, timestamp, key, value.
type WholeRecord = (i64, i64, Option<Vec<u8>>, Option<Vec<u8>>);

/// A log as its batches, with what follows from them.
#[derive(Clone, Debug, Default)]
struct History {
    batches: Vec<Bytes>,
    aborted: Vec<AbortedTransaction>,
    producers: ProducerStates,
    end_offset: i64,
}

impl History {
    fn append(&mut self, options: BatchOptions, records: &[KeyAndValue]) {
        let mut builder = BatchBuilder::new(BatchOptions { base_offset: self.end_offset, ..options });
        for (index, (key, value)) in records.iter().enumerate() {
            builder.push(*key, *value, 10 + self.end_offset + index as i64, &[]);
        }
        let batch = builder.build().unwrap();
        let info = BatchInfo::decode(&batch).unwrap();
        let marker = if info.is_control { EndMarker::decode(&batch) } else { None };
        let completed = self.producers.apply(&info, marker.as_ref(), 0);
        self.aborted.extend(completed.as_ref().and_then(AbortedTransaction::from_completed));
        self.end_offset = info.last_offset() + 1;
        self.batches.push(batch);
        self.producers.high_watermark_moved(self.end_offset);
    }

    fn put(&mut self, key: &str, value: Option<&str>) {
        self.append(BatchOptions::default(), &[(Some(key.as_bytes()), value.map(str::as_bytes))]);
    }

    fn transactional(&mut self, producer_id: i64, sequence: i32, records: &[KeyAndValue]) {
        let options = BatchOptions { producer_id, producer_epoch: 0, base_sequence: sequence, transactional: true, ..Default::default() };
        self.append(options, records);
    }

    fn end_transaction(&mut self, producer_id: i64, is_commit: bool) {
        let options = BatchOptions { producer_id, producer_epoch: 0, transactional: true, control: true, ..Default::default() };
        let key = [0, 0, 0, u8::from(is_commit)];
        self.append(options, &[(Some(&key), Some(&[0; 6]))]);
    }

    /// One round over everything below `end`; keys are noted from `first_dirty` on, as many as the map takes. Returns up to where it came.
    fn compact(&mut self, first_dirty: i64, end: i64, keys_max: usize, now_ms: i64) -> i64 {
        let hashers = [RandomState::new(), RandomState::new()];
        let mut map = OffsetMap::new(SLOT_BYTES * (keys_max + 1), 0.95, usize::MAX / 2, hashers);
        self.note(&mut map, first_dirty, end);
        let filter = BatchFilter {
            map: &map,
            producers: self.producers.producers().clone(),
            round_end: end,
            now_ms,
            delete_retention_ms: DELETE_RETENTION_MS,
        };
        let mut transactions = TransactionTracker::default();
        transactions.add(&self.aborted);
        let mut left = Vec::new();
        let mut kept_entries = Vec::new();
        for batch in std::mem::take(&mut self.batches) {
            let info = BatchInfo::decode(&batch).unwrap();
            if info.base_offset >= end {
                left.push(batch);
                continue;
            }
            let header = BatchHeader::parse(&batch).unwrap();
            let marker = if info.is_control { EndMarker::decode(&batch) } else { None };
            let retention = filter.judge(&info, &header, marker, &mut transactions);
            kept_entries.extend(retention.kept_entry);
            let records = RecordIterator::new(&batch[BATCH_HEADER_BYTES..], header.record_count).map(|record| record.unwrap());
            let kept: Vec<_> = records.filter(|record| !retention.discards_records() && filter.keeps(&info, &header, record)).collect();
            left.extend(run(filter.rewrite(&batch, &header, &retention, &kept).unwrap()).0);
        }
        self.batches = left;
        self.aborted.retain(|entry| entry.last_offset >= end || kept_entries.contains(entry));
        map.latest_offset() + 1
    }

    fn note(&self, map: &mut OffsetMap, first_dirty: i64, end: i64) {
        let mut transactions = TransactionTracker::default();
        transactions.add(&self.aborted);
        for batch in &self.batches {
            let info = BatchInfo::decode(batch).unwrap();
            if info.base_offset >= end {
                break;
            }
            if info.is_control {
                transactions.on_control(&info, EndMarker::decode(batch));
            } else if !transactions.on_batch(&info) {
                for record in RecordIterator::new(&batch[BATCH_HEADER_BYTES..], info.record_count) {
                    let record = record.unwrap();
                    let offset = info.base_offset + i64::from(record.offset_delta);
                    if offset >= first_dirty && record.key.is_some_and(|key| !map.put(key, offset)) {
                        return;
                    }
                }
            }
            map.reached(info.last_offset());
        }
        map.reached(end - 1);
    }

    /// Every record that is there: offset, timestamp, key, value; control records too.
    fn records(&self) -> Vec<WholeRecord> {
        let mut all = Vec::new();
        for batch in &self.batches {
            let header = BatchHeader::parse(batch).unwrap();
            header.check_crc(batch).unwrap();
            for record in RecordIterator::new(&batch[BATCH_HEADER_BYTES..], header.record_count) {
                let record = record.unwrap();
                let timestamp = header.base_timestamp + record.timestamp_delta;
                let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
                all.push((header.base_offset + i64::from(record.offset_delta), timestamp, owned(record.key), owned(record.value)));
            }
        }
        all
    }

    /// What a reader of committed records ends up with.
    fn table(&self, aborted: &[AbortedTransaction]) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut table = BTreeMap::new();
        for batch in &self.batches {
            let info = BatchInfo::decode(batch).unwrap();
            let is_aborted = |entry: &AbortedTransaction| {
                entry.producer_id == info.producer_id && (entry.first_offset..=entry.last_offset).contains(&info.base_offset)
            };
            if info.is_control || (info.is_transactional && aborted.iter().any(is_aborted)) {
                continue;
            }
            for record in RecordIterator::new(&batch[BATCH_HEADER_BYTES..], info.record_count) {
                let record = record.unwrap();
                let Some(key) = record.key.map(<[u8]>::to_vec) else { continue };
                match record.value {
                    Some(value) => table.insert(key, value.to_vec()),
                    None => table.remove(&key),
                };
            }
        }
        table
    }

    fn offsets(&self) -> Vec<i64> {
        self.records().iter().map(|(offset, ..)| *offset).collect()
    }

    fn last_offsets(&self) -> Vec<i64> {
        self.batches.iter().map(|batch| BatchInfo::decode(batch).unwrap().last_offset()).collect()
    }
}

/// What a batch becomes, and how many steps that takes.
fn run(mut rewriting: Rewriting) -> (Option<Bytes>, usize) {
    let mut steps = 1;
    loop {
        if let Step::Done(left) = rewriting.step().unwrap() {
            return (left, steps);
        }
        steps += 1;
    }
}

/// Megabytes of a batch that is packed anew are so many steps: the cleaner gives way after each.
#[test]
fn a_large_batch_is_rewritten_in_many_steps() {
    let mut map = OffsetMap::new(1 << 20, 0.9, 10_000, [RandomState::new(), RandomState::new()]);
    map.put(b"old", 7);
    map.reached(1_000_000);
    let filter = BatchFilter { map: &map, producers: Default::default(), round_end: i64::MAX, now_ms: 0, delete_retention_ms: 0 };
    for compression in [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let mut builder = BatchBuilder::new(BatchOptions { compression, ..Default::default() });
        let value: Vec<u8> = (0..1_000_u32).flat_map(|number| (number * number).to_be_bytes()).collect();
        builder.push(Some(b"old"), Some(&value), 0, &[]);
        (0..800_u32).for_each(|number| builder.push(Some(&number.to_be_bytes()), Some(&value), 0, &[]));
        let batch = builder.build().unwrap();
        let (header, info) = (BatchHeader::parse(&batch).unwrap(), BatchInfo::decode(&batch).unwrap());
        let retention = filter.judge(&info, &header, None, &mut TransactionTracker::default());
        let records = decompress_all(compression, batch.slice(BATCH_HEADER_BYTES..), 16 << 20).unwrap();
        let records = RecordIterator::new(&records, header.record_count).map(|record| record.unwrap());
        let kept: Vec<_> = records.filter(|record| filter.keeps(&info, &header, record)).collect();
        assert_eq!(kept.len(), 800);
        let (left, steps) = run(filter.rewrite(&batch, &header, &retention, &kept).unwrap());
        let left = left.unwrap();
        assert!(steps > (800 * value.len() + left.len()) / SLICE_BYTES, "{} takes {steps} steps", compression.name());
        let header = BatchHeader::parse(&left).unwrap();
        header.check_crc(&left).unwrap();
        assert_eq!((header.record_count, header.last_offset(), header.compression().unwrap()), (800, 800, compression));
    }
}

#[test]
fn the_last_record_of_each_key_stays_at_its_offset() {
    let mut log = History::default();
    for (key, value) in [("a", "1"), ("b", "1"), ("a", "2"), ("c", "1"), ("b", "2"), ("a", "3")] {
        log.put(key, Some(value));
    }
    log.append(BatchOptions::default(), &[(None, Some(b"without a key"))]);
    log.put("z", Some("active"));
    assert_eq!(log.compact(0, 7, 100, 0), 7);
    assert_eq!(log.offsets(), [3, 4, 5, 7]);
    assert_eq!(log.last_offsets(), [3, 4, 5, 6, 7], "where the round ended stays known");
}

#[test]
fn a_full_map_takes_the_rest_in_the_next_round() {
    let mut log = History::default();
    for number in 0..40 {
        log.put(&format!("key-{}", number % 10), Some("v"));
    }
    let first = log.compact(0, 40, 7, 0);
    assert_eq!(first, 7, "as many keys as it took");
    assert_eq!(log.offsets().len(), 40);
    let second = log.compact(0, 40, 100, 0);
    assert_eq!((second, log.offsets()), (40, (30..40).collect()));
}

#[test]
fn a_tombstone_goes_after_its_time_and_not_before_a_second_round() {
    let mut log = History::default();
    log.put("a", Some("1"));
    log.put("a", None);
    log.put("b", Some("1"));
    log.compact(0, 3, 100, 5_000);
    assert_eq!(log.offsets(), [1, 2]);
    let horizon = BatchHeader::parse(&log.batches[0]).unwrap();
    assert_eq!((horizon.attributes.has_delete_horizon(), horizon.base_timestamp), (true, 5_000 + DELETE_RETENTION_MS));
    assert_eq!(log.records()[0].1, 11, "its own time is as it was");
    log.put("c", Some("1"));
    log.compact(3, 4, 100, 5_999);
    assert_eq!(log.offsets(), [1, 2, 3]);
    log.compact(4, 4, 100, 6_000);
    assert_eq!(log.offsets(), [2, 3]);
}

#[test]
fn aborted_records_go_at_once_and_markers_when_nothing_of_theirs_is_left() {
    let mut log = History::default();
    let record = |key: &'static [u8]| (Some(key), Some(&b"v"[..]));
    log.transactional(7, 0, &[record(b"a")]);
    log.end_transaction(7, false);
    log.transactional(8, 0, &[record(b"b")]);
    log.end_transaction(8, true);
    log.put("b", Some("newer"));
    log.put("end", Some("1"));
    // The producers have long been forgotten.
    log.producers = ProducerStates::new(6);
    log.compact(0, 5, 100, 100);
    assert_eq!(log.offsets(), [1, 3, 4, 5], "the aborted record and the old one of its key are gone");
    assert_eq!(log.aborted.len(), 1);
    log.compact(5, 5, 100, 200);
    assert_eq!(log.offsets(), [1, 3, 4, 5], "their time runs from now on");
    assert!(log.aborted.is_empty(), "nobody needs to be told to leave out what is not there");
    log.compact(5, 5, 100, 200 + DELETE_RETENTION_MS - 1);
    assert_eq!(log.offsets(), [1, 3, 4, 5]);
    log.compact(5, 5, 100, 200 + DELETE_RETENTION_MS);
    assert_eq!(log.offsets(), [4, 5]);
}

#[test]
fn the_last_batch_of_a_producer_stays_without_its_records() {
    let mut log = History::default();
    let options = |sequence| BatchOptions { producer_id: 3, producer_epoch: 1, base_sequence: sequence, ..Default::default() };
    log.append(options(0), &[(Some(b"a"), Some(b"1"))]);
    log.append(options(1), &[(Some(b"a"), Some(b"2")), (Some(b"b"), Some(b"2"))]);
    log.put("a", Some("3"));
    log.put("b", Some("3"));
    log.put("c", Some("3"));
    log.compact(0, 5, 100, 0);
    assert_eq!(log.offsets(), [3, 4, 5]);
    let empty = BatchInfo::decode(&log.batches[0]).unwrap();
    assert_eq!((empty.base_offset, empty.last_offset(), empty.record_count, empty.last_sequence()), (1, 2, 0, 2));
    log.compact(5, 5, 100, 0);
    assert_eq!(log.batches.len(), 4, "and goes on staying");
    log.producers.expire(i64::MAX, 0, None);
    log.compact(5, 5, 100, 0);
    assert_eq!(log.batches.len(), 3);
}

#[derive(Clone, Debug)]
enum Act {
    Plain(Vec<(u8, Option<u8>)>),
    Idempotent(i64, Vec<(u8, Option<u8>)>),
    Transactional(i64, Vec<(u8, Option<u8>)>),
    End(i64, bool),
    /// A round up to this part of what is stable, with a map of so many keys, so much later.
    Compact(u8, usize, i64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let records = || proptest::collection::vec((0..6u8, proptest::option::weighted(0.8, any::<u8>())), 1..5);
    let act = prop_oneof![
        3 => records().prop_map(Act::Plain),
        3 => (10..12i64, records()).prop_map(|(producer, records)| Act::Idempotent(producer, records)),
        4 => (20..23i64, records()).prop_map(|(producer, records)| Act::Transactional(producer, records)),
        3 => (20..23i64, any::<bool>()).prop_map(|(producer, commits)| Act::End(producer, commits)),
        2 => (1..=4u8, 5..12usize, 0..2 * DELETE_RETENTION_MS).prop_map(|(part, keys, wait)| Act::Compact(part, keys, wait)),
    ];
    proptest::collection::vec(act, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Model against rounds at random moments: a log that is never compacted, and its twin that is. Readers of either end with the same table, no record has moved or changed, and
    /// the producers of the twin can be found again from its batches.
    #[test]
    fn compaction_changes_nothing_that_a_reader_ends_with(acts in acts()) {
        let mut whole = History::default();
        let mut twin = History::default();
        let (mut sequences, mut open) = (BTreeMap::<i64, i32>::new(), BTreeMap::<i64, i64>::new());
        let (mut now_ms, mut cleaned_to) = (10_000, 0);
        for act in acts {
            let append = |records: &[(u8, Option<u8>)], options: BatchOptions, whole: &mut History, twin: &mut History| {
                let bytes: Vec<([u8; 1], Option<[u8; 1]>)> = records.iter().map(|(key, value)| ([*key], value.map(|value| [value]))).collect();
                let records: Vec<_> = bytes.iter().map(|(key, value)| (Some(&key[..]), value.as_ref().map(|value| &value[..]))).collect();
                whole.append(options, &records);
                twin.append(options, &records);
            };
            match act {
                Act::Plain(records) => append(&records, BatchOptions::default(), &mut whole, &mut twin),
                Act::Idempotent(producer_id, records) | Act::Transactional(producer_id, records) => {
                    let sequence = sequences.entry(producer_id).or_default();
                    let transactional = producer_id >= 20;
                    let options = BatchOptions { producer_id, producer_epoch: 0, base_sequence: *sequence, transactional, ..Default::default() };
                    *sequence += records.len() as i32;
                    if transactional {
                        open.entry(producer_id).or_insert(whole.end_offset);
                    }
                    append(&records, options, &mut whole, &mut twin);
                }
                Act::End(producer_id, commits) => {
                    if open.remove(&producer_id).is_some() {
                        whole.end_transaction(producer_id, commits);
                        twin.end_transaction(producer_id, commits);
                    }
                }
                Act::Compact(part, keys, wait_ms) => {
                    now_ms += wait_ms;
                    let stable = open.values().min().copied().unwrap_or(whole.end_offset);
                    // Rounds end between batches.
                    let limit = stable * i64::from(part) / 4;
                    let end = twin.last_offsets().into_iter().map(|last| last + 1).filter(|end| *end <= limit).max().unwrap_or(0);
                    if end > cleaned_to {
                        let reached = twin.compact(cleaned_to, end, keys, now_ms);
                        prop_assert!(reached >= cleaned_to.min(end) && reached <= end);
                        cleaned_to = reached;
                    }
                }
            }
            prop_assert_eq!(whole.table(&whole.aborted), twin.table(&whole.aborted));
            let all: BTreeMap<i64, _> = whole.records().into_iter().map(|record| (record.0, record)).collect();
            prop_assert!(twin.records().iter().all(|record| all[&record.0] == *record), "records stay as they are");
            prop_assert!(twin.last_offsets().is_sorted_by(|left, right| left < right));
            prop_assert_eq!(twin.last_offsets().last().copied(), whole.last_offsets().last().copied());

            let mut found = ProducerStates::new(0);
            for batch in &twin.batches {
                let info = BatchInfo::decode(batch).unwrap();
                let marker = if info.is_control { EndMarker::decode(batch) } else { None };
                found.apply(&info, marker.as_ref(), 0);
            }
            for (producer_id, state) in whole.producers.producers() {
                prop_assert_eq!(found.get(*producer_id).map(|found| found.last_sequence()), Some(state.last_sequence()));
            }
        }
    }
}
