//! Several data directories: new replicas are spread over them, stay where they are, and are told of.

use std::collections::BTreeMap;
use std::time::Duration;

use corelane_wire::messages::DescribeLogDirsRequest;
use harness::batch::record;
use harness::broker::{Broker, BrokerOptions};
use harness::own_broker_cases;
use harness::raw::Connection;
use harness::suite::OwnBrokerCase;

pub const CASES: &[OwnBrokerCase] = own_broker_cases![replicas_are_spread_and_stay];

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
        if is_clean {
            assert!(broker.terminate(Duration::from_secs(60)).success() || broker.target() == harness::places::Target::Kafka);
        } else {
            broker.kill();
        }
        broker.restart();
        let mut connection = Connection::to(&broker);
        connection.wait_for_leaders(TOPIC, PARTITIONS);
        assert_eq!(places(&mut connection), before);
        for partition in 0..PARTITIONS {
            assert_eq!(connection.read_all(TOPIC, partition, 0).len(), 1, "partition {partition}");
        }
    }
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
