//! ListOffsets, OffsetForLeaderEpoch, DeleteRecords and DescribeLogDirs: what is where in a log.

use corelane_wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use corelane_wire::messages::describe_log_dirs_request::DescribableLogDirTopic;
use corelane_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use corelane_wire::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use corelane_wire::messages::{DeleteRecordsRequest, DescribeLogDirsRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest};
use corelane_wire::{ErrorCode, Str};
use harness::batch::{self, Batch, Codec, Record, record};
use harness::broker::Broker;
use harness::cases;
use harness::raw::{Connection, EARLIEST, LATEST, code, records_of};
use harness::suite::Case;
use harness::wait;

pub const CASES: &[Case] = cases![
    latest_and_earliest_in_every_version,
    special_timestamps_of_an_empty_log,
    special_timestamps_belong_to_versions,
    max_timestamp_finds_its_record,
    times_are_found_exactly_inside_every_codec,
    times_out_of_order_find_the_first_record,
    list_offsets_names_its_errors,
    leader_epochs_end_where_the_log_does,
    delete_records_moves_the_start,
    delete_records_is_checked,
    log_dirs_show_sizes,
];

const MAX_TIMESTAMP: i64 = -3;

fn latest_and_earliest_in_every_version(broker: &Broker) {
    let topic = "offsets-versions";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    connection.append(topic, 0, vec![record("a", "1"), record("b", "2")]);
    let epoch = connection.metadata(9, &[topic]).topics[0].partitions[0].leader_epoch;
    for version in 1..=11 {
        for (timestamp, offset) in [(LATEST, 2), (EARLIEST, 0)] {
            let found = connection.list_offset_in(version, topic, 0, timestamp);
            assert_eq!((code(found.error_code), found.offset, found.timestamp), (ErrorCode::None, offset, -1), "version {version}");
            assert!(version < 4 || found.leader_epoch == epoch, "version {version}: epoch {}", found.leader_epoch);
        }
    }
}

fn special_timestamps_of_an_empty_log(broker: &Broker) {
    let topic = "offsets-empty";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    for (timestamp, offset) in [(LATEST, 0), (EARLIEST, 0), (MAX_TIMESTAMP, -1), (-4, 0), (-5, -1), (0, -1), (batch::now_ms(), -1)] {
        let found = connection.list_offset_in(9, topic, 0, timestamp);
        assert_eq!((code(found.error_code), found.offset, found.timestamp), (ErrorCode::None, offset, -1), "timestamp {timestamp}");
    }
}

fn special_timestamps_belong_to_versions(broker: &Broker) {
    let topic = "offsets-special";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    for (timestamp, known_from) in [(MAX_TIMESTAMP, 7), (-4, 8), (-5, 9), (-7, 99)] {
        for version in [1, 6, 7, 8, 9, 10] {
            let found = connection.list_offset_in(version, topic, 0, timestamp);
            let expected = if version >= known_from { ErrorCode::None } else { ErrorCode::UnsupportedVersion };
            assert_eq!(code(found.error_code), expected, "timestamp {timestamp} in version {version}");
        }
    }
}

fn max_timestamp_finds_its_record(broker: &Broker) {
    let topic = "offsets-max";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    let now = batch::now_ms();
    for codec in [Codec::None, Codec::Gzip] {
        let at = |after: i64| Record { timestamp: now + after, ..record("k", "v") };
        let answer =
            connection.produce(topic, 0, &Batch::of(vec![at(1), at(if codec == Codec::None { 50 } else { 90 }), at(3)]).codec(codec));
        let found = connection.list_offset(topic, 0, MAX_TIMESTAMP);
        assert_eq!(found.offset, answer.base_offset + 1, "{codec:?}");
        assert_eq!(found.timestamp, now + if codec == Codec::None { 50 } else { 90 });
    }
}

fn times_are_found_exactly_inside_every_codec(broker: &Broker) {
    let topic = "offsets-times";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    let base = batch::now_ms() - 1_000_000;
    for (index, codec) in Codec::ALL.into_iter().enumerate() {
        let records = (0..10)
            .map(|position| Record { timestamp: base + (index as i64 * 10 + position) * 100, ..record("k", vec![5; 200]) })
            .collect();
        connection.produce(topic, 0, &Batch::of(records).codec(codec));
    }
    for offset in 0..60 {
        for before in [0, 1, 99] {
            let found = connection.list_offset(topic, 0, base + offset * 100 - before);
            assert_eq!((found.offset, found.timestamp), (offset, base + offset * 100), "{before} ms before offset {offset}");
        }
    }
    let after = connection.list_offset(topic, 0, base + 5_901);
    assert_eq!((code(after.error_code), after.offset, after.timestamp), (ErrorCode::None, -1, -1));
}

/// The first record at or after the time in the order of the log, not of time.
fn times_out_of_order_find_the_first_record(broker: &Broker) {
    let topic = "offsets-out-of-order";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    let base = batch::now_ms() - 1_000_000;
    for after in [50, 10, 90, 20, 70] {
        connection.append(topic, 0, vec![Record { timestamp: base + after, ..record("k", "v") }]);
    }
    for (asked, offset) in [(5, 0), (50, 0), (51, 2), (90, 2), (91, -1)] {
        assert_eq!(connection.list_offset(topic, 0, base + asked).offset, offset, "{asked} ms");
    }
}

fn list_offsets_names_its_errors(broker: &Broker) {
    let topic = "offsets-errors";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    assert_eq!(code(connection.list_offset("offsets-no-such-topic", 0, LATEST).error_code), ErrorCode::UnknownTopicOrPartition);
    let missing = connection.list_offset(topic, 3, LATEST);
    assert_eq!((code(missing.error_code), missing.offset, missing.timestamp), (ErrorCode::UnknownTopicOrPartition, -1, -1));
    let current = connection.metadata(9, &[topic]).topics[0].partitions[0].leader_epoch;
    let ask = |partitions: Vec<(i32, i32)>| {
        let one = |(partition_index, current_leader_epoch)| ListOffsetsPartition {
            partition_index,
            current_leader_epoch,
            timestamp: LATEST,
            ..Default::default()
        };
        let topic =
            ListOffsetsTopic { name: Str::from(topic), partitions: partitions.into_iter().map(one).collect(), ..Default::default() };
        ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() }
    };
    let newer = connection.call(7, &ask(vec![(0, current + 1)]));
    assert_eq!(code(newer.topics[0].partitions[0].error_code), ErrorCode::UnknownLeaderEpoch);
    let twice = connection.call(7, &ask(vec![(0, -1), (0, -1)]));
    assert!(twice.topics[0].partitions.iter().all(|partition| code(partition.error_code) == ErrorCode::InvalidRequest));
}

fn leader_epochs_end_where_the_log_does(broker: &Broker) {
    let topic = "offsets-epochs";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    connection.append(topic, 0, vec![record("a", "1"), record("b", "2")]);
    let epoch = batch::read_batches(&records_of(&connection.fetch(topic, 0, 0)))[0].leader_epoch;
    let mut ask = |partition, leader_epoch| {
        let partition = OffsetForLeaderPartition { partition, current_leader_epoch: -1, leader_epoch, ..Default::default() };
        let topic = OffsetForLeaderTopic { topic: Str::from(topic), partitions: vec![partition], ..Default::default() };
        let mut answer = connection.call(4, &OffsetForLeaderEpochRequest { replica_id: -1, topics: vec![topic], ..Default::default() });
        let found = answer.topics.remove(0).partitions.remove(0);
        (code(found.error_code), found.leader_epoch, found.end_offset)
    };
    assert_eq!(ask(0, epoch), (ErrorCode::None, epoch, 2));
    assert_eq!(ask(0, epoch + 7), (ErrorCode::None, -1, -1));
    assert_eq!(ask(4, epoch), (ErrorCode::UnknownTopicOrPartition, -1, -1));
}

fn delete_records_moves_the_start(broker: &Broker) {
    let topic = "offsets-delete";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    for index in 0..10 {
        connection.append(topic, 0, vec![record("k", format!("{index}"))]);
    }
    assert_eq!(delete(&mut connection, topic, 0, 4), (ErrorCode::None, 4));
    assert_eq!(connection.list_offset(topic, 0, EARLIEST).offset, 4);
    assert_eq!(code(connection.fetch(topic, 0, 3).error_code), ErrorCode::OffsetOutOfRange);
    let data = connection.fetch(topic, 0, 4);
    assert_eq!((code(data.error_code), data.log_start_offset), (ErrorCode::None, 4));
    assert_eq!(delete(&mut connection, topic, 0, 2), (ErrorCode::None, 4), "a start never moves back");
    assert_eq!(delete(&mut connection, topic, 0, -1), (ErrorCode::None, 10), "-1 is the high watermark");
    assert_eq!(connection.list_offset(topic, 0, EARLIEST).offset, 10);
    assert_eq!(connection.append(topic, 0, vec![record("k", "after")]), 10);
}

fn delete_records_is_checked(broker: &Broker) {
    let mut connection = Connection::to(broker);
    connection.create_topic("offsets-delete-checks", 1);
    connection.create_topic_with("offsets-delete-compact", 1, &[("cleanup.policy", "compact")]);
    connection.wait_for_coordinator("offsets-delete");
    assert_eq!(delete(&mut connection, "offsets-delete-checks", 0, 1).0, ErrorCode::OffsetOutOfRange);
    assert_eq!(delete(&mut connection, "offsets-delete-checks", 0, -2).0, ErrorCode::OffsetOutOfRange);
    assert_eq!(delete(&mut connection, "offsets-delete-checks", 8, 0).0, ErrorCode::UnknownTopicOrPartition);
    assert_eq!(delete(&mut connection, "offsets-delete-compact", 0, 0).0, ErrorCode::PolicyViolation);
    assert_eq!(delete(&mut connection, "__consumer_offsets", 0, 0).0, ErrorCode::InvalidTopicException);
}

fn delete(connection: &mut Connection, topic: &str, partition_index: i32, offset: i64) -> (ErrorCode, i64) {
    let partition = DeleteRecordsPartition { partition_index, offset, ..Default::default() };
    let topic = DeleteRecordsTopic { name: Str::from(topic), partitions: vec![partition], ..Default::default() };
    let mut answer = connection.call(2, &DeleteRecordsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() });
    let found = answer.topics.remove(0).partitions.remove(0);
    (code(found.error_code), found.low_watermark)
}

fn log_dirs_show_sizes(broker: &Broker) {
    let topic = "offsets-log-dirs";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 2);
    connection.append(topic, 1, vec![record("k", vec![1; 50_000])]);
    let request = DescribeLogDirsRequest {
        topics: Some(vec![DescribableLogDirTopic { topic: Str::from(topic), partitions: vec![0, 1], ..Default::default() }]),
        ..Default::default()
    };
    wait::until("the partition's size", wait::PATIENCE, || {
        let answer = connection.call(4, &request);
        assert_eq!((code(answer.error_code), answer.results.len()), (ErrorCode::None, 1));
        let directory = &answer.results[0];
        assert!(directory.log_dir.starts_with('/') && directory.total_bytes > 0 && directory.usable_bytes > 0);
        let mut sizes: Vec<(i32, i64)> =
            directory.topics[0].partitions.iter().map(|partition| (partition.partition_index, partition.partition_size)).collect();
        sizes.sort_unstable();
        assert_eq!(sizes.len(), 2);
        (sizes[0].1 == 0 && sizes[1].1 >= 50_000).then_some(())
    });
}
