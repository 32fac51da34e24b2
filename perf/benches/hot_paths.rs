//! The pure steps on the way of a record, by themselves: decoding a Produce request, checking its batch, assigning offsets, looking an offset up. Each is first run with few and with many records and its
//! allocations are counted: a record costs none, whatever a request costs.
//!
//! `cargo bench -p corelane-perf`. Not a part of the test command: a figure of a loaded machine proves nothing, and the counts are quick to see when something here is changed.

use std::hint::black_box;
use std::ops::RangeInclusive;
use std::time::Instant;

use bytes::Bytes;
use corelane::config::TopicSettings;
use corelane::log::offset_index::OffsetIndex;
use corelane::log::validation::{Validation, ValidationRules};
use corelane::log::{Log, LogStart, Origin, RollRules, ValidatedBatch};
use corelane::rt::stages::{Moment, Stages};
use corelane_wire::batch::{BatchBuilder, BatchOptions};
use corelane_wire::messages::ProduceRequest;
use corelane_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use corelane_wire::{Decoder, Message, Records, Str};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const PRODUCE_VERSION: i16 = 9;
const RECORD_COUNTS: [usize; 3] = [1, 100, 1000];
const RECORD_BYTES: usize = 100;
const CLIENT: Origin = Origin::Client { transaction_version: 0 };

fn batch(records: usize) -> Bytes {
    let mut batch = BatchBuilder::new(BatchOptions::default());
    for _ in 0..records {
        batch.push(Some(b"key"), Some(&[7; RECORD_BYTES]), NOW_MS, &[]);
    }
    batch.build().expect("an uncompressed batch")
}

const NOW_MS: i64 = 1_790_000_000_000;

fn request(records: usize) -> Bytes {
    let data = PartitionProduceData { index: 0, records: Some(Records::from(batch(records))), ..Default::default() };
    let topic = TopicProduceData { name: Str::from("orders"), partition_data: vec![data], ..Default::default() };
    let request = ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..Default::default() };
    request.to_bytes(PRODUCE_VERSION).expect("our own request has an encoding")
}

fn checked(records: usize) -> ValidatedBatch {
    let rules = ValidationRules::new(&TopicSettings::default(), PRODUCE_VERSION);
    Validation::new(batch(records), rules, NOW_MS).run().expect("a valid batch")
}

fn decode(criterion: &mut Criterion) {
    measure(criterion, "decode a Produce request", request, |bytes| {
        black_box(ProduceRequest::decode(&mut Decoder::new(bytes.clone()), PRODUCE_VERSION).expect("valid"));
    });
}

fn check(criterion: &mut Criterion) {
    let rules = ValidationRules::new(&TopicSettings::default(), PRODUCE_VERSION);
    measure(criterion, "check a batch", batch, |bytes| {
        black_box(Validation::new(bytes.clone(), rules.clone(), NOW_MS).run().expect("valid"));
    });
}

fn assign_offsets(criterion: &mut Criterion) {
    let rules = RollRules { index_interval_bytes: i32::MAX, ..RollRules::default() };
    let mut log = Log::new(LogStart::empty(0, NOW_MS, 1), rules);
    measure(criterion, "assign offsets", checked, |batch| {
        let admission = log.check(batch, CLIENT).expect("admitted");
        let placed = log.place(batch, CLIENT, NOW_MS);
        black_box((admission, log.append(batch, &placed, 0, NOW_MS)));
    });
}

/// An index of a full segment of 1 GiB. Nothing at all is allocated here.
fn look_up(criterion: &mut Criterion) {
    const ENTRIES: i32 = 1 << 18;
    let bytes: Vec<u8> =
        (1..=ENTRIES).flat_map(|entry| [(10 * entry).to_be_bytes(), (4096 * (entry - 1)).to_be_bytes()].concat()).collect();
    let index = OffsetIndex::new(0, &bytes);
    let mut offset = 0;
    let mut find = || {
        offset = (offset + 7_919_003) % (10 * i64::from(ENTRIES));
        black_box(index.floor_by_offset(offset))
    };
    let counted = allocation_counter::measure(|| {
        find();
    });
    assert_allocations("look an offset up", 0..=0, counted.count_total);
    criterion.bench_function("look an offset up", |bencher| bencher.iter(&mut find));
}

/// What `latency.trace.file` costs a request while it is not set: all that the rooms do with its stages.
fn note_nothing(criterion: &mut Criterion) {
    let begun = Instant::now();
    let note = || {
        let stages = Stages::begin(black_box(begun));
        for moment in [Moment::FrameRead, Moment::Admitted, Moment::Decoded, Moment::Checked, Moment::HandedOver, Moment::Released] {
            black_box(&stages).mark(moment);
        }
        let handed_over = black_box(stages.clone());
        black_box(handed_over.is_traced());
        black_box(stages).finish();
    };
    assert_allocations("stages of a request that is not traced", 0..=0, allocation_counter::measure(note).count_total);
    criterion.bench_function("stages of a request that is not traced", |bencher| bencher.iter(note));
}

/// Counts the allocations with one record and with many, which have to be the same, then takes the time of each count.
fn measure<T>(criterion: &mut Criterion, name: &str, prepare: impl Fn(usize) -> T, mut step: impl FnMut(&T)) {
    let mut counts = RECORD_COUNTS.map(|records| {
        let input = prepare(records);
        // What is allocated once and kept (a table that grows) is not the step's.
        step(&input);
        allocation_counter::measure(|| step(&input)).count_total
    });
    counts.sort_unstable();
    assert_allocations(name, counts[0]..=counts[0], counts[counts.len() - 1]);
    println!("{name}: {} allocations, 0 for each record", counts[0]);
    let mut group = criterion.benchmark_group(name);
    for records in RECORD_COUNTS {
        let input = prepare(records);
        group.throughput(Throughput::Elements(records as u64));
        group.bench_function(BenchmarkId::from_parameter(records), |bencher| bencher.iter(|| step(&input)));
    }
    group.finish();
}

fn assert_allocations(name: &str, expected: RangeInclusive<u64>, counted: u64) {
    assert!(expected.contains(&counted), "{name}: {counted} allocations with many records, {expected:?} with few: a record costs some");
}

criterion_group! {
    name = hot_paths;
    config = Criterion::default().sample_size(30).warm_up_time(std::time::Duration::from_millis(300)).measurement_time(std::time::Duration::from_secs(1));
    targets = decode, check, assign_offsets, look_up, note_nothing
}
criterion_main!(hot_paths);
