//! Metadata, DescribeCluster, DescribeTopicPartitions and FindCoordinator: who is there and who leads.

use corelane_wire::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use corelane_wire::messages::metadata_request::MetadataRequestTopic;
use corelane_wire::messages::{DescribeClusterRequest, DescribeTopicPartitionsRequest, FindCoordinatorRequest, MetadataRequest};
use corelane_wire::{ErrorCode, Str};
use harness::broker::Broker;
use harness::cases;
use harness::raw::{Connection, code};
use harness::suite::Case;
use harness::wait;

pub const CASES: &[Case] = cases![
    every_version_names_brokers_topics_and_leaders,
    no_topics_and_all_topics,
    unknown_topics_are_named_and_not_made,
    topics_are_made_when_asked_for,
    topics_are_found_by_id,
    names_and_ids_together_are_refused_in_old_versions,
    internal_topics_say_so,
    authorized_operations_only_when_asked,
    cluster_is_described,
    controllers_are_not_asked_of_a_broker,
    topic_partitions_are_paged,
    coordinators_are_found,
    coordinator_requests_are_checked,
];

fn every_version_names_brokers_topics_and_leaders(broker: &Broker) {
    let topic = "metadata-versions";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 3);
    for version in 0..=13 {
        let answer = connection.metadata(version, &[topic]);
        assert_eq!(answer.brokers.len(), 1, "version {version}");
        let (host, port) = (&answer.brokers[0].host, answer.brokers[0].port);
        assert_eq!(format!("{host}:{port}"), broker.bootstrap(), "version {version}");
        let node = answer.brokers[0].node_id;
        assert!(version < 1 || answer.controller_id == node, "version {version}: controller {}", answer.controller_id);
        assert!(version < 2 || answer.cluster_id.is_some(), "version {version}");
        let described = &answer.topics[0];
        assert_eq!((code(described.error_code), described.name.as_deref()), (ErrorCode::None, Some(topic)), "version {version}");
        assert_eq!(described.topic_id.is_nil(), version < 10, "version {version}");
        let mut partitions: Vec<i32> = described.partitions.iter().map(|partition| partition.partition_index).collect();
        partitions.sort_unstable();
        assert_eq!(partitions, [0, 1, 2], "version {version}");
        for partition in &described.partitions {
            assert_eq!(
                (partition.leader_id, &partition.replica_nodes, &partition.isr_nodes),
                (node, &vec![node], &vec![node]),
                "version {version}"
            );
            assert!(partition.offline_replicas.is_empty());
            assert!(version < 7 || partition.leader_epoch >= 0, "version {version}");
        }
    }
}

fn no_topics_and_all_topics(broker: &Broker) {
    let topic = "metadata-all";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    let mut count = |version, topics: Option<Vec<MetadataRequestTopic>>| {
        let answer = connection.call(version, &MetadataRequest { topics, ..Default::default() });
        answer.topics.iter().filter(|described| described.name.as_deref() == Some(topic)).count()
    };
    assert_eq!(count(0, Some(Vec::new())), 1, "an empty list means all in version 0");
    assert_eq!(count(1, Some(Vec::new())), 0, "and none from version 1 on");
    assert_eq!(count(1, None), 1, "where null means all");
    assert_eq!(count(13, None), 1);
}

fn unknown_topics_are_named_and_not_made(broker: &Broker) {
    let mut connection = Connection::to(broker);
    for _ in 0..2 {
        let answer = connection.metadata(9, &["metadata-unknown"]);
        assert_eq!(code(answer.topics[0].error_code), ErrorCode::UnknownTopicOrPartition);
        assert!(answer.topics[0].partitions.is_empty());
    }
    for name in ["", ".", "..", "no spaces", "größe", &"x".repeat(250)] {
        let answer = connection.metadata(9, &[name]);
        let outcome = code(answer.topics[0].error_code);
        assert!(matches!(outcome, ErrorCode::UnknownTopicOrPartition | ErrorCode::InvalidTopicException), "`{name}`: {}", outcome.name());
    }
}

/// Version 4 says whether it wants the topic made; versions before it always do.
fn topics_are_made_when_asked_for(broker: &Broker) {
    let mut connection = Connection::to(broker);
    for (version, name) in [(1, "metadata-made-by-1"), (9, "metadata-made-by-9"), (13, "metadata-made-by-13")] {
        let topic = MetadataRequestTopic { name: Some(Str::from(name)), ..Default::default() };
        let request = MetadataRequest { topics: Some(vec![topic]), allow_auto_topic_creation: true, ..Default::default() };
        wait::until(name, wait::PATIENCE, || {
            let answer = connection.call(version, &request);
            let outcome = code(answer.topics[0].error_code);
            assert!(
                matches!(outcome, ErrorCode::None | ErrorCode::UnknownTopicOrPartition | ErrorCode::LeaderNotAvailable),
                "{}",
                outcome.name()
            );
            (outcome.is_none() && answer.topics[0].partitions.len() == 1).then_some(())
        });
    }
    let bad = MetadataRequestTopic { name: Some(Str::from("no spaces")), ..Default::default() };
    let answer = connection.call(9, &MetadataRequest { topics: Some(vec![bad]), allow_auto_topic_creation: true, ..Default::default() });
    assert_eq!(code(answer.topics[0].error_code), ErrorCode::InvalidTopicException);
}

fn topics_are_found_by_id(broker: &Broker) {
    let topic = "metadata-by-id";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    let topic_id = connection.topic_id(topic);
    let mut ask = |topic_id| {
        let topic = MetadataRequestTopic { topic_id, name: None, ..Default::default() };
        connection.call(12, &MetadataRequest { topics: Some(vec![topic]), ..Default::default() }).topics.remove(0)
    };
    let found = ask(topic_id);
    assert_eq!((code(found.error_code), found.name.as_deref(), found.topic_id), (ErrorCode::None, Some(topic), topic_id));
    let stranger = uuid::Uuid::from_u128(4711);
    let unknown = ask(stranger);
    assert_eq!((code(unknown.error_code), unknown.name.as_deref(), unknown.topic_id), (ErrorCode::UnknownTopicId, None, stranger));
}

fn names_and_ids_together_are_refused_in_old_versions(broker: &Broker) {
    let mut connection = Connection::to(broker);
    connection.create_topic("metadata-old-id", 1);
    let topic_id = connection.topic_id("metadata-old-id");
    for version in [10, 11] {
        for name in [None, Some(Str::from("metadata-old-id"))] {
            let topic = MetadataRequestTopic { topic_id, name, ..Default::default() };
            let answer = connection.call(version, &MetadataRequest { topics: Some(vec![topic]), ..Default::default() });
            assert_eq!(code(answer.topics[0].error_code), ErrorCode::InvalidRequest, "version {version}");
        }
    }
}

fn internal_topics_say_so(broker: &Broker) {
    let mut connection = Connection::to(broker);
    connection.create_topic("metadata-not-internal", 1);
    connection.wait_for_coordinator("metadata-internal");
    let answer = connection.metadata(9, &["__consumer_offsets", "metadata-not-internal"]);
    let internal = |name: &str| {
        answer.topics.iter().find(|topic| topic.name.as_deref() == Some(name)).map(|topic| (topic.is_internal, topic.partitions.len()))
    };
    assert_eq!((internal("__consumer_offsets"), internal("metadata-not-internal")), (Some((true, 8)), Some((false, 1))));
}

fn authorized_operations_only_when_asked(broker: &Broker) {
    let topic = "metadata-operations";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    let mut ask = |asked| {
        let topic = MetadataRequestTopic { name: Some(Str::from(topic)), ..Default::default() };
        let request = MetadataRequest {
            topics: Some(vec![topic]),
            include_cluster_authorized_operations: asked,
            include_topic_authorized_operations: asked,
            ..Default::default()
        };
        let answer = connection.call(9, &request);
        (answer.cluster_authorized_operations, answer.topics[0].topic_authorized_operations)
    };
    assert_eq!(ask(false), (i32::MIN, i32::MIN));
    // Without an authorizer everybody may do everything that there is to do: bits are the codes of AclOperation.
    let bits = |operations: &[i32]| operations.iter().fold(0, |bits, operation| bits | 1 << operation);
    assert_eq!(ask(true), (bits(&[5, 7, 8, 9, 10, 11, 12]), bits(&[3, 4, 5, 6, 7, 8, 10, 11])));
}

fn cluster_is_described(broker: &Broker) {
    let mut connection = Connection::to(broker);
    let metadata = connection.metadata(9, &[]);
    for version in 0..=2 {
        let answer = connection.call(version, &DescribeClusterRequest::default());
        assert_eq!(code(answer.error_code), ErrorCode::None);
        assert_eq!(Some(answer.cluster_id), metadata.cluster_id.clone());
        assert_eq!((answer.brokers.len(), answer.brokers[0].broker_id), (1, metadata.brokers[0].node_id));
        assert_eq!(format!("{}:{}", answer.brokers[0].host, answer.brokers[0].port), broker.bootstrap());
        assert_eq!(answer.controller_id, metadata.controller_id);
    }
}

fn controllers_are_not_asked_of_a_broker(broker: &Broker) {
    let mut connection = Connection::to(broker);
    for (endpoint_type, expected) in [(2, ErrorCode::MismatchedEndpointType), (7, ErrorCode::UnsupportedEndpointType)] {
        let answer = connection.call(1, &DescribeClusterRequest { endpoint_type, ..Default::default() });
        assert_eq!(code(answer.error_code), expected, "endpoint type {endpoint_type}");
    }
}

fn topic_partitions_are_paged(broker: &Broker) {
    let mut connection = Connection::to(broker);
    connection.create_topic("metadata-page-b", 3);
    connection.create_topic("metadata-page-a", 2);
    let topics = ["metadata-page-b", "metadata-page-a"].map(|name| TopicRequest { name: Str::from(name), ..Default::default() }).to_vec();
    let mut cursor: Option<Cursor> = None;
    let mut seen = Vec::new();
    let mut pages = 0;
    loop {
        let request = DescribeTopicPartitionsRequest {
            topics: topics.clone(),
            response_partition_limit: 2,
            cursor: cursor.map(|cursor| Cursor {
                topic_name: cursor.topic_name,
                partition_index: cursor.partition_index,
                ..Default::default()
            }),
            ..Default::default()
        };
        let answer = connection.call(0, &request);
        for topic in &answer.topics {
            assert_eq!(code(topic.error_code), ErrorCode::None);
            seen.extend(
                topic
                    .partitions
                    .iter()
                    .map(|partition| format!("{}-{}", topic.name.as_deref().unwrap_or_default(), partition.partition_index)),
            );
        }
        pages += 1;
        match answer.next_cursor {
            Some(next) => {
                cursor = Some(Cursor { topic_name: next.topic_name, partition_index: next.partition_index, ..Default::default() })
            }
            None => break,
        }
    }
    assert_eq!(seen, ["metadata-page-a-0", "metadata-page-a-1", "metadata-page-b-0", "metadata-page-b-1", "metadata-page-b-2"]);
    assert_eq!(pages, 3);
    let unknown = connection.call(
        0,
        &DescribeTopicPartitionsRequest {
            topics: vec![TopicRequest { name: Str::from("metadata-no-such"), ..Default::default() }],
            ..Default::default()
        },
    );
    assert_eq!(code(unknown.topics[0].error_code), ErrorCode::UnknownTopicOrPartition);
}

fn coordinators_are_found(broker: &Broker) {
    let mut connection = Connection::to(broker);
    connection.wait_for_coordinator("metadata-group");
    for version in 0..=6 {
        let old = version < 4;
        let request = FindCoordinatorRequest {
            key: Str::from(if old { "metadata-group" } else { "" }),
            coordinator_keys: if old { Vec::new() } else { vec![Str::from("metadata-group"), Str::from("another")] },
            ..Default::default()
        };
        let answer = connection.call(version, &request);
        if old {
            assert_eq!(
                (code(answer.error_code), format!("{}:{}", answer.host, answer.port)),
                (ErrorCode::None, broker.bootstrap()),
                "version {version}"
            );
        } else {
            let found: Vec<_> = answer
                .coordinators
                .iter()
                .map(|found| (found.key.to_string(), code(found.error_code), format!("{}:{}", found.host, found.port)))
                .collect();
            let expected = ["metadata-group", "another"].map(|key| (key.to_string(), ErrorCode::None, broker.bootstrap()));
            assert_eq!(found, expected, "version {version}");
        }
    }
}

fn coordinator_requests_are_checked(broker: &Broker) {
    let mut connection = Connection::to(broker);
    connection.wait_for_coordinator("metadata-group");
    let answer = connection.call(3, &FindCoordinatorRequest { key: Str::from("x"), key_type: 9, ..Default::default() });
    assert_eq!(code(answer.error_code), ErrorCode::InvalidRequest);
    assert_eq!((answer.node_id, answer.port), (-1, -1));
}
