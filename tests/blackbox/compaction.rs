//! What compaction leaves of a log, on a broker that compacts all the time.

use std::collections::BTreeMap;

use corelane_wire::Str;
use corelane_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use corelane_wire::messages::offset_fetch_request::OffsetFetchRequestTopic;
use corelane_wire::messages::{OffsetCommitRequest, OffsetFetchRequest};
use harness::batch::{self, Batch, Codec, Record, record};
use harness::broker::Broker;
use harness::cases;
use harness::raw::{Connection, records_of};
use harness::suite::Case;
use harness::wait;

pub const CASES: &[Case] = cases![
    the_last_record_of_each_key_stays_in_every_codec,
    tombstones_go_in_the_end,
    a_delete_horizon_stands_in_the_header,
    the_last_batch_of_a_producer_stays_empty,
    young_records_wait_for_their_lag,
    records_without_a_key_are_refused,
    group_offsets_are_compacted_and_stay,
];

/// As `segment.ms` is 1, every change of time begins a segment.
const SETTINGS: [(&str, &str); 4] =
    [("cleanup.policy", "compact"), ("segment.ms", "1"), ("min.cleanable.dirty.ratio", "0.01"), ("delete.retention.ms", "0")];

/// Timestamps a second apart, so that every append begins a segment; the last of them lies a little in the past.
struct Clock(i64);

impl Clock {
    fn new() -> Clock {
        Clock(batch::now_ms() - 3_000_000)
    }

    fn next(&mut self) -> i64 {
        self.0 += 1_000;
        self.0
    }
}

fn put(connection: &mut Connection, topic: &str, clock: &mut Clock, key: &str, value: Option<&str>) -> i64 {
    let record = Record { key: Some(key.into()), value: value.map(Into::into), headers: Vec::new(), timestamp: clock.next() };
    connection.append(topic, 0, vec![record])
}

fn offsets(connection: &mut Connection, topic: &str) -> Vec<i64> {
    connection.read_all(topic, 0, 0).iter().map(|(offset, _)| *offset).collect()
}

fn wait_for_offsets(connection: &mut Connection, topic: &str, expected: &[i64]) {
    let mut seen = Vec::new();
    let end = std::time::Instant::now() + wait::PATIENCE;
    while std::time::Instant::now() < end {
        seen = offsets(connection, topic);
        if seen == expected {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("{topic} holds {seen:?}, not {expected:?}");
}

fn the_last_record_of_each_key_stays_in_every_codec(broker: &Broker) {
    let topic = "compaction-codecs";
    let mut connection = Connection::to(broker);
    connection.create_topic_with(topic, 1, &SETTINGS);
    let mut clock = Clock::new();
    let mut expected = BTreeMap::new();
    for round in 0..4 {
        for codec in Codec::ALL {
            let timestamp = clock.next();
            let keys: Vec<String> = (0..5).map(|number| format!("{codec:?}-{}", (number + round) % 7)).collect();
            let records = keys.iter().map(|key| Record { timestamp, ..record(key, format!("{key} in round {round}")) }).collect();
            let answer = connection.produce(topic, 0, &Batch::of(records).codec(codec));
            assert_eq!(answer.error_code, 0);
            for (index, key) in keys.into_iter().enumerate() {
                expected.insert(key.clone(), (answer.base_offset + index as i64, format!("{key} in round {round}")));
            }
        }
    }
    let last = put(&mut connection, topic, &mut clock, "end", Some("of the log"));
    let mut kept: Vec<i64> = expected.values().map(|(offset, _)| *offset).chain([last]).collect();
    kept.sort_unstable();
    wait_for_offsets(&mut connection, topic, &kept);
    for (offset, record) in connection.read_all(topic, 0, 0) {
        let key = String::from_utf8(record.key.expect("a key")).expect("text");
        if offset != last {
            assert_eq!((offset, record.value.as_deref()), (expected[&key].0, Some(expected[&key].1.as_bytes())));
        }
    }
    // An offset that is gone gives what comes next.
    let next = batch::read_batches(&records_of(&connection.fetch(topic, 0, 0))).remove(0);
    assert!(next.last_offset() >= kept[0] && next.base_offset <= kept[0]);
}

fn tombstones_go_in_the_end(broker: &Broker) {
    let topic = "compaction-tombstones";
    let mut connection = Connection::to(broker);
    connection.create_topic_with(topic, 1, &SETTINGS);
    let mut clock = Clock::new();
    put(&mut connection, topic, &mut clock, "a", Some("1"));
    put(&mut connection, topic, &mut clock, "a", None);
    put(&mut connection, topic, &mut clock, "b", Some("1"));
    put(&mut connection, topic, &mut clock, "end", Some("1"));
    wait_for_offsets(&mut connection, topic, &[1, 2, 3]);
    // Another round, which needs something to do.
    put(&mut connection, topic, &mut clock, "b", Some("2"));
    put(&mut connection, topic, &mut clock, "end", Some("2"));
    wait_for_offsets(&mut connection, topic, &[3, 4, 5]);
}

fn a_delete_horizon_stands_in_the_header(broker: &Broker) {
    let topic = "compaction-horizon";
    let mut connection = Connection::to(broker);
    let settings = [SETTINGS[0], SETTINGS[1], SETTINGS[2], ("delete.retention.ms", "3600000")];
    connection.create_topic_with(topic, 1, &settings);
    let mut clock = Clock::new();
    put(&mut connection, topic, &mut clock, "a", Some("1"));
    put(&mut connection, topic, &mut clock, "a", None);
    let written = clock.0;
    put(&mut connection, topic, &mut clock, "end", Some("1"));
    wait_for_offsets(&mut connection, topic, &[1, 2]);
    const DELETE_HORIZON: i16 = 1 << 6;
    let bytes = wait::until("a delete horizon", wait::PATIENCE, || {
        let bytes = records_of(&connection.fetch(topic, 0, 0));
        let attributes = i16::from_be_bytes([bytes[21], bytes[22]]);
        (attributes & DELETE_HORIZON != 0).then_some(bytes)
    });
    let horizon_ms = i64::from_be_bytes(bytes[27..35].try_into().expect("eight bytes"));
    let max_timestamp = i64::from_be_bytes(bytes[35..43].try_into().expect("eight bytes"));
    let now = batch::now_ms();
    assert!((now + 3_600_000 - 120_000..=now + 3_600_000).contains(&horizon_ms), "{horizon_ms} at {now}");
    assert_eq!(max_timestamp, written);
    let tombstone = batch::read_records(&bytes).remove(0);
    assert_eq!((tombstone.0, tombstone.1.timestamp, tombstone.1.value), (1, written, None));
}

fn the_last_batch_of_a_producer_stays_empty(broker: &Broker) {
    let topic = "compaction-producers";
    let mut connection = Connection::to(broker);
    connection.create_topic_with(topic, 1, &SETTINGS);
    let mut clock = Clock::new();
    let producer_id = connection.producer_id();
    let mut batch = |sequence| {
        let records = vec![Record { timestamp: clock.next(), ..record("a", "1") }, Record { timestamp: clock.0, ..record("b", "1") }];
        Batch::of(records).producer(producer_id, 0, sequence)
    };
    let (first, second) = (batch(0), batch(2));
    assert_eq!(connection.produce(topic, 0, &first).error_code, 0);
    assert_eq!(connection.produce(topic, 0, &second).error_code, 0);
    put(&mut connection, topic, &mut clock, "a", Some("2"));
    put(&mut connection, topic, &mut clock, "b", Some("2"));
    put(&mut connection, topic, &mut clock, "end", Some("2"));
    wait_for_offsets(&mut connection, topic, &[4, 5, 6]);
    let left = batch::read_batches(&records_of(&connection.fetch(topic, 0, 0))).remove(0);
    assert_eq!((left.base_offset, left.last_offset(), left.records.len()), (2, 3, 0));
    assert_eq!((left.producer_id, left.base_sequence), (producer_id, 2));
    // It is still known what came last: the same again is a duplicate.
    let again = connection.produce(topic, 0, &second);
    assert_eq!((again.error_code, again.base_offset), (0, 2));
}

fn young_records_wait_for_their_lag(broker: &Broker) {
    let topic = "compaction-lag";
    let mut connection = Connection::to(broker);
    let settings = [SETTINGS[0], SETTINGS[1], SETTINGS[2], ("min.compaction.lag.ms", "1800000")];
    connection.create_topic_with(topic, 1, &settings);
    let at = |age_ms: i64, value: &str| Record { timestamp: batch::now_ms() - age_ms, ..record("a", value) };
    for (age_ms, value) in [(7_200_000, "1"), (7_100_000, "2"), (7_000_000, "3"), (100_000, "4"), (50_000, "5")] {
        connection.append(topic, 0, vec![at(age_ms, value)]);
    }
    wait_for_offsets(&mut connection, topic, &[2, 3, 4]);
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(offsets(&mut connection, topic), [2, 3, 4]);
}

fn records_without_a_key_are_refused(broker: &Broker) {
    let topic = "compaction-keyless";
    let mut connection = Connection::to(broker);
    connection.create_topic_with(topic, 1, &SETTINGS);
    let answer = connection.produce(topic, 0, &Batch::of(vec![Record { key: None, ..record("", "v") }]));
    assert_eq!(answer.error_code, 87);
}

/// `__consumer_offsets` is a compacted topic like any other: its files shrink, and the newest offsets are there.
fn group_offsets_are_compacted_and_stay(broker: &Broker) {
    let (topic, group) = ("compaction-committed", "compaction-group");
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    connection.wait_for_coordinator(group);
    for offset in 1..=400 {
        commit(&mut connection, group, topic, offset);
    }
    // Segments roll by time (`log.roll.ms` of this broker) when something is committed.
    let mut offset = 400;
    wait::until("the offsets topic to shrink", wait::PATIENCE, || {
        offset += 1;
        commit(&mut connection, group, topic, offset);
        (offsets_topic_bytes(broker) < 20_000).then_some(())
    });
    let topics = Some(vec![OffsetFetchRequestTopic { name: Str::from(topic), partition_indexes: vec![0], ..Default::default() }]);
    let fetched = connection.call(5, &OffsetFetchRequest { group_id: Str::from(group), topics, ..Default::default() });
    assert_eq!(fetched.topics[0].partitions[0].committed_offset, offset);
}

fn commit(connection: &mut Connection, group: &str, topic: &str, committed_offset: i64) {
    let partition = OffsetCommitRequestPartition { partition_index: 0, committed_offset, committed_leader_epoch: -1, ..Default::default() };
    let topic = OffsetCommitRequestTopic { name: Str::from(topic), partitions: vec![partition], ..Default::default() };
    let request =
        OffsetCommitRequest { group_id: Str::from(group), generation_id_or_member_epoch: -1, topics: vec![topic], ..Default::default() };
    assert_eq!(connection.call(7, &request).topics[0].partitions[0].error_code, 0);
}

/// Bytes of records that the partitions of `__consumer_offsets` hold, by their files.
fn offsets_topic_bytes(broker: &Broker) -> u64 {
    let partitions = std::fs::read_dir(broker.data()).expect("the data directory").flatten();
    let files = partitions
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("__consumer_offsets-"))
        .flat_map(|entry| std::fs::read_dir(entry.path()).into_iter().flatten().flatten());
    let logs = files.filter(|entry| entry.file_name().to_string_lossy().ends_with(".log"));
    logs.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}
