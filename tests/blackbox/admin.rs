//! Topics and settings by hand: what the controller accepts, refuses and tells.

use corelane_wire::messages::alter_configs_request::{AlterConfigsResource as LegacyResource, AlterableConfig as LegacyConfig};
use corelane_wire::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use corelane_wire::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig};
use corelane_wire::messages::create_topics_response::CreatableTopicResult;
use corelane_wire::messages::delete_topics_request::DeleteTopicState;
use corelane_wire::messages::describe_configs_request::DescribeConfigsResource;
use corelane_wire::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult};
use corelane_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use corelane_wire::messages::{
    AlterConfigsRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest,
    IncrementalAlterConfigsRequest, ListConfigResourcesRequest,
};
use corelane_wire::{ErrorCode, Str};
use harness::broker::Broker;
use harness::raw::{Connection, code};
use harness::suite::Case;
use harness::{cases, differences, wait};

pub const CASES: &[Case] = cases![
    topics_are_created_in_every_version,
    creation_is_checked,
    assignments_are_checked,
    defaults_are_taken_for_minus_one,
    validate_only_makes_nothing,
    colliding_names_are_refused,
    topics_are_deleted_by_name_and_id,
    a_topic_made_again_is_another,
    partitions_are_added,
    every_topic_setting_has_kafkas_default,
    settings_have_sources_and_synonyms,
    settings_are_altered_one_by_one,
    legacy_alter_replaces_everything,
    alterations_are_checked,
    changed_settings_take_effect,
    broker_settings_are_described,
    resources_with_settings_are_listed,
];

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const DEFAULT_SOURCE: i8 = 5;
const TOPIC_SOURCE: i8 = 1;

fn topics_are_created_in_every_version(broker: &Broker) {
    let mut connection = Connection::to(broker);
    for version in 2..=7 {
        let name = format!("admin-create-{version}");
        let made = create_in(version, &mut connection, topic(&name, 2, 1));
        assert_eq!(code(made.error_code), ErrorCode::None, "version {version}");
        if version >= 5 {
            assert_eq!((made.num_partitions, made.replication_factor), (2, 1), "version {version}");
            let configs = made.configs.expect("the topic's settings");
            assert!(configs.iter().any(|config| config.name.as_str() == "retention.ms" && config.value.as_deref() == Some("604800000")));
        }
        assert_eq!(made.topic_id.is_nil(), version < 7, "version {version}");
        connection.wait_for_leaders(&name, 2);
        assert!(version < 7 || connection.topic_id(&name) == made.topic_id);
    }
}

fn creation_is_checked(broker: &Broker) {
    let mut connection = Connection::to(broker);
    connection.create_topic("admin-exists", 1);
    let with = |name: &str, key: &str, value: Option<&str>| CreatableTopic {
        configs: vec![CreatableTopicConfig { name: Str::from(key), value: value.map(Str::from), ..Default::default() }],
        ..topic(name, 1, 1)
    };
    for (asked, expected) in [
        (topic("admin-exists", 1, 1), ErrorCode::TopicAlreadyExists),
        (topic("", 1, 1), ErrorCode::InvalidTopicException),
        (topic(".", 1, 1), ErrorCode::InvalidTopicException),
        (topic("..", 1, 1), ErrorCode::InvalidTopicException),
        (topic("no spaces", 1, 1), ErrorCode::InvalidTopicException),
        (topic("größe", 1, 1), ErrorCode::InvalidTopicException),
        (topic(&"x".repeat(250), 1, 1), ErrorCode::InvalidTopicException),
        (topic(&"x".repeat(249), 1, 1), ErrorCode::None),
        (topic("admin-no-partitions", 0, 1), ErrorCode::InvalidPartitions),
        (topic("admin-negative", -2, 1), ErrorCode::InvalidPartitions),
        (topic("admin-no-replicas", 1, 0), ErrorCode::InvalidReplicationFactor),
        (topic("admin-replicas", 1, 2), ErrorCode::InvalidReplicationFactor),
        (topic("admin-many", 20_000, 1), ErrorCode::PolicyViolation),
        (with("admin-unknown-key", "no.such.key", Some("1")), ErrorCode::InvalidConfig),
        (with("admin-bad-value", "retention.ms", Some("soon")), ErrorCode::InvalidConfig),
        (with("admin-bad-range", "segment.bytes", Some("1")), ErrorCode::InvalidConfig),
        (with("admin-bad-word", "cleanup.policy", Some("burn")), ErrorCode::InvalidConfig),
        (with("admin-null-value", "retention.ms", None), ErrorCode::InvalidConfig),
    ] {
        let name = asked.name.clone();
        let made = create_in(5, &mut connection, asked);
        assert_eq!(code(made.error_code), expected, "`{}`: {:?}", name.as_str(), made.error_message);
        assert!(expected.is_none() || made.error_message.is_some(), "`{}` is refused without a word", name.as_str());
    }
    let twice = vec![topic("admin-twice", 1, 1), topic("admin-twice", 1, 1)];
    let answer = connection.call(5, &CreateTopicsRequest { topics: twice, timeout_ms: 30_000, ..Default::default() });
    assert!(answer.topics.iter().all(|made| code(made.error_code) == ErrorCode::InvalidRequest), "{:?}", answer.topics);
}

fn assignments_are_checked(broker: &Broker) {
    let mut connection = Connection::to(broker);
    let node = connection.metadata(9, &[]).brokers[0].node_id;
    let assigned = |name: &str, assignments: &[(i32, &[i32])]| {
        let one = |(partition_index, brokers): &(i32, &[i32])| CreatableReplicaAssignment {
            partition_index: *partition_index,
            broker_ids: brokers.to_vec(),
            ..Default::default()
        };
        CreatableTopic { assignments: assignments.iter().map(one).collect(), ..topic(name, -1, -1) }
    };
    for (asked, expected) in [
        (assigned("admin-assigned", &[(0, &[node]), (1, &[node])]), ErrorCode::None),
        (assigned("admin-assigned-unknown", &[(0, &[node + 7])]), ErrorCode::InvalidReplicaAssignment),
        (assigned("admin-assigned-twice", &[(0, &[node, node])]), ErrorCode::InvalidReplicaAssignment),
        (assigned("admin-assigned-none", &[(0, &[])]), ErrorCode::InvalidReplicaAssignment),
        (assigned("admin-assigned-gap", &[(0, &[node]), (2, &[node])]), ErrorCode::InvalidReplicaAssignment),
        (CreatableTopic { num_partitions: 1, ..assigned("admin-assigned-and-counted", &[(0, &[node])]) }, ErrorCode::InvalidRequest),
        (CreatableTopic { replication_factor: 1, ..assigned("admin-assigned-and-replicated", &[(0, &[node])]) }, ErrorCode::InvalidRequest),
    ] {
        let name = asked.name.clone();
        let made = create_in(5, &mut connection, asked);
        assert_eq!(code(made.error_code), expected, "{}: {:?}", name.as_str(), made.error_message);
    }
    assert_eq!(connection.metadata(9, &["admin-assigned"]).topics[0].partitions.len(), 2);
}

fn defaults_are_taken_for_minus_one(broker: &Broker) {
    let made = create_in(5, &mut Connection::to(broker), topic("admin-defaults", -1, -1));
    assert_eq!((code(made.error_code), made.num_partitions, made.replication_factor), (ErrorCode::None, 1, 1));
}

fn validate_only_makes_nothing(broker: &Broker) {
    let mut connection = Connection::to(broker);
    let request =
        CreateTopicsRequest { topics: vec![topic("admin-validated", 3, 1)], timeout_ms: 30_000, validate_only: true, ..Default::default() };
    let answer = connection.call(5, &request);
    assert_eq!((code(answer.topics[0].error_code), answer.topics[0].num_partitions), (ErrorCode::None, 3));
    let bad = CreateTopicsRequest { topics: vec![topic("admin-validated", 3, 9)], ..request };
    assert_eq!(code(connection.call(5, &bad).topics[0].error_code), ErrorCode::InvalidReplicationFactor);
    assert_eq!(code(connection.metadata(9, &["admin-validated"]).topics[0].error_code), ErrorCode::UnknownTopicOrPartition);
}

fn colliding_names_are_refused(broker: &Broker) {
    let mut connection = Connection::to(broker);
    connection.create_topic("admin.collides", 1);
    assert_eq!(code(create_in(5, &mut connection, topic("admin_collides", 1, 1)).error_code), ErrorCode::InvalidTopicException);
}

fn topics_are_deleted_by_name_and_id(broker: &Broker) {
    let mut connection = Connection::to(broker);
    for version in 1..=5 {
        let name = format!("admin-delete-{version}");
        connection.create_topic(&name, 1);
        let request = DeleteTopicsRequest {
            topic_names: vec![Str::from(name.as_str()), Str::from("admin-no-such-topic")],
            timeout_ms: 30_000,
            ..Default::default()
        };
        let answer = connection.call(version, &request);
        let of =
            |name: &str| answer.responses.iter().find(|result| result.name.as_deref() == Some(name)).map(|result| code(result.error_code));
        assert_eq!(
            (of(&name), of("admin-no-such-topic")),
            (Some(ErrorCode::None), Some(ErrorCode::UnknownTopicOrPartition)),
            "version {version}"
        );
        wait_until_gone(&mut connection, &name);
    }
    connection.create_topic("admin-delete-id", 1);
    let topic_id = connection.topic_id("admin-delete-id");
    let state = |name: Option<&str>, topic_id| DeleteTopicState { name: name.map(Str::from), topic_id, ..Default::default() };
    let mut ask = |topic| {
        connection.call(6, &DeleteTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() }).responses.remove(0)
    };
    assert_eq!(code(ask(state(Some("admin-delete-id"), topic_id)).error_code), ErrorCode::InvalidRequest);
    assert_eq!(code(ask(state(None, uuid::Uuid::from_u128(9))).error_code), ErrorCode::UnknownTopicId);
    let deleted = ask(state(None, topic_id));
    assert_eq!((code(deleted.error_code), deleted.name.as_deref(), deleted.topic_id), (ErrorCode::None, Some("admin-delete-id"), topic_id));
    wait_until_gone(&mut connection, "admin-delete-id");
}

/// Nothing of the old topic's records, offsets or id comes back.
fn a_topic_made_again_is_another(broker: &Broker) {
    let name = "admin-again";
    let mut connection = Connection::to(broker);
    connection.create_topic(name, 1);
    let old = connection.topic_id(name);
    connection.append(name, 0, vec![harness::batch::record("k", "old")]);
    delete(&mut connection, name);
    connection.create_topic(name, 1);
    assert_ne!(connection.topic_id(name), old);
    assert_eq!(connection.end_offset(name, 0), 0);
    assert_eq!(connection.append(name, 0, vec![harness::batch::record("k", "new")]), 0);
}

fn partitions_are_added(broker: &Broker) {
    let name = "admin-partitions";
    let mut connection = Connection::to(broker);
    connection.create_topic(name, 2);
    let node = connection.metadata(9, &[]).brokers[0].node_id;
    let mut ask = |topic: &str, count, assignments: Option<Vec<Vec<i32>>>, validate_only| {
        let assignments = assignments
            .map(|all| all.into_iter().map(|broker_ids| CreatePartitionsAssignment { broker_ids, ..Default::default() }).collect());
        let topics = vec![CreatePartitionsTopic { name: Str::from(topic), count, assignments, ..Default::default() }];
        code(
            connection.call(3, &CreatePartitionsRequest { topics, timeout_ms: 30_000, validate_only, ..Default::default() }).results[0]
                .error_code,
        )
    };
    assert_eq!(ask("admin-no-such-topic", 3, None, false), ErrorCode::UnknownTopicOrPartition);
    assert_eq!(ask(name, 2, None, false), ErrorCode::InvalidPartitions);
    assert_eq!(ask(name, 1, None, false), ErrorCode::InvalidPartitions);
    assert_eq!(ask(name, 4, Some(vec![vec![node]]), false), ErrorCode::InvalidReplicaAssignment);
    assert_eq!(ask(name, 4, Some(vec![vec![node], vec![node + 5]]), false), ErrorCode::InvalidReplicaAssignment);
    assert_eq!(ask(name, 4, None, true), ErrorCode::None);
    assert_eq!(ask(name, 3, Some(vec![vec![node]]), false), ErrorCode::None);
    assert_eq!(ask(name, 5, None, false), ErrorCode::None);
    connection.wait_for_leaders(name, 5);
    assert_eq!(connection.metadata(9, &[name]).topics[0].partitions.len(), 5);
}

/// Every topic setting of a fresh topic, against what a running 4.4.0 said.
fn every_topic_setting_has_kafkas_default(broker: &Broker) {
    let mut connection = Connection::to(broker);
    connection.create_topic("admin-settings", 1);
    let described = describe(&mut connection, TOPIC, "admin-settings", None);
    let mut found: Vec<(String, String)> =
        described.configs.iter().map(|config| (config.name.to_string(), config.value.as_deref().unwrap_or("null").to_string())).collect();
    found.sort();
    let mut expected: Vec<(String, String)> = TOPIC_DEFAULTS
        .iter()
        .map(|(name, value)| {
            (name.to_string(), if *name == "flush.messages" { differences::expected("flush-messages-default") } else { value }.to_string())
        })
        .collect();
    let own = differences::expected("own-topic-settings");
    expected
        .extend(own.split_whitespace().filter_map(|pair| pair.split_once('=')).map(|(name, value)| (name.to_string(), value.to_string())));
    expected.sort();
    assert_eq!(found, expected);
    assert!(described.configs.iter().all(|config| !config.read_only && !config.is_sensitive));
}

const TOPIC_DEFAULTS: &[(&str, &str)] = &[
    ("cleanup.policy", "delete"),
    ("compression.gzip.level", "-1"),
    ("compression.lz4.level", "9"),
    ("compression.type", "producer"),
    ("compression.zstd.level", "3"),
    ("delete.retention.ms", "86400000"),
    ("errors.deadletterqueue.group.enable", "false"),
    ("file.delete.delay.ms", "60000"),
    ("flush.messages", "9223372036854775807"),
    ("flush.ms", "9223372036854775807"),
    ("follower.replication.throttled.replicas", ""),
    ("index.interval.bytes", "4096"),
    ("leader.replication.throttled.replicas", ""),
    ("local.retention.bytes", "-2"),
    ("local.retention.ms", "-2"),
    ("max.compaction.lag.ms", "9223372036854775807"),
    ("max.decompressed.message.bytes", "2147483639"),
    ("max.message.bytes", "1048588"),
    ("message.timestamp.after.max.ms", "3600000"),
    ("message.timestamp.before.max.ms", "9223372036854775807"),
    ("message.timestamp.type", "CreateTime"),
    ("min.cleanable.dirty.ratio", "0.5"),
    ("min.compaction.lag.ms", "0"),
    ("min.insync.replicas", "1"),
    ("preallocate", "false"),
    ("remote.copy.lag.bytes", "-1"),
    ("remote.copy.lag.ms", "0"),
    ("remote.log.copy.disable", "false"),
    ("remote.log.delete.on.disable", "false"),
    ("remote.storage.enable", "false"),
    ("retention.bytes", "-1"),
    ("retention.ms", "604800000"),
    ("segment.bytes", "1073741824"),
    ("segment.index.bytes", "10485760"),
    ("segment.jitter.ms", "0"),
    ("segment.ms", "604800000"),
    ("unclean.leader.election.enable", "false"),
];

fn settings_have_sources_and_synonyms(broker: &Broker) {
    let mut connection = Connection::to(broker);
    connection.create_topic_with("admin-sources", 1, &[("segment.bytes", "2097152")]);
    let changed = setting(&mut connection, "admin-sources", "segment.bytes");
    assert_eq!((changed.value.as_deref(), changed.config_source), (Some("2097152"), TOPIC_SOURCE));
    let synonyms: Vec<_> =
        changed.synonyms.iter().map(|synonym| (synonym.name.as_str(), synonym.value.as_deref(), synonym.source)).collect();
    assert_eq!(synonyms, [("segment.bytes", Some("2097152"), TOPIC_SOURCE), ("log.segment.bytes", Some("1073741824"), DEFAULT_SOURCE)]);
    let left = setting(&mut connection, "admin-sources", "index.interval.bytes");
    assert_eq!((left.config_source, left.synonyms.len()), (DEFAULT_SOURCE, 1));
    assert!(left.documentation.is_some_and(|text| text.len() > 20));
    let int = 3;
    assert_eq!(left.config_type, int);
    let some = describe(&mut connection, TOPIC, "admin-sources", Some(&["segment.ms", "no.such.key"]));
    assert_eq!(some.configs.iter().map(|config| config.name.as_str()).collect::<Vec<_>>(), ["segment.ms"]);
    assert_eq!(code(describe(&mut connection, TOPIC, "admin-no-such-topic", None).error_code), ErrorCode::UnknownTopicOrPartition);
}

fn settings_are_altered_one_by_one(broker: &Broker) {
    let name = "admin-alter";
    let mut connection = Connection::to(broker);
    connection.create_topic_with(name, 1, &[("retention.ms", "1000"), ("cleanup.policy", "delete")]);
    let (set, remove, append, subtract) = (0, 1, 2, 3);
    for (operation, key, value, expected) in [
        (set, "segment.ms", Some("5000"), "5000"),
        (set, "segment.ms", Some("6000"), "6000"),
        (remove, "retention.ms", None, "604800000"),
        (append, "cleanup.policy", Some("compact"), "delete,compact"),
        (subtract, "cleanup.policy", Some("delete"), "compact"),
    ] {
        assert_eq!(alter(&mut connection, TOPIC, name, &[(key, operation, value)]), ErrorCode::None, "{key}");
        wait::until(&format!("{key} to be {expected}"), wait::PATIENCE, || {
            (setting(&mut connection, name, key).value.as_deref() == Some(expected)).then_some(())
        });
    }
    let validated = incremental(TOPIC, name, &[("segment.ms", set, Some("7000"))]);
    connection.call(1, &IncrementalAlterConfigsRequest { validate_only: true, ..validated });
    assert_eq!(setting(&mut connection, name, "segment.ms").value.as_deref(), Some("6000"));
}

fn legacy_alter_replaces_everything(broker: &Broker) {
    let name = "admin-legacy";
    let mut connection = Connection::to(broker);
    connection.create_topic_with(name, 1, &[("retention.ms", "1000")]);
    let configs = vec![LegacyConfig { name: Str::from("segment.ms"), value: Some(Str::from("5000")), ..Default::default() }];
    let resources = vec![LegacyResource { resource_type: TOPIC, resource_name: Str::from(name), configs, ..Default::default() }];
    let answer = connection.call(2, &AlterConfigsRequest { resources, ..Default::default() });
    assert_eq!(code(answer.responses[0].error_code), ErrorCode::None);
    wait::until("the change", wait::PATIENCE, || {
        (setting(&mut connection, name, "segment.ms").value.as_deref() == Some("5000")).then_some(())
    });
    assert_eq!(setting(&mut connection, name, "retention.ms").value.as_deref(), Some("604800000"));
}

fn alterations_are_checked(broker: &Broker) {
    let name = "admin-alter-checks";
    let mut connection = Connection::to(broker);
    connection.create_topic(name, 1);
    let set = 0;
    assert_eq!(alter(&mut connection, TOPIC, "admin-no-such-topic", &[("segment.ms", set, Some("1"))]), ErrorCode::UnknownTopicOrPartition);
    assert_eq!(alter(&mut connection, TOPIC, name, &[("no.such.key", set, Some("1"))]), ErrorCode::InvalidConfig);
    assert_eq!(alter(&mut connection, TOPIC, name, &[("segment.ms", set, Some("soon"))]), ErrorCode::InvalidConfig);
    assert_eq!(alter(&mut connection, TOPIC, name, &[("segment.ms", set, None)]), ErrorCode::InvalidRequest);
    assert_eq!(
        alter(&mut connection, TOPIC, name, &[("segment.ms", set, Some("1")), ("segment.ms", set, Some("2"))]),
        ErrorCode::InvalidRequest
    );
    assert_eq!(
        alter(&mut connection, TOPIC, name, &[("segment.ms", 2, Some("1"))]),
        ErrorCode::InvalidConfig,
        "appending to what is no list"
    );
}

/// A setting is not only kept: the very next batch meets it.
fn changed_settings_take_effect(broker: &Broker) {
    let name = "admin-effect";
    let mut connection = Connection::to(broker);
    connection.create_topic(name, 1);
    let large = harness::batch::Batch::of(vec![harness::batch::record("k", vec![1; 5_000])]);
    assert_eq!(code(connection.produce(name, 0, &large).error_code), ErrorCode::None);
    assert_eq!(alter(&mut connection, TOPIC, name, &[("max.message.bytes", 0, Some("1000"))]), ErrorCode::None);
    wait::until("the new limit", wait::PATIENCE, || {
        (code(connection.produce(name, 0, &large).error_code) == ErrorCode::MessageTooLarge).then_some(())
    });
}

fn broker_settings_are_described(broker: &Broker) {
    let mut connection = Connection::to(broker);
    let node = connection.metadata(9, &[]).brokers[0].node_id.to_string();
    let described = describe(&mut connection, BROKER, &node, None);
    assert_eq!(code(described.error_code), ErrorCode::None);
    let of = |name: &str| {
        described
            .configs
            .iter()
            .find(|config| config.name.as_str() == name)
            .map(|config| (config.value.as_deref().map(str::to_string), config.read_only))
    };
    let told = |value: &str, read_only| Some((Some(value.to_string()), read_only));
    assert_eq!(of("num.partitions"), told("1", true));
    assert_eq!(of("offsets.topic.num.partitions"), told("8", true));
    assert_eq!(of("message.max.bytes"), told("1048588", false));
    assert_eq!(code(describe(&mut connection, BROKER, "4711", None).error_code), ErrorCode::InvalidRequest);
}

fn resources_with_settings_are_listed(broker: &Broker) {
    let mut connection = Connection::to(broker);
    connection.create_topic("admin-listed", 1);
    let answer = connection.call(1, &ListConfigResourcesRequest { resource_types: vec![TOPIC], ..Default::default() });
    assert_eq!(code(answer.error_code), ErrorCode::None);
    assert!(answer.config_resources.iter().any(|resource| resource.resource_name.as_str() == "admin-listed"));
    assert!(answer.config_resources.iter().all(|resource| resource.resource_type == TOPIC));
    let unknown = connection.call(1, &ListConfigResourcesRequest { resource_types: vec![99], ..Default::default() });
    assert_eq!(code(unknown.error_code), ErrorCode::UnsupportedVersion);
}

fn topic(name: &str, num_partitions: i32, replication_factor: i16) -> CreatableTopic {
    CreatableTopic { name: Str::from(name), num_partitions, replication_factor, ..Default::default() }
}

fn create_in(version: i16, connection: &mut Connection, topic: CreatableTopic) -> CreatableTopicResult {
    connection.call(version, &CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() }).topics.remove(0)
}

fn delete(connection: &mut Connection, name: &str) {
    let answer = connection.call(5, &DeleteTopicsRequest { topic_names: vec![Str::from(name)], timeout_ms: 30_000, ..Default::default() });
    assert_eq!(code(answer.responses[0].error_code), ErrorCode::None);
    wait_until_gone(connection, name);
}

fn wait_until_gone(connection: &mut Connection, name: &str) {
    wait::until(&format!("{name} to be gone"), wait::PATIENCE, || {
        (code(connection.metadata(9, &[name]).topics[0].error_code) == ErrorCode::UnknownTopicOrPartition).then_some(())
    });
}

fn describe(connection: &mut Connection, resource_type: i8, name: &str, keys: Option<&[&str]>) -> DescribeConfigsResult {
    let configuration_keys = keys.map(|keys| keys.iter().map(|key| Str::from(*key)).collect());
    let resources =
        vec![DescribeConfigsResource { resource_type, resource_name: Str::from(name), configuration_keys, ..Default::default() }];
    connection
        .call(4, &DescribeConfigsRequest { resources, include_synonyms: true, include_documentation: true, ..Default::default() })
        .results
        .remove(0)
}

fn setting(connection: &mut Connection, topic: &str, key: &str) -> DescribeConfigsResourceResult {
    describe(connection, TOPIC, topic, Some(&[key])).configs.remove(0)
}

fn incremental(resource_type: i8, name: &str, changes: &[(&str, i8, Option<&str>)]) -> IncrementalAlterConfigsRequest {
    let one = |(key, config_operation, value): &(&str, i8, Option<&str>)| AlterableConfig {
        name: Str::from(*key),
        config_operation: *config_operation,
        value: value.map(Str::from),
        ..Default::default()
    };
    let configs = changes.iter().map(one).collect();
    let resources = vec![AlterConfigsResource { resource_type, resource_name: Str::from(name), configs, ..Default::default() }];
    IncrementalAlterConfigsRequest { resources, ..Default::default() }
}

fn alter(connection: &mut Connection, resource_type: i8, name: &str, changes: &[(&str, i8, Option<&str>)]) -> ErrorCode {
    code(connection.call(1, &incremental(resource_type, name, changes)).responses[0].error_code)
}
