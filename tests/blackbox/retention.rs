//! What a log lets go of, and when: by time, by size, in which order, and what stays. On a broker that looks every moment.

use std::time::Duration;

use corelane_wire::Str;
use corelane_wire::messages::IncrementalAlterConfigsRequest;
use corelane_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use harness::batch::{self, Batch, Record, record};
use harness::broker::{Broker, BrokerOptions};
use harness::cases;
use harness::raw::{Connection, EARLIEST};
use harness::suite::Case;
use harness::wait;

pub const CASES: &[Case] = cases![
    old_segments_go_by_time,
    the_active_segment_ages_too,
    a_record_from_the_future_holds_what_follows,
    segments_go_by_size_and_no_less_stays,
    retention_is_altered_while_running,
    compacted_topics_keep_by_key_not_by_age,
    deleted_files_keep_their_place_for_a_while,
];

const HOUR_MS: i64 = 3_600_000;

/// Longer than some looks of the broker.
const SOME_LOOKS: Duration = Duration::from_secs(3);

/// A broker that begins segments often, and looks for old ones and for logs to compact all the time.
pub fn options() -> BrokerOptions {
    BrokerOptions::default()
        .set("log.retention.check.interval.ms", 300)
        .set("log.initial.task.delay.ms", 300)
        .set("log.roll.ms", 200)
        .set("log.cleaner.backoff.ms", 200)
        .set("log.cleaner.dedupe.buffer.size", 4 << 20)
}

/// Appends one batch for each of these ages; as `segment.ms` is 1, every change of time begins a segment.
fn append_aged(connection: &mut Connection, topic: &str, ages_ms: &[i64], value_bytes: usize) {
    let now = batch::now_ms();
    for age_ms in ages_ms {
        connection.append(topic, 0, vec![Record { timestamp: now - age_ms, ..record("k", vec![7; value_bytes]) }]);
    }
}

fn earliest(connection: &mut Connection, topic: &str) -> i64 {
    connection.list_offset(topic, 0, EARLIEST).offset
}

fn wait_for_earliest(connection: &mut Connection, topic: &str, expected: i64) {
    wait::until("the log to begin later", wait::PATIENCE, || (earliest(connection, topic) == expected).then_some(()));
}

fn old_segments_go_by_time(broker: &Broker) {
    let topic = "retention-time";
    let mut connection = Connection::to(broker);
    connection.create_topic_with(topic, 1, &[("segment.ms", "1"), ("retention.ms", "3600000")]);
    append_aged(&mut connection, topic, &[5 * HOUR_MS, 4 * HOUR_MS, 3 * HOUR_MS, 1_000, 500], 10);
    wait_for_earliest(&mut connection, topic, 3);
    std::thread::sleep(SOME_LOOKS);
    let offsets: Vec<i64> = connection.read_all(topic, 0, 3).iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, [3, 4]);
    assert_eq!(connection.fetch(topic, 0, 2).error_code, 1, "what is gone is out of range");
}

fn the_active_segment_ages_too(broker: &Broker) {
    let topic = "retention-active";
    let mut connection = Connection::to(broker);
    connection.create_topic_with(topic, 1, &[("retention.ms", "3600000")]);
    append_aged(&mut connection, topic, &[5 * HOUR_MS, 4 * HOUR_MS, 3 * HOUR_MS], 10);
    wait_for_earliest(&mut connection, topic, 3);
    assert_eq!(connection.end_offset(topic, 0), 3);
    assert_eq!(connection.append(topic, 0, vec![record("k", "young")]), 3);
    std::thread::sleep(SOME_LOOKS);
    assert_eq!(connection.read_all(topic, 0, 3).len(), 1);
}

fn a_record_from_the_future_holds_what_follows(broker: &Broker) {
    let topic = "retention-future";
    let mut connection = Connection::to(broker);
    connection.create_topic_with(topic, 1, &[("segment.ms", "1"), ("retention.ms", "3600000")]);
    append_aged(&mut connection, topic, &[5 * HOUR_MS, -HOUR_MS / 2, 4 * HOUR_MS, 3 * HOUR_MS], 10);
    wait_for_earliest(&mut connection, topic, 1);
    std::thread::sleep(SOME_LOOKS);
    assert_eq!(earliest(&mut connection, topic), 1);
}

fn segments_go_by_size_and_no_less_stays(broker: &Broker) {
    let topic = "retention-size";
    let mut connection = Connection::to(broker);
    connection.create_topic_with(topic, 1, &[("segment.ms", "1"), ("retention.bytes", "35000")]);
    append_aged(&mut connection, topic, &[10_000, 9_000, 8_000, 7_000, 6_000, 5_000, 4_000, 3_000, 2_000, 1_000], 10_000);
    wait_for_earliest(&mut connection, topic, 6);
    std::thread::sleep(SOME_LOOKS);
    assert_eq!(earliest(&mut connection, topic), 6, "three segments would be less than was asked for");
}

fn retention_is_altered_while_running(broker: &Broker) {
    let topic = "retention-altered";
    let mut connection = Connection::to(broker);
    connection.create_topic_with(topic, 1, &[("segment.ms", "1")]);
    append_aged(&mut connection, topic, &[5 * HOUR_MS, 4 * HOUR_MS, 1_000, 500], 10);
    std::thread::sleep(SOME_LOOKS);
    assert_eq!(earliest(&mut connection, topic), 0, "a week by default");
    alter(&mut connection, topic, "retention.ms", "3600000");
    wait_for_earliest(&mut connection, topic, 2);
}

fn compacted_topics_keep_by_key_not_by_age(broker: &Broker) {
    let topic = "retention-compacted";
    let mut connection = Connection::to(broker);
    let settings = [("segment.ms", "1"), ("retention.ms", "1"), ("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "1.0")];
    connection.create_topic_with(topic, 1, &settings);
    append_aged(&mut connection, topic, &[5 * HOUR_MS, 4 * HOUR_MS], 10);
    std::thread::sleep(SOME_LOOKS);
    assert_eq!(earliest(&mut connection, topic), 0);
    let both = [("segment.ms", "1"), ("retention.ms", "3600000"), ("cleanup.policy", "compact,delete")];
    connection.create_topic_with("retention-both", 1, &both);
    append_aged(&mut connection, "retention-both", &[5 * HOUR_MS, 4 * HOUR_MS, 500], 10);
    wait_for_earliest(&mut connection, "retention-both", 2);
}

/// The files of a segment that has gone have `.deleted` behind their names until `file.delete.delay.ms` is over.
fn deleted_files_keep_their_place_for_a_while(broker: &Broker) {
    let mut connection = Connection::to(broker);
    for (topic, delay_ms, files) in [("retention-slow-files", "600000", 1), ("retention-quick-files", "100", 0)] {
        let settings = [("segment.ms", "1"), ("retention.ms", "3600000"), ("file.delete.delay.ms", delay_ms)];
        connection.create_topic_with(topic, 1, &settings);
        connection.produce(topic, 0, &Batch::of(vec![Record { timestamp: batch::now_ms() - 2 * HOUR_MS, ..record("k", "v") }]));
        connection.append(topic, 0, vec![record("k", "v")]);
        wait_for_earliest(&mut connection, topic, 1);
        let directory = broker.data().join(format!("{topic}-0"));
        let logs = |suffix: &str| {
            let names = std::fs::read_dir(&directory).expect("the topic's directory").map(|entry| entry.expect("its entry").file_name());
            names.filter(|name| name.to_string_lossy().ends_with(suffix)).count()
        };
        wait::until("the files to go", wait::PATIENCE, || (logs(".log") == 1 && logs(".log.deleted") == files).then_some(()));
    }
}

fn alter(connection: &mut Connection, topic: &str, key: &str, value: &str) {
    let config = AlterableConfig { name: Str::from(key), config_operation: 0, value: Some(Str::from(value)), ..Default::default() };
    let resource = AlterConfigsResource { resource_type: 2, resource_name: Str::from(topic), configs: vec![config], ..Default::default() };
    let answer = connection.call(1, &IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() });
    assert_eq!(answer.responses[0].error_code, 0, "{:?}", answer.responses[0].error_message);
}
