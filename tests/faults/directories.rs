//! Several data directories: new replicas are spread over them, stay where they are, are told of, and move from one to the other when they are asked to.

use std::collections::BTreeMap;
use std::time::Duration;

use corelane_wire::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use corelane_wire::messages::alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
use corelane_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use corelane_wire::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use corelane_wire::messages::{
    AlterPartitionReassignmentsRequest, AlterReplicaLogDirsRequest, DescribeLogDirsRequest, IncrementalAlterConfigsRequest,
    ListPartitionReassignmentsRequest,
};
use corelane_wire::{ErrorCode, Str};
use harness::batch::record;
use harness::broker::{Broker, BrokerOptions, java_with};
use harness::own_broker_cases;
use harness::places::Target;
use harness::raw::{Connection, code};
use harness::suite::OwnBrokerCase;
use harness::wait;

use crate::writer::mix;

pub const CASES: &[OwnBrokerCase] = own_broker_cases![
    replicas_are_spread_and_stay,
    a_replica_moves_beside_traffic_and_stays,
    moves_are_checked,
    killed_while_replicas_move,
    kafkas_tool_moves_a_replica,
    reassignments_of_one_node_are_answered,
];

const TOPIC: &str = "spread";
const PARTITIONS: i32 = 12;

fn replicas_are_spread_and_stay() {
    let mut broker = Broker::start(BrokerOptions { more_directories: 2, ..BrokerOptions::default() });
    let mut connection = Connection::to(&broker);
    connection.create_topic(TOPIC, PARTITIONS);
    for partition in 0..PARTITIONS {
        connection.append(TOPIC, partition, vec![record("k", partition.to_string())]);
    }
    let before = places(&mut connection);
    assert_eq!(before.values().map(Vec::len).sum::<usize>(), PARTITIONS as usize);
    assert!(before.len() == 3 && before.values().all(|partitions| partitions.len() >= 2), "{before:?}");
    for is_clean in [false, true] {
        let mut connection = end_and_start(&mut broker, is_clean);
        connection.wait_for_leaders(TOPIC, PARTITIONS);
        assert_eq!(places(&mut connection), before);
        for partition in 0..PARTITIONS {
            assert_eq!(connection.read_all(TOPIC, partition, 0).len(), 1, "partition {partition}");
        }
    }
}

/// Some megabytes move at a bounded rate, so that the copy can be seen while it is made; producing goes on, the replica arrives, and is found there after either kind of end.
fn a_replica_moves_beside_traffic_and_stays() {
    let topic = "moving";
    let mut broker = Broker::start(BrokerOptions { more_directories: 1, ..BrokerOptions::default() });
    let mut connection = Connection::to(&broker);
    connection.create_topic_with(topic, 1, &[("segment.bytes", "1048576")]);
    bound_the_rate(&mut connection, 2_000_000);
    let mut records = 0;
    for _ in 0..60 {
        connection.append(topic, 0, vec![record("k", vec![b'v'; 60_000])]);
        records += 1;
    }
    let (here, there) = (place_of(&mut connection, topic), other_place(&mut connection, topic));
    assert_eq!(move_to(&mut connection, &there, topic, 0), ErrorCode::None);
    wait::until("the copy", wait::PATIENCE, || {
        replicas(&mut connection, topic).iter().any(|replica| replica.is_future && replica.directory == there).then_some(())
    });
    wait::until("the replica to arrive", Duration::from_secs(60), || {
        connection.append(topic, 0, vec![record("k", "beside")]);
        records += 1;
        std::thread::sleep(Duration::from_millis(20));
        is_only_in(&mut connection, topic, 0, &there).then_some(())
    });
    let found = replicas(&mut connection, topic).remove(0);
    assert!(!found.is_future && found.offset_lag == 0 && found.size_bytes > 60 * 60_000, "{found:?}");
    assert_eq!(connection.read_all(topic, 0, 0).len(), records);
    assert_eq!(move_to(&mut connection, &there, topic, 0), ErrorCode::None, "it is there");
    for is_clean in [false, true] {
        let mut connection = end_and_start(&mut broker, is_clean);
        connection.wait_for_leaders(topic, 1);
        assert_eq!(place_of(&mut connection, topic), there, "and not in {here}");
        assert_eq!(connection.read_all(topic, 0, 0).len(), records);
        connection.append(topic, 0, vec![record("k", "later")]);
        records += 1;
    }
}

/// Another life behind either kind of end.
fn end_and_start(broker: &mut Broker, is_clean: bool) -> Connection {
    if is_clean {
        assert!(broker.terminate(Duration::from_secs(60)).success() || broker.target() == Target::Kafka);
    } else {
        broker.kill();
    }
    broker.restart();
    Connection::to(broker)
}

fn moves_are_checked() {
    let topic = "moves-checked";
    let broker = Broker::start(BrokerOptions { more_directories: 1, ..BrokerOptions::default() });
    let mut connection = Connection::to(&broker);
    connection.create_topic(topic, 1);
    connection.append(topic, 0, vec![record("k", "v")]);
    let here = place_of(&mut connection, topic);
    assert_eq!(move_to(&mut connection, &here, topic, 0), ErrorCode::None);
    assert_eq!(move_to(&mut connection, "/not/there", topic, 0), ErrorCode::LogDirNotFound);
    assert_eq!(move_to(&mut connection, "relative", topic, 0), ErrorCode::LogDirNotFound);
    assert_eq!(move_to(&mut connection, &here, topic, 7), ErrorCode::UnknownTopicOrPartition);
    assert_eq!(move_to(&mut connection, &here, "no-such-topic", 0), ErrorCode::UnknownTopicOrPartition);
    assert_eq!(move_to(&mut connection, "/not/there", &"t".repeat(249), 0), ErrorCode::InvalidTopicException);
    let there = other_place(&mut connection, topic);
    for version in [1, 2] {
        let answer = connection.call(version, &request(&there, topic, &[0, 1]));
        let outcomes: Vec<(i32, ErrorCode)> =
            answer.results[0].partitions.iter().map(|partition| (partition.partition_index, code(partition.error_code))).collect();
        assert_eq!(answer.results.len(), 1);
        assert!(outcomes.contains(&(0, ErrorCode::None)) && outcomes.contains(&(1, ErrorCode::UnknownTopicOrPartition)), "{outcomes:?}");
    }
    arrives(&mut connection, topic, 0, &there);
    assert_eq!(connection.read_all(topic, 0, 0).len(), 1);
}

/// Replicas go to and fro under load, and the broker is killed in the midst of it: nothing is lost, each is in one place, and the moves that had begun come to their end.
fn killed_while_replicas_move() {
    let topic = "moving-killed";
    let partitions = 3;
    let mut broker = Broker::start(BrokerOptions { more_directories: 1, ..BrokerOptions::default() });
    let mut connection = Connection::to(&broker);
    connection.create_topic_with(topic, partitions, &[("segment.bytes", "1048576")]);
    let mut expected = vec![0_usize; partitions as usize];
    for round in 0..8_u64 {
        for partition in 0..partitions {
            for _ in 0..20 {
                connection.append(topic, partition, vec![record("k", vec![b'v'; 30_000])]);
                expected[partition as usize] += 1;
            }
        }
        let mut wanted = Vec::new();
        for partition in 0..partitions {
            let here = replicas_of(&mut connection, topic, partition).into_iter().find(|replica| !replica.is_future).expect("a replica");
            let there = directories(&mut connection).into_iter().find(|directory| *directory != here.directory).expect("two directories");
            assert_eq!(move_to(&mut connection, &there, topic, partition), ErrorCode::None);
            wanted.push(there);
        }
        std::thread::sleep(Duration::from_millis(mix(u64::from(std::process::id()) ^ round) % 60));
        broker.kill();
        broker.restart();
        connection = Connection::to(&broker);
        connection.wait_for_leaders(topic, partitions);
        for (partition, count) in expected.iter().enumerate() {
            assert_eq!(connection.read_all(topic, partition as i32, 0).len(), *count, "partition {partition} in round {round}");
        }
        for (partition, there) in wanted.iter().enumerate() {
            arrives(&mut connection, topic, partition as i32, there);
        }
    }
    for (partition, count) in expected.iter().enumerate() {
        assert_eq!(connection.read_all(topic, partition as i32, 0).len(), *count, "partition {partition}");
    }
}

/// `kafka-reassign-partitions` moves a replica between data directories, and says when it has arrived.
fn kafkas_tool_moves_a_replica() {
    let topic = "moved-by-the-tool";
    let broker = Broker::start(BrokerOptions { more_directories: 1, ..BrokerOptions::default() });
    let mut connection = Connection::to(&broker);
    connection.create_topic(topic, 1);
    connection.append(topic, 0, vec![record("k", "v")]);
    let there = other_place(&mut connection, topic);
    let plan = broker.data().with_file_name("plan.json");
    let wanted = serde_json::json!({
        "version": 1,
        "partitions": [{ "topic": topic, "partition": 0, "replicas": [1], "log_dirs": [there] }],
    });
    std::fs::write(&plan, wanted.to_string()).expect("a file");
    let tool = |verb: &str| {
        let mut command = java_with("tools");
        command.arg("org.apache.kafka.tools.reassign.ReassignPartitionsCommand").args(["--bootstrap-server", &broker.bootstrap(), verb]);
        if verb != "--list" {
            command.arg("--reassignment-json-file").arg(&plan);
        }
        let output = command.output().expect("java");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{verb}: {said}");
        said
    };
    assert!(tool("--list").contains("No partition reassignments found."));
    let executed = tool("--execute");
    let started = [
        format!("Successfully started partition reassignment for {topic}-0"),
        format!("Successfully started moving log directory to {there} for replica {topic}-0 with broker 1"),
    ];
    assert!(started.iter().all(|line| executed.contains(line)), "{executed}");
    arrives(&mut connection, topic, 0, &there);
    let verified = tool("--verify");
    let arrived = [format!("Reassignment of partition {topic}-0 is completed."), format!("{topic}-0-1 completed successfully.")];
    assert!(arrived.iter().all(|line| verified.contains(line)), "{verified}");
    assert_eq!(connection.read_all(topic, 0, 0).len(), 1);
}

/// Where a partition is already it may stay; anything else cannot be, and nothing is ever under way.
fn reassignments_of_one_node_are_answered() {
    let topic = "reassigned";
    let broker = Broker::start(BrokerOptions::default());
    let mut connection = Connection::to(&broker);
    connection.create_topic(topic, 1);
    let mut ask = |version: i16, name: &str, partition_index: i32, replicas: Option<Vec<i32>>| {
        let partition = ReassignablePartition { partition_index, replicas, ..Default::default() };
        let topics = vec![ReassignableTopic { name: Str::from(name), partitions: vec![partition], ..Default::default() }];
        let allow_replication_factor_change = version == 0;
        let request = AlterPartitionReassignmentsRequest { topics, allow_replication_factor_change, ..Default::default() };
        let answer = connection.call(version, &request);
        assert_eq!((answer.error_code, answer.responses.len()), (0, 1));
        let partition = &answer.responses[0].partitions[0];
        assert_eq!((&*answer.responses[0].name, partition.partition_index), (name, partition_index));
        (code(partition.error_code), partition.error_message.as_deref().unwrap_or_default().to_owned())
    };
    let says = |error: ErrorCode, message: &str| (error, message.to_owned());
    for version in [0, 1] {
        assert_eq!(ask(version, topic, 0, Some(vec![1])), says(ErrorCode::None, ""));
        assert_eq!(ask(version, topic, 0, None), says(ErrorCode::NoReassignmentInProgress, ""));
        assert_eq!(
            ask(version, topic, 0, Some(vec![7])),
            says(
                ErrorCode::InvalidReplicaAssignment,
                "The manual partition assignment includes broker 7, but no such broker is registered."
            )
        );
        assert_eq!(
            ask(version, topic, 0, Some(vec![])),
            says(ErrorCode::InvalidReplicaAssignment, "The manual partition assignment includes an empty replica list.")
        );
        assert_eq!(
            ask(version, topic, 0, Some(vec![1, 1])),
            says(ErrorCode::InvalidReplicaAssignment, "The manual partition assignment includes the broker 1 more than once.")
        );
        assert_eq!(
            ask(version, topic, 7, Some(vec![1])),
            says(ErrorCode::UnknownTopicOrPartition, "Unable to find partition reassigned:7.")
        );
        assert_eq!(ask(version, "none", 0, None), says(ErrorCode::UnknownTopicOrPartition, "Unable to find a topic named none."));
    }
    let topics =
        Some(vec![ListPartitionReassignmentsTopics { name: Str::from(topic), partition_indexes: vec![0, 7], ..Default::default() }]);
    for topics in [None, topics] {
        let listed = connection.call(0, &ListPartitionReassignmentsRequest { topics, ..Default::default() });
        assert_eq!((listed.error_code, listed.topics.len()), (0, 0));
    }
}

fn bound_the_rate(connection: &mut Connection, bytes_per_second: u64) {
    let name = Str::from("replica.alter.log.dirs.io.max.bytes.per.second");
    let config = AlterableConfig { name, value: Some(Str::from(bytes_per_second.to_string())), ..Default::default() };
    let resource = AlterConfigsResource { resource_type: 4, resource_name: Str::from("1"), configs: vec![config], ..Default::default() };
    let altered = connection.call(1, &IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() });
    assert_eq!(altered.responses[0].error_code, 0, "{:?}", altered.responses[0].error_message);
}

fn request(directory: &str, topic: &str, partitions: &[i32]) -> AlterReplicaLogDirsRequest {
    let topic = AlterReplicaLogDirTopic { name: Str::from(topic), partitions: partitions.to_vec(), ..Default::default() };
    let directory = AlterReplicaLogDir { path: Str::from(directory), topics: vec![topic], ..Default::default() };
    AlterReplicaLogDirsRequest { dirs: vec![directory], ..Default::default() }
}

fn move_to(connection: &mut Connection, directory: &str, topic: &str, partition: i32) -> ErrorCode {
    let answer = connection.call(2, &request(directory, topic, &[partition]));
    code(answer.results[0].partitions[0].error_code)
}

fn arrives(connection: &mut Connection, topic: &str, partition: i32, directory: &str) {
    wait::until("the replica to arrive", Duration::from_secs(60), || is_only_in(connection, topic, partition, directory).then_some(()));
}

fn is_only_in(connection: &mut Connection, topic: &str, partition: i32, directory: &str) -> bool {
    let replicas = replicas_of(connection, topic, partition);
    replicas.len() == 1 && replicas[0].directory == directory
}

#[derive(Debug)]
struct Replica {
    directory: String,
    partition: i32,
    size_bytes: i64,
    offset_lag: i64,
    is_future: bool,
}

fn replicas(connection: &mut Connection, topic: &str) -> Vec<Replica> {
    let answer = connection.call(4, &DescribeLogDirsRequest { topics: None, ..Default::default() });
    let mut replicas = Vec::new();
    for directory in &answer.results {
        for found in directory.topics.iter().filter(|found| &*found.name == topic).flat_map(|found| &found.partitions) {
            replicas.push(Replica {
                directory: directory.log_dir.to_string(),
                partition: found.partition_index,
                size_bytes: found.partition_size,
                offset_lag: found.offset_lag,
                is_future: found.is_future_key,
            });
        }
    }
    replicas
}

fn replicas_of(connection: &mut Connection, topic: &str, partition: i32) -> Vec<Replica> {
    replicas(connection, topic).into_iter().filter(|replica| replica.partition == partition).collect()
}

fn directories(connection: &mut Connection) -> Vec<String> {
    let answer = connection.call(4, &DescribeLogDirsRequest { topics: None, ..Default::default() });
    answer.results.iter().map(|directory| directory.log_dir.to_string()).collect()
}

/// The directory of a topic with one partition.
fn place_of(connection: &mut Connection, topic: &str) -> String {
    replicas(connection, topic).into_iter().find(|replica| !replica.is_future).expect("the topic has a replica").directory
}

fn other_place(connection: &mut Connection, topic: &str) -> String {
    let here = place_of(connection, topic);
    directories(connection).into_iter().find(|directory| *directory != here).expect("there are two directories")
}

/// The topic's partitions by data directory.
fn places(connection: &mut Connection) -> BTreeMap<String, Vec<i32>> {
    let answer = connection.call(4, &DescribeLogDirsRequest { topics: None, ..Default::default() });
    let mut places = BTreeMap::new();
    for directory in answer.results {
        assert!(directory.error_code == 0 && directory.total_bytes > 0 && directory.usable_bytes > 0);
        let topic = directory.topics.iter().find(|topic| &*topic.name == TOPIC);
        let mut partitions: Vec<i32> =
            topic.iter().flat_map(|topic| topic.partitions.iter().map(|partition| partition.partition_index)).collect();
        partitions.sort_unstable();
        places.insert(directory.log_dir.to_string(), partitions);
    }
    places
}
