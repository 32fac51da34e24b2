//! Produce: which requests are taken, which batches, and what the answer says.

use std::time::Duration;

use bytes::Bytes;
use corelane_wire::messages::ProduceRequest;
use corelane_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use corelane_wire::messages::produce_response::PartitionProduceResponse;
use corelane_wire::{ErrorCode, Records};
use harness::batch::{self, ATTRIBUTE_CONTROL, ATTRIBUTE_LOG_APPEND_TIME, ATTRIBUTE_TRANSACTIONAL, Batch, Codec, Record, record};
use harness::broker::Broker;
use harness::raw::{Connection, code, produce_request, records_of};
use harness::suite::Case;
use harness::wait;
use harness::{cases, differences};

pub const CASES: &[Case] = cases![
    every_version_stores_the_batch_as_sent,
    offsets_count_records_not_batches,
    acks_1_and_all_are_answered,
    acks_0_is_never_answered,
    acks_0_that_fails_closes_the_connection,
    other_acks_are_refused,
    unknown_topic_or_partition_is_named,
    topic_ids_are_taken_from_version_13,
    one_failing_partition_leaves_the_others_alone,
    internal_topics_are_not_for_clients,
    corrupt_crc_is_refused,
    truncated_batch_is_refused,
    no_batch_is_refused,
    two_batches_are_refused,
    old_formats_are_refused,
    base_offset_other_than_zero_is_refused,
    counts_that_do_not_match_are_refused,
    offset_deltas_that_do_not_count_up,
    control_batches_are_not_for_clients,
    transactional_batches_need_a_transactional_id,
    sequence_without_number_is_refused,
    zstd_needs_version_7,
    batch_above_max_message_bytes_is_refused,
    batch_above_segment_bytes_is_refused,
    compacted_topics_need_keys_and_name_the_records_without,
    timestamps_outside_the_bounds_name_their_records,
    append_time_claimed_by_a_client_is_ignored,
    log_append_time_is_set_by_the_broker,
    compression_type_of_the_topic_wins,
    compressed_garbage_is_refused,
];

fn every_version_stores_the_batch_as_sent(broker: &Broker) {
    let topic = "produce-versions";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    for (index, version) in (3..=12).enumerate() {
        let sent = Batch::of(vec![record("k", format!("version {version}"))]).encode();
        let answer = connection.produce_bytes(version, topic, 0, -1, sent.clone());
        assert_eq!((code(answer.error_code), answer.base_offset), (ErrorCode::None, index as i64), "version {version}");
        if version >= 5 {
            assert_eq!(answer.log_start_offset, 0, "version {version}");
        }
        assert_eq!(answer.log_append_time_ms, -1, "version {version}");
        let stored = batch::read_batches(&records_of(&connection.fetch(topic, 0, answer.base_offset))).remove(0);
        assert_eq!(stored.base_offset, index as i64);
        assert_eq!(stored.bytes[16..], sent[16..], "only offset and leader epoch may change");
    }
}

fn offsets_count_records_not_batches(broker: &Broker) {
    let topic = "produce-offsets";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    let mut expected = 0;
    for (size, codec) in [1, 7, 100, 3, 1, 12].into_iter().zip(Codec::ALL) {
        let records: Vec<Record> = (0..size).map(|index| record("k", format!("{index}"))).collect();
        let answer = connection.produce(topic, 0, &Batch::of(records).codec(codec));
        assert_eq!((code(answer.error_code), answer.base_offset), (ErrorCode::None, expected), "{codec:?}");
        expected += size;
    }
    let offsets: Vec<i64> = connection.read_all(topic, 0, 0).into_iter().map(|(offset, _)| offset).collect();
    assert_eq!(offsets, (0..expected).collect::<Vec<_>>());
}

fn acks_1_and_all_are_answered(broker: &Broker) {
    let topic = "produce-acks";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    for (index, acks) in [1, -1, 1].into_iter().enumerate() {
        let answer = connection.produce_bytes(9, topic, 0, acks, one().encode());
        assert_eq!((code(answer.error_code), answer.base_offset), (ErrorCode::None, index as i64), "acks={acks}");
    }
}

/// The next answer on the connection is that of the next request, and the record is there.
fn acks_0_is_never_answered(broker: &Broker) {
    let topic = "produce-acks-0";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    for _ in 0..5 {
        connection.send(9, &produce_request(topic, 0, 0, one().encode())).expect("the socket takes it");
    }
    connection.assert_silent(Duration::from_millis(200));
    wait::until("the records", wait::PATIENCE, || (connection.end_offset(topic, 0) == 5).then_some(()));
}

fn acks_0_that_fails_closes_the_connection(broker: &Broker) {
    let mut connection = Connection::to(broker);
    connection.send(9, &produce_request("produce-no-such-topic", 0, 0, one().encode())).expect("the socket takes it");
    connection.assert_closed("a failed produce with acks=0");
}

fn other_acks_are_refused(broker: &Broker) {
    let topic = "produce-acks-2";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    for acks in [2, -2, 100] {
        let answer = connection.produce_bytes(9, topic, 0, acks, one().encode());
        assert_eq!(code(answer.error_code), ErrorCode::InvalidRequiredAcks, "acks={acks}");
        assert_eq!(answer.base_offset, -1);
    }
    assert_eq!(connection.end_offset(topic, 0), 0);
}

/// And the topic is not made by it.
fn unknown_topic_or_partition_is_named(broker: &Broker) {
    let mut connection = Connection::to(broker);
    connection.create_topic("produce-one-partition", 1);
    for (topic, partition) in [("produce-unknown", 0), ("produce-one-partition", 1), ("produce-one-partition", -1)] {
        let answer = connection.produce_bytes(9, topic, partition, -1, one().encode());
        assert_eq!(code(answer.error_code), ErrorCode::UnknownTopicOrPartition, "{topic}-{partition}");
        assert_eq!(answer.base_offset, -1);
    }
    assert_eq!(code(connection.metadata(9, &["produce-unknown"]).topics[0].error_code), ErrorCode::UnknownTopicOrPartition);
}

fn topic_ids_are_taken_from_version_13(broker: &Broker) {
    let topic = "produce-topic-id";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    let id = connection.topic_id(topic);
    let ask = |topic_id| {
        let partition = PartitionProduceData { index: 0, records: Some(Records::from(one().encode())), ..Default::default() };
        let topic = TopicProduceData { topic_id, partition_data: vec![partition], ..Default::default() };
        ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..Default::default() }
    };
    let known = connection.call(13, &ask(id));
    assert_eq!(known.responses[0].topic_id, id);
    assert_eq!(code(known.responses[0].partition_responses[0].error_code), ErrorCode::None);
    for stranger in [uuid::Uuid::from_u128(0xfeed_beef), uuid::Uuid::nil()] {
        let unknown = connection.call(13, &ask(stranger));
        assert_eq!(code(unknown.responses[0].partition_responses[0].error_code), ErrorCode::UnknownTopicId, "{stranger}");
    }
}

fn one_failing_partition_leaves_the_others_alone(broker: &Broker) {
    let topic = "produce-mixed";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 4);
    let mut request = produce_request(topic, 0, -1, one().encode());
    let mut corrupt = one().encode().to_vec();
    *corrupt.last_mut().expect("a batch has bytes") ^= 1;
    for (index, records) in [(1, Bytes::from(corrupt)), (2, one().encode()), (9, one().encode())] {
        request.topic_data[0].partition_data.push(PartitionProduceData {
            index,
            records: Some(Records::from(records)),
            ..Default::default()
        });
    }
    let answer = connection.call(9, &request);
    let mut codes: Vec<_> =
        answer.responses[0].partition_responses.iter().map(|partition| (partition.index, code(partition.error_code))).collect();
    codes.sort_by_key(|(index, _)| *index);
    let expected = [(0, ErrorCode::None), (1, ErrorCode::CorruptMessage), (2, ErrorCode::None), (9, ErrorCode::UnknownTopicOrPartition)];
    assert_eq!(codes, expected);
    assert_eq!((0..4).map(|partition| connection.end_offset(topic, partition)).collect::<Vec<_>>(), [1, 0, 1, 0]);
}

fn internal_topics_are_not_for_clients(broker: &Broker) {
    let mut connection = Connection::to(broker);
    connection.wait_for_coordinator("produce-internal");
    let answer = connection.produce_bytes(9, "__consumer_offsets", 0, -1, one().encode());
    assert_eq!(code(answer.error_code), ErrorCode::InvalidTopicException);
}

fn corrupt_crc_is_refused(broker: &Broker) {
    let mut batch = Batch::of(vec![record("k", vec![7; 500])]).encode().to_vec();
    for at in [17, 22, 61, 300] {
        batch[at] ^= 0x40;
        refused(broker, "produce-crc", &[], Bytes::from(batch.clone()), ErrorCode::CorruptMessage);
        batch[at] ^= 0x40;
    }
}

fn truncated_batch_is_refused(broker: &Broker) {
    let batch = Batch::of(vec![record("k", vec![7; 500])]).encode();
    refused(broker, "produce-truncated-header", &[], batch.slice(..60), ErrorCode::InvalidRecord);
    refused(broker, "produce-truncated-body", &[], batch.slice(..batch.len() - 1), ErrorCode::InvalidRecord);
    refused(broker, "produce-truncated-length", &[], batch.slice(..11), ErrorCode::InvalidRecord);
}

fn no_batch_is_refused(broker: &Broker) {
    refused(broker, "produce-empty", &[], Bytes::new(), ErrorCode::InvalidRecord);
    refused(broker, "produce-no-records", &[], Batch::of(Vec::new()).encode(), ErrorCode::InvalidRecord);
}

fn two_batches_are_refused(broker: &Broker) {
    let two = Bytes::from([one().encode(), one().encode()].concat());
    refused(broker, "produce-two", &[], two, ErrorCode::InvalidRecord);
}

fn old_formats_are_refused(broker: &Broker) {
    for (magic, expected) in
        [(0, ErrorCode::InvalidRecord), (1, ErrorCode::InvalidRecord), (3, ErrorCode::CorruptMessage), (-1, ErrorCode::CorruptMessage)]
    {
        let batch = Batch { magic, ..one() }.encode();
        refused(broker, "produce-magic", &[], batch, expected);
    }
}

fn base_offset_other_than_zero_is_refused(broker: &Broker) {
    refused(broker, "produce-base-offset", &[], Batch { base_offset: 5, ..one() }.encode(), ErrorCode::InvalidRecord);
}

/// The header's count, the last offset delta and the records there are must agree.
fn counts_that_do_not_match_are_refused(broker: &Broker) {
    let two = || Batch::of(vec![record("a", "1"), record("b", "2")]);
    for codec in [Codec::None, Codec::Gzip] {
        for lie in [
            Batch { count: Some(3), ..two() },
            Batch { count: Some(3), last_offset_delta: Some(2), ..two() },
            Batch { count: Some(1), last_offset_delta: Some(0), ..two() },
            Batch { count: Some(0), last_offset_delta: Some(-1), ..two() },
            Batch { count: Some(-1), last_offset_delta: Some(-2), ..two() },
            Batch { last_offset_delta: Some(5), ..two() },
        ] {
            refused(broker, "produce-counts", &[], lie.clone().codec(codec).encode(), ErrorCode::InvalidRecord);
        }
    }
}

/// Records that do not count 0, 1, 2 inside their batch would give a consumer the same offset twice, or one that the next batch has too.
fn offset_deltas_that_do_not_count_up(broker: &Broker) {
    let topic = "produce-deltas";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    for (codec, difference) in [(Codec::None, "wrong-offset-deltas"), (Codec::Gzip, "wrong-offset-deltas-compressed")] {
        for deltas in [vec![0, 5], vec![1, 0]] {
            let batch = Batch { offset_deltas: Some(deltas.clone()), ..Batch::of(vec![record("a", "1"), record("b", "2")]) }.codec(codec);
            let answer = connection.produce(topic, 0, &batch);
            assert_eq!(code(answer.error_code).name(), differences::expected(difference), "{codec:?} {deltas:?}");
        }
    }
}

fn control_batches_are_not_for_clients(broker: &Broker) {
    let marker = Batch { attributes: ATTRIBUTE_CONTROL, ..one().producer(1, 0, -1) };
    refused(broker, "produce-control", &[], marker.encode(), ErrorCode::InvalidRecord);
}

/// The whole request fails, which without an authorizer can only mean this.
fn transactional_batches_need_a_transactional_id(broker: &Broker) {
    let batch = Batch { attributes: ATTRIBUTE_TRANSACTIONAL, ..one().producer(1, 0, 0) };
    refused(broker, "produce-transactional", &[], batch.encode(), ErrorCode::TransactionalIdAuthorizationFailed);
}

fn sequence_without_number_is_refused(broker: &Broker) {
    refused(broker, "produce-no-sequence", &[], one().producer(1, 0, -1).encode(), ErrorCode::InvalidRecord);
}

fn zstd_needs_version_7(broker: &Broker) {
    let topic = "produce-zstd";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    let batch = one().codec(Codec::Zstd).encode();
    assert_eq!(code(connection.produce_bytes(6, topic, 0, -1, batch.clone()).error_code), ErrorCode::UnsupportedCompressionType);
    assert_eq!(code(connection.produce_bytes(7, topic, 0, -1, batch).error_code), ErrorCode::None);
    assert_eq!(connection.end_offset(topic, 0), 1);
}

/// What counts is the batch as it was sent: exactly at the limit passes, one byte more does not.
fn batch_above_max_message_bytes_is_refused(broker: &Broker) {
    let size_of = |value: usize| Batch::of(vec![record("k", vec![1; value])]).encode();
    let fits = size_of(1_000);
    let limit = fits.len().to_string();
    let topic = "produce-too-large";
    refused(broker, topic, &[("max.message.bytes", &limit)], size_of(1_001), ErrorCode::MessageTooLarge);
    let answer = Connection::to(broker).produce_bytes(9, topic, 0, -1, fits);
    assert_eq!(code(answer.error_code), ErrorCode::None);
}

fn batch_above_segment_bytes_is_refused(broker: &Broker) {
    let configs = [("segment.bytes", "1048576"), ("max.message.bytes", "4000000")];
    let batch = Batch::of(vec![record("k", vec![1; 2_000_000])]).encode();
    refused(broker, "produce-above-segment", &configs, batch, ErrorCode::RecordListTooLarge);
}

/// KIP-467: every bad record is named by its index, and the batch is dropped as a whole.
fn compacted_topics_need_keys_and_name_the_records_without(broker: &Broker) {
    let mut records: Vec<Record> = (0..4).map(|index| record("k", format!("{index}"))).collect();
    records[1].key = None;
    records[3].key = None;
    for codec in [Codec::None, Codec::Lz4] {
        let bytes = Batch::of(records.clone()).codec(codec).encode();
        let answer = refused(broker, "produce-compact", &[("cleanup.policy", "compact")], bytes, ErrorCode::InvalidRecord);
        assert_eq!(answer.record_errors.iter().map(|error| error.batch_index).collect::<Vec<_>>(), [1, 3], "{codec:?}");
        assert!(answer.record_errors.iter().all(|error| error.batch_index_error_message.is_some()));
        assert!(answer.error_message.is_some());
    }
}

fn timestamps_outside_the_bounds_name_their_records(broker: &Broker) {
    let now = batch::now_ms();
    let at = |timestamp| Record { timestamp, ..record("k", "v") };
    let late = Batch::of(vec![at(now), at(now + 2 * 3_600_000)]).encode();
    let answer = refused(broker, "produce-future", &[], late, ErrorCode::InvalidTimestamp);
    assert_eq!(answer.record_errors.iter().map(|error| error.batch_index).collect::<Vec<_>>(), [1]);
    let early = Batch::of(vec![at(now - 120_000), at(now)]).encode();
    let answer = refused(broker, "produce-past", &[("message.timestamp.before.max.ms", "60000")], early, ErrorCode::InvalidTimestamp);
    assert_eq!(answer.record_errors.iter().map(|error| error.batch_index).collect::<Vec<_>>(), [0]);
    // A record without a timestamp is in order, however narrow the bounds.
    let answer = Connection::to(broker).produce("produce-past", 0, &Batch::of(vec![at(-1)]));
    assert_eq!(code(answer.error_code), ErrorCode::None);
}

/// The bit that says LogAppendTime is the topic's to set: a client's is cleared, and its timestamps stay its own.
fn append_time_claimed_by_a_client_is_ignored(broker: &Broker) {
    let topic = "produce-claims-append-time";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    for codec in [Codec::None, Codec::Gzip] {
        let claimed = Batch { attributes: ATTRIBUTE_LOG_APPEND_TIME, ..one() }.codec(codec);
        let answer = connection.produce(topic, 0, &claimed);
        assert_eq!((code(answer.error_code), answer.log_append_time_ms), (ErrorCode::None, -1), "{codec:?}");
        let stored = batch::read_batches(&records_of(&connection.fetch(topic, 0, answer.base_offset))).remove(0);
        assert_eq!(stored.attributes, codec.number(), "{codec:?}");
        assert_eq!(stored.records[0].1.timestamp, claimed.records[0].timestamp, "{codec:?}");
    }
}

/// The answer and the stored batch carry the broker's time, the CRC covers it, and the records' own deltas stay.
fn log_append_time_is_set_by_the_broker(broker: &Broker) {
    let topic = "produce-append-time";
    let mut connection = Connection::to(broker);
    connection.create_topic_with(topic, 1, &[("message.timestamp.type", "LogAppendTime")]);
    let before = batch::now_ms();
    for codec in [Codec::None, Codec::Gzip] {
        let sent =
            Batch::of(vec![Record { timestamp: 1_000, ..record("a", "1") }, Record { timestamp: 2_000, ..record("b", "2") }]).codec(codec);
        let answer = connection.produce(topic, 0, &sent);
        assert_eq!(code(answer.error_code), ErrorCode::None);
        let stored = batch::read_batches(&records_of(&connection.fetch(topic, 0, answer.base_offset))).remove(0);
        assert_ne!(stored.attributes & ATTRIBUTE_LOG_APPEND_TIME, 0, "{codec:?}");
        assert_eq!(stored.max_timestamp, answer.log_append_time_ms, "{codec:?}");
        assert!((before..=batch::now_ms() + 1).contains(&answer.log_append_time_ms), "{} is not now", answer.log_append_time_ms);
        assert_eq!(stored.records.len(), 2);
    }
}

fn compression_type_of_the_topic_wins(broker: &Broker) {
    let mut connection = Connection::to(broker);
    let records: Vec<Record> = (0..50).map(|index| record("key", format!("value {index}"))).collect();
    for (name, number) in [("uncompressed", 0), ("gzip", 1), ("snappy", 2), ("lz4", 3), ("zstd", 4), ("producer", -1)] {
        let topic = format!("produce-compression-{name}");
        connection.create_topic_with(&topic, 1, &[("compression.type", name)]);
        for (index, codec) in [Codec::None, Codec::Gzip, Codec::RawSnappy, Codec::Zstd].into_iter().enumerate() {
            let sent = Batch::of(records.clone()).codec(codec);
            let answer = connection.produce(&topic, 0, &sent);
            assert_eq!((code(answer.error_code), answer.base_offset), (ErrorCode::None, index as i64 * 50), "{codec:?} into {name}");
            let stored = batch::read_batches(&records_of(&connection.fetch(&topic, 0, answer.base_offset))).remove(0);
            let expected = if number < 0 { codec.number() } else { number };
            assert_eq!(stored.codec_number(), expected, "{codec:?} into {name}");
            let read: Vec<Record> = stored.records.into_iter().map(|(_, record)| record).collect();
            assert_eq!(read, records, "{codec:?} into {name}");
        }
    }
}

/// A batch that claims to be compressed and is not, with a CRC that fits. The original's answer depends on which library fails where; a client may only rely on a refusal.
fn compressed_garbage_is_refused(broker: &Broker) {
    let topic = "produce-garbage";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let honest = one().codec(codec);
        let answer = connection.produce_bytes(9, topic, 0, -1, honest.encode_with(&[0x5a; 200]));
        let refusals = [ErrorCode::CorruptMessage, ErrorCode::InvalidRecord, ErrorCode::UnknownServerError];
        assert!(refusals.contains(&code(answer.error_code)), "{codec:?}: {}", code(answer.error_code).name());
    }
    assert_eq!(connection.end_offset(topic, 0), 0);
}

fn one() -> Batch {
    Batch::of(vec![record("k", "v")])
}

/// Produces bytes that the broker must refuse with `expected`, and asserts that nothing was written.
fn refused(broker: &Broker, topic: &str, configs: &[(&str, &str)], bytes: Bytes, expected: ErrorCode) -> PartitionProduceResponse {
    let mut connection = Connection::to(broker);
    if code(connection.metadata(9, &[topic]).topics[0].error_code) != ErrorCode::None {
        connection.create_topic_with(topic, 1, configs);
    }
    let answer = connection.produce_bytes(9, topic, 0, -1, bytes.clone());
    assert_eq!(code(answer.error_code), expected, "{topic}, {} bytes: {:?}", bytes.len(), answer.error_message);
    assert_eq!(answer.base_offset, -1, "{topic}");
    assert_eq!(connection.end_offset(topic, 0), 0, "{topic}: a refused batch is not written");
    answer
}
