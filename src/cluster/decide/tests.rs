//! Decisions over small pictures. The refusals' codes and sentences were taken down from a running Kafka 4.4.0.

use uuid::Uuid;

use crate::cluster::image::{ConfigMap, ConfigResourceType, Image};
use crate::cluster::placement::tests::{Seeded, image_of_brokers};
use crate::cluster::record::MetadataRecord;
use crate::wire::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic};
use crate::wire::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use crate::wire::messages::create_topics_response::CreateTopicsResponse;
use crate::wire::messages::delete_topics_request::{DeleteTopicState, DeleteTopicsRequest};
use crate::wire::records::BrokerRegistrationChangeRecord;
use crate::wire::{ErrorCode, Str};

use super::configs::{Change, ResourceChange, SettingChange, alter_configs};
use super::create_topics::create_topics;
use super::partitions::create_partitions;
use super::start::{Registration, bootstrap_records, registration_records, shutdown_records, unservable};
use super::topics::delete_topics;
use super::{EffectiveSetting, SettingRules};

/// Settings of a broker that knows `retention.ms` (a number) and `cleanup.policy` (a list).
struct TestRules;

impl SettingRules for TestRules {
    fn partitions_default(&self) -> i32 {
        2
    }

    fn replication_factor_default(&self) -> i16 {
        1
    }

    fn topics_may_be_deleted(&self) -> bool {
        true
    }

    fn min_insync_replicas_default(&self) -> i32 {
        1
    }

    fn check(&self, _: ConfigResourceType, settings: &ConfigMap) -> Result<(), String> {
        match settings.iter().find(|(key, value)| &***key == "retention.ms" && value.parse::<i64>().is_err()) {
            Some((key, value)) => Err(format!("Invalid value {value} for configuration {key}: Not a number of type LONG")),
            None => Ok(()),
        }
    }

    fn is_list(&self, _: ConfigResourceType, key: &str) -> bool {
        key == "cleanup.policy"
    }

    fn default_text(&self, _: ConfigResourceType, key: &str) -> Option<String> {
        (key == "cleanup.policy").then(|| "delete".to_owned())
    }

    fn effective_topic_settings(&self, _: &Image, overrides: &ConfigMap) -> Vec<EffectiveSetting> {
        let value = overrides.get("retention.ms").map_or("7", |value| value);
        let source = if overrides.contains_key("retention.ms") { 1 } else { 5 };
        vec![EffectiveSetting { name: "retention.ms".into(), value: Some(value.into()), source, is_sensitive: false, is_read_only: false }]
    }
}

fn apply_all(image: &mut Image, records: &[MetadataRecord]) {
    for record in records {
        image.apply(record).expect("a decision's records fit");
    }
}

/// Broker 1 after its first start.
fn started() -> Image {
    let mut image = Image::empty();
    apply_all(&mut image, &bootstrap_records(&[], 1));
    let records = registration_records(&image, &registration(1), 10);
    apply_all(&mut image, &records);
    image
}

fn registration(node_id: i32) -> Registration {
    Registration {
        node_id,
        incarnation_id: Uuid::from_u128(77),
        endpoints: Vec::new(),
        controller_endpoints: Vec::new(),
        rack: None,
        directories: vec![Uuid::from_u128(0xd1)],
    }
}

fn topic(name: &str, num_partitions: i32, replication_factor: i16) -> CreatableTopic {
    CreatableTopic { name: Str::from(name), num_partitions, replication_factor, ..Default::default() }
}

fn assigned(name: &str, assignments: &[(i32, &[i32])]) -> CreatableTopic {
    let assignments = assignments
        .iter()
        .map(|(partition_index, ids)| CreatableReplicaAssignment {
            partition_index: *partition_index,
            broker_ids: ids.to_vec(),
            ..Default::default()
        })
        .collect();
    CreatableTopic { assignments, ..topic(name, -1, -1) }
}

fn with_config(topic: CreatableTopic, key: &str, value: Option<&str>) -> CreatableTopic {
    let config = CreatableTopicConfig { name: Str::from(key), value: value.map(Str::from), ..Default::default() };
    CreatableTopic { configs: vec![config], ..topic }
}

fn create(image: &mut Image, topics: Vec<CreatableTopic>) -> CreateTopicsResponse {
    let decision = create_topics(image, &CreateTopicsRequest { topics, ..Default::default() }, &TestRules, &mut Seeded(9));
    apply_all(image, &decision.records);
    decision.reply
}

/// Code and sentence of the only topic's answer.
fn create_one(image: &mut Image, topic: CreatableTopic) -> (ErrorCode, String) {
    let reply = create(image, vec![topic]);
    assert_eq!(reply.topics.len(), 1);
    let result = &reply.topics[0];
    let message = result.error_message.as_deref().unwrap_or_default().to_owned();
    (ErrorCode::try_from(result.error_code).expect("a known code"), message)
}

#[test]
fn a_topic_is_made_with_its_settings_and_partitions() {
    let mut image = started();
    let reply = create(&mut image, vec![with_config(topic("t", 3, 1), "retention.ms", Some("5"))]);
    let result = &reply.topics[0];
    assert_eq!((result.error_code, result.num_partitions, result.replication_factor), (0, 3, 1));
    let config = &result.configs.as_ref().expect("named")[0];
    assert_eq!((&*config.name, config.value.as_deref(), config.config_source), ("retention.ms", Some("5"), 1));
    let made = image.topic("t").expect("made");
    assert_eq!(made.id, result.topic_id);
    assert_eq!(image.topic_overrides("t").collect::<Vec<_>>(), [("retention.ms", "5")]);
    for partition in &made.partitions {
        assert_eq!((partition.leader, partition.leader_epoch, &partition.isr[..]), (1, 0, &[1][..]));
        assert_eq!(partition.directories[..], [Uuid::from_u128(0xd1)], "the only directory");
    }
}

#[test]
fn defaults_are_taken_where_minus_one_stands() {
    let mut image = started();
    let reply = create(&mut image, vec![topic("t", -1, -1)]);
    assert_eq!((reply.topics[0].num_partitions, reply.topics[0].replication_factor), (2, 1));
}

#[test]
fn validating_answers_the_same_and_writes_nothing() {
    let image = started();
    let request = CreateTopicsRequest { topics: vec![topic("t", 1, 1)], validate_only: true, ..Default::default() };
    let decision = create_topics(&image, &request, &TestRules, &mut Seeded(9));
    assert_eq!(decision.records, []);
    assert_eq!((decision.reply.topics[0].error_code, decision.reply.topics[0].num_partitions), (0, 1));
}

#[test]
fn names_that_cannot_be_given() {
    let mut image = started();
    create(&mut image, vec![topic("beta_x", 1, 1)]);
    assert_eq!(create_one(&mut image, topic("beta_x", 1, 1)), (ErrorCode::TopicAlreadyExists, "Topic 'beta_x' already exists.".into()));
    let collision = (ErrorCode::InvalidTopicException, "Topic 'beta.x' collides with existing topic: beta_x".into());
    assert_eq!(create_one(&mut image, topic("beta.x", 1, 1)), collision);
    let invalid = (ErrorCode::InvalidTopicException, "Topic name is invalid: '.' is not allowed".into());
    assert_eq!(create_one(&mut image, topic(".", 1, 1)), invalid);
    let internal = (ErrorCode::InvalidRequest, "Creation of internal topic __cluster_metadata is prohibited.".into());
    assert_eq!(create_one(&mut image, topic("__cluster_metadata", 1, 1)), internal);
}

/// A name that stands twice is answered once and not made; others of the request are.
#[test]
fn a_name_twice_in_a_request() {
    let mut image = started();
    let reply = create(&mut image, vec![topic("a", 1, 1), topic("b", 1, 1), topic("a", 1, 1)]);
    let answers: Vec<_> = reply.topics.iter().map(|result| (&*result.name, result.error_code, result.error_message.as_deref())).collect();
    assert_eq!(answers, [("b", 0, None), ("a", ErrorCode::InvalidRequest.code(), Some("Duplicate topic name."))]);
    assert!(image.topic("a").is_none());
}

#[test]
fn counts_that_cannot_be_met() {
    let mut image = started();
    let factor = "Replication factor must be larger than 0, or -1 to use the default value.";
    for bad in [0, -2] {
        assert_eq!(create_one(&mut image, topic("t", 1, bad)), (ErrorCode::InvalidReplicationFactor, factor.into()));
        let partitions = "Number of partitions was set to an invalid non-positive value.";
        assert_eq!(create_one(&mut image, topic("t", i32::from(bad), 1)), (ErrorCode::InvalidPartitions, partitions.into()));
    }
    let too_many = "Unable to replicate the partition 2 time(s): The target replication factor of 2 cannot be reached because only 1 broker(s) are \
                    registered or some brokers have all their log directories cordoned.";
    assert_eq!(create_one(&mut image, topic("t", 1, 2)), (ErrorCode::InvalidReplicationFactor, too_many.into()));
}

/// 10,001 partitions are too many for a request, 10,000 and the topic itself too many for a batch.
#[test]
fn requests_are_bounded() {
    let mut image = started();
    let partitions = (ErrorCode::PolicyViolation, "Excessively large number of partitions per request.".into());
    assert_eq!(create_one(&mut image, topic("t", 10_001, 1)), partitions);
    let records = (ErrorCode::PolicyViolation, "Unable to perform excessively large batch operation.".into());
    assert_eq!(create_one(&mut image, topic("t", 10_000, 1)), records);
    assert_eq!(create_one(&mut image, topic("t", 9_999, 1)).0, ErrorCode::None);
    let reply = create(&mut image, vec![topic("u", 5_000, 1), topic("v", 5_001, 1)]);
    assert!(reply.topics.iter().all(|result| result.error_code == ErrorCode::PolicyViolation.code()), "{reply:?}");
}

#[test]
fn settings_that_cannot_be_given() {
    let mut image = started();
    let no_value = (ErrorCode::InvalidConfig, "Null value not supported for topic configs: retention.ms".into());
    assert_eq!(create_one(&mut image, with_config(topic("t", 1, 1), "retention.ms", None)), no_value);
    let no_number = (ErrorCode::InvalidConfig, "Invalid value x for configuration retention.ms: Not a number of type LONG".into());
    assert_eq!(create_one(&mut image, with_config(topic("t", 1, 1), "retention.ms", Some("x"))), no_number);
    let long = create_one(&mut image, with_config(topic("t", 1, 1), "k", Some(&"1".repeat(32_768))));
    assert_eq!(long.0, ErrorCode::InvalidConfig);
}

#[test]
fn assignments_by_hand() {
    let mut image = started();
    let invalid = |message: &str| (ErrorCode::InvalidReplicaAssignment, message.to_owned());
    let unknown = invalid("The manual partition assignment includes broker 2, but no such broker is registered.");
    assert_eq!(create_one(&mut image, assigned("t", &[(0, &[2])])), unknown);
    let twice = invalid("The manual partition assignment includes the broker 1 more than once.");
    assert_eq!(create_one(&mut image, assigned("t", &[(0, &[1, 1])])), twice);
    let empty = invalid("The manual partition assignment includes an empty replica list.");
    assert_eq!(create_one(&mut image, assigned("t", &[(0, &[])])), empty);
    let gap = invalid("partitions should be a consecutive 0-based integer sequence");
    assert_eq!(create_one(&mut image, assigned("t", &[(0, &[1]), (2, &[1])])), gap);
    let again = invalid("Found multiple manual partition assignments for partition 0");
    assert_eq!(create_one(&mut image, assigned("t", &[(0, &[1]), (0, &[1])])), again);
    let counted = CreatableTopic { num_partitions: 1, ..assigned("t", &[(0, &[1])]) };
    assert_eq!(create_one(&mut image, counted).0, ErrorCode::InvalidRequest);
    assert_eq!(create_one(&mut image, assigned("t", &[(1, &[1]), (0, &[1])])).0, ErrorCode::None);
    assert_eq!(image.topic("t").expect("made").partition_count(), 2);
}

/// Replicas that serve are in sync and lead; a replica set of none is refused.
#[test]
fn fenced_brokers_do_not_lead() {
    let mut image = image_of_brokers(&[(1, None, false), (2, None, true)]);
    apply_all(&mut image, &bootstrap_records(&[], 1));
    assert_eq!(create_one(&mut image, assigned("t", &[(0, &[2, 1])])).0, ErrorCode::None);
    let partition = image.topic("t").expect("made").partition(0).expect("made");
    assert_eq!((partition.leader, &partition.isr[..], &partition.replicas[..]), (1, &[1][..], &[2, 1][..]));
    let fenced = "All brokers specified in the manual partition assignment for partition 0 are fenced or in controlled shutdown.";
    assert_eq!(create_one(&mut image, assigned("u", &[(0, &[2])])), (ErrorCode::InvalidReplicaAssignment, fenced.into()));
    let uneven = "The manual partition assignment includes a partition with 2 replica(s), but this is not consistent with previous partitions, which have 1 replica(s).";
    assert_eq!(create_one(&mut image, assigned("u", &[(0, &[1]), (1, &[1, 2])])), (ErrorCode::InvalidReplicaAssignment, uneven.into()));
    let stopping = BrokerRegistrationChangeRecord { broker_id: 1, in_controlled_shutdown: 1, ..Default::default() };
    apply_all(&mut image, &[stopping.into()]);
    let nobody = "Unable to replicate the partition 1 time(s): All brokers are currently fenced or in controlled shutdown.";
    assert_eq!(create_one(&mut image, topic("u", 1, 1)), (ErrorCode::InvalidReplicationFactor, nobody.into()));
}

#[test]
fn topics_are_deleted_by_name_and_by_id() {
    let mut image = started();
    create(&mut image, vec![topic("a", 1, 1), topic("b", 1, 1), topic("c", 1, 1)]);
    let b = image.topic("b").expect("made").id;
    let by_name = |name: &str| DeleteTopicState { name: Some(Str::from(name)), ..Default::default() };
    let by_id = |topic_id| DeleteTopicState { topic_id, ..Default::default() };
    let request = DeleteTopicsRequest {
        topics: vec![
            by_name("a"),
            by_id(b),
            by_name("nope"),
            by_id(Uuid::from_u128(0xbad)),
            by_id(Uuid::nil()),
            DeleteTopicState { name: Some(Str::from("c")), topic_id: b, ..Default::default() },
            by_name("twice"),
            by_name("twice"),
        ],
        ..Default::default()
    };
    let decision = delete_topics(&image, &request, 6, &TestRules);
    let answers: Vec<_> = decision
        .reply
        .responses
        .iter()
        .map(|result| (result.name.as_deref(), result.error_code, result.error_message.as_deref()))
        .collect();
    let invalid = ErrorCode::InvalidRequest.code();
    assert_eq!(
        answers,
        [
            (None, invalid, Some("Neither topic name nor id were specified.")),
            (Some("c"), invalid, Some("You may not specify both topic name and topic id.")),
            (Some("twice"), invalid, Some("Duplicate topic name.")),
            (None, ErrorCode::UnknownTopicId.code(), Some("This server does not host this topic ID.")),
            (Some("nope"), ErrorCode::UnknownTopicOrPartition.code(), Some("This server does not host this topic-partition.")),
            (Some("b"), 0, None),
            (Some("a"), 0, None),
        ]
    );
    apply_all(&mut image, &decision.records);
    assert_eq!(image.topics().map(|topic| &*topic.name).collect::<Vec<_>>(), ["c"]);
}

/// A topic that is named and identified in one request is not deleted.
#[test]
fn a_topic_twice_in_a_deletion() {
    let mut image = started();
    create(&mut image, vec![topic("a", 1, 1)]);
    let id = image.topic("a").expect("made").id;
    let topics = vec![
        DeleteTopicState { name: Some(Str::from("a")), ..Default::default() },
        DeleteTopicState { topic_id: id, ..Default::default() },
    ];
    let decision = delete_topics(&image, &DeleteTopicsRequest { topics, ..Default::default() }, 6, &TestRules);
    assert_eq!(decision.records, []);
    assert_eq!(decision.reply.responses.len(), 1);
    let message = decision.reply.responses[0].error_message.as_deref();
    assert_eq!(message, Some("The provided topic name maps to an ID that was already supplied."));
}

fn grow(image: &Image, name: &str, count: i32, assignments: Option<&[&[i32]]>) -> (ErrorCode, String, usize) {
    let assignments = assignments.map(|sets| {
        sets.iter().map(|ids| CreatePartitionsAssignment { broker_ids: ids.to_vec(), ..Default::default() }).collect::<Vec<_>>()
    });
    let topics = vec![CreatePartitionsTopic { name: Str::from(name), count, assignments, ..Default::default() }];
    let decision = create_partitions(image, &CreatePartitionsRequest { topics, ..Default::default() }, &mut Seeded(3));
    let result = &decision.reply.results[0];
    let message = result.error_message.as_deref().unwrap_or_default().to_owned();
    (ErrorCode::try_from(result.error_code).expect("a known code"), message, decision.records.len())
}

#[test]
fn topics_grow() {
    let mut image = started();
    create(&mut image, vec![topic("alpha", 3, 1)]);
    let invalid = |message: &str| (ErrorCode::InvalidPartitions, message.to_owned(), 0);
    assert_eq!(grow(&image, "alpha", 3, None), invalid("Topic already has 3 partition(s)."));
    assert_eq!(grow(&image, "alpha", -1, None), invalid("The topic alpha currently has 3 partition(s); -1 would not be an increase."));
    assert_eq!(grow(&image, "nope", 3, None), (ErrorCode::UnknownTopicOrPartition, String::new(), 0));
    let too_few = "Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified.";
    assert_eq!(grow(&image, "alpha", 5, Some(&[&[1]])), (ErrorCode::InvalidReplicaAssignment, too_few.into(), 0));
    let unknown = "The manual partition assignment includes broker 2, but no such broker is registered.";
    assert_eq!(grow(&image, "alpha", 4, Some(&[&[2]])), (ErrorCode::InvalidReplicaAssignment, unknown.into(), 0));
    let large = "Excessively large number of additional partitions per request.";
    assert_eq!(grow(&image, "alpha", 20_000, None), (ErrorCode::PolicyViolation, large.into(), 0));
    assert_eq!(grow(&image, "alpha", 5, None), (ErrorCode::None, String::new(), 2));
}

#[test]
fn new_partitions_stand_behind_the_old() {
    let mut image = started();
    create(&mut image, vec![topic("alpha", 2, 1)]);
    let topics = vec![CreatePartitionsTopic { name: Str::from("alpha"), count: 4, assignments: None, ..Default::default() }];
    let request = CreatePartitionsRequest { topics: topics.clone(), ..Default::default() };
    let decision = create_partitions(&image, &request, &mut Seeded(3));
    let checked = create_partitions(&image, &CreatePartitionsRequest { topics, validate_only: true, ..Default::default() }, &mut Seeded(3));
    assert_eq!((checked.records.len(), &checked.reply), (0, &decision.reply));
    apply_all(&mut image, &decision.records);
    assert!(image.topic("alpha").expect("there").partitions.iter().all(|partition| partition.leader == 1));
    assert_eq!(image.topic("alpha").expect("there").partition_count(), 4);
}

fn alter(image: &mut Image, kind: ConfigResourceType, name: &str, change: Change) -> Result<usize, (ErrorCode, String)> {
    let changes = [ResourceChange { kind, name: Str::from(name), change }];
    let decision = alter_configs(image, &changes, &TestRules);
    apply_all(image, &decision.records);
    match decision.reply.into_iter().next().expect("one answer") {
        Ok(()) => Ok(decision.records.len()),
        Err(refusal) => Err((refusal.code, refusal.message.unwrap_or_default())),
    }
}

fn incremental(key: &str, change: SettingChange) -> Change {
    Change::Incremental(vec![(Str::from(key), change)])
}

#[test]
fn settings_change_key_by_key() {
    let mut image = started();
    create(&mut image, vec![topic("t", 1, 1)]);
    let set = |value: &str| SettingChange::Set(Str::from(value));
    let kind = ConfigResourceType::Topic;
    assert_eq!(alter(&mut image, kind, "t", incremental("retention.ms", set("5"))), Ok(1));
    assert_eq!(alter(&mut image, kind, "t", incremental("retention.ms", set("5"))), Ok(0), "nothing changes");
    assert_eq!(alter(&mut image, kind, "t", incremental("cleanup.policy", SettingChange::Append(Str::from("compact")))), Ok(1));
    assert_eq!(image.topic_overrides("t").collect::<Vec<_>>(), [("cleanup.policy", "delete,compact"), ("retention.ms", "5")]);
    assert_eq!(alter(&mut image, kind, "t", incremental("cleanup.policy", SettingChange::Subtract(Str::from("delete")))), Ok(1));
    assert_eq!(alter(&mut image, kind, "t", incremental("retention.ms", SettingChange::Delete)), Ok(1));
    assert_eq!(image.topic_overrides("t").collect::<Vec<_>>(), [("cleanup.policy", "compact")]);
    let no_list = alter(&mut image, kind, "t", incremental("retention.ms", SettingChange::Append(Str::from("1"))));
    assert_eq!(no_list, Err((ErrorCode::InvalidConfig, "Can't APPEND to key retention.ms because its type is not LIST.".into())));
    let unknown = alter(&mut image, kind, "nope", incremental("retention.ms", set("5")));
    assert_eq!(unknown, Err((ErrorCode::UnknownTopicOrPartition, "The topic 'nope' does not exist.".into())));
    let wrong = alter(&mut image, kind, "t", incremental("retention.ms", set("x")));
    assert_eq!(wrong.expect_err("refused").0, ErrorCode::InvalidConfig);
}

#[test]
fn a_replacement_takes_the_rest_away() {
    let mut image = started();
    create(&mut image, vec![with_config(topic("t", 1, 1), "retention.ms", Some("5"))]);
    let change = Change::Replacement(vec![(Str::from("cleanup.policy"), Str::from("compact"))]);
    assert_eq!(alter(&mut image, ConfigResourceType::Topic, "t", change), Ok(2));
    assert_eq!(image.topic_overrides("t").collect::<Vec<_>>(), [("cleanup.policy", "compact")]);
}

/// With eligible leader replicas the minimum of in-sync replicas is the cluster's or a topic's, and a change of it clears what was kept.
#[test]
fn the_minimum_of_in_sync_replicas() {
    let mut image = started();
    create(&mut image, vec![topic("t", 1, 1)]);
    let minimum = |change| incremental("min.insync.replicas", change);
    let two = || SettingChange::Set(Str::from("2"));
    let broker = alter(&mut image, ConfigResourceType::Broker, "1", minimum(two()));
    assert_eq!(broker, Err((ErrorCode::InvalidConfig, "Broker-level min.insync.replicas cannot be altered while ELR is enabled.".into())));
    let removed = alter(&mut image, ConfigResourceType::Broker, "", minimum(SettingChange::Delete));
    assert_eq!(
        removed,
        Err((ErrorCode::InvalidConfig, "Cluster-level min.insync.replicas cannot be removed while ELR is enabled.".into()))
    );
    assert_eq!(alter(&mut image, ConfigResourceType::Topic, "t", minimum(two())), Ok(2));
    assert_eq!(alter(&mut image, ConfigResourceType::Broker, "", minimum(two())), Ok(2));
    let unknown = alter(&mut image, ConfigResourceType::Broker, "9", incremental("x", two()));
    assert_eq!(unknown, Err((ErrorCode::BrokerIdNotRegistered, "No node with id 9 found.".into())));
}

/// The first records as `kafka-storage format` and the first start of Kafka 4.4.0 make them, apart from the features that are not served.
#[test]
fn a_first_start_writes_kafkas_records() {
    let names: Vec<_> = bootstrap_records(&[], 1).iter().map(MetadataRecord::name).collect();
    let feature = "FeatureLevelRecord";
    assert_eq!(names, ["BeginTransactionRecord", feature, feature, feature, feature, "ConfigRecord", "EndTransactionRecord"]);
    let image = started();
    let features = [("eligible.leader.replicas.version", 1), ("group.version", 1), ("metadata.version", 33), ("transaction.version", 2)];
    assert_eq!(image.features().collect::<Vec<_>>(), features);
    let minimum = image.config(ConfigResourceType::Broker, "").expect("set").get("min.insync.replicas").map(|value| &**value);
    assert_eq!(minimum, Some("1"));
    let broker = image.broker(1).expect("registered");
    assert_eq!((broker.epoch, broker.fenced, broker.in_controlled_shutdown), (10, false, false));
    let formatted = bootstrap_records(&super::start::fresh_features()[..1], 1);
    assert_eq!(formatted.len(), 3, "records of the format, in a transaction, without a minimum");
}

/// Every start and every clean stop raises the leader epoch of every partition; after a stop nobody leads and the broker is fenced.
#[test]
fn starts_and_stops_raise_leader_epochs() {
    let mut image = started();
    create(&mut image, vec![topic("t", 2, 1), topic("u", 1, 1)]);
    let epochs = |image: &Image| image.topics().flat_map(|topic| topic.partitions.iter().map(|p| p.leader_epoch)).collect::<Vec<_>>();
    let records = shutdown_records(&image, 1);
    apply_all(&mut image, &records);
    assert_eq!(epochs(&image), [1, 1, 1]);
    let partition = image.topic("t").expect("there").partition(0).expect("there").clone();
    assert_eq!((partition.leader, &partition.isr[..], &partition.eligible_leader_replicas[..]), (-1, &[][..], &[1][..]));
    assert!(image.broker(1).expect("registered").fenced);
    assert_eq!(create_one(&mut image, topic("v", 1, 1)).0, ErrorCode::InvalidReplicationFactor, "nobody serves");

    let records = registration_records(&image, &registration(1), 50);
    apply_all(&mut image, &records);
    assert_eq!(epochs(&image), [2, 2, 2]);
    let partition = image.topic("t").expect("there").partition(0).expect("there");
    assert_eq!((partition.leader, &partition.isr[..], partition.has_elr()), (1, &[1][..], false));
    assert_eq!(image.broker(1).expect("registered").epoch, 50);

    let records = registration_records(&image, &registration(1), 80);
    apply_all(&mut image, &records);
    assert_eq!(epochs(&image), [3, 3, 3], "also without a clean stop");
}

#[test]
fn what_cannot_be_served_is_named() {
    let mut image = started();
    create(&mut image, vec![topic("t", 1, 1)]);
    assert_eq!(unservable(&image, 1), Vec::<String>::new());
    assert_eq!(unservable(&image, 2), ["partition t-0 has its replicas on [1], this node is 2"]);
}

/// An id that is not registered stops without a word.
#[test]
fn only_a_registered_node_is_fenced() {
    assert_eq!(shutdown_records(&Image::empty(), 1), []);
}
