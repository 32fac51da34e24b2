//! What each record does to the picture, and that a picture's records make it anew.

use bytes::Bytes;
use uuid::Uuid;

use crate::wire::Str;
use crate::wire::records::metadata::client_quota_record::EntityData;
use crate::wire::records::metadata::register_broker_record::{BrokerEndpoint, BrokerFeature};
use crate::wire::records::{
    AccessControlEntryRecord, BrokerRegistrationChangeRecord, ClearElrRecord, ClientQuotaRecord, ConfigRecord, DelegationTokenRecord,
    FeatureLevelRecord, PartitionChangeRecord, PartitionRecord, ProducerIdsRecord, RegisterBrokerRecord, RegisterControllerRecord,
    RemoveTopicRecord, TopicRecord, UnregisterBrokerRecord, UserScramCredentialRecord,
};

use super::apply::{ApplyError, LEADER_UNCHANGED};
use super::features::{METADATA_VERSION, METADATA_VERSION_LATEST};
use super::image::{ConfigResourceType, Image};
use super::record::MetadataRecord;

const TOPIC: Uuid = Uuid::from_u128(0x70);
const DIRECTORY: Uuid = Uuid::from_u128(0xd1);

fn image_of(records: impl IntoIterator<Item = MetadataRecord>) -> Image {
    let mut image = Image::empty();
    for record in records {
        image.apply(&record).expect("the record fits");
    }
    image
}

fn topic(name: &str, id: Uuid) -> MetadataRecord {
    TopicRecord { name: Str::from(name), topic_id: id, ..Default::default() }.into()
}

fn partition(topic_id: Uuid, partition_id: i32) -> MetadataRecord {
    PartitionRecord {
        topic_id,
        partition_id,
        replicas: vec![1],
        isr: vec![1],
        leader: 1,
        leader_epoch: 0,
        partition_epoch: 0,
        directories: vec![DIRECTORY],
        ..Default::default()
    }
    .into()
}

fn config(kind: ConfigResourceType, name: &str, key: &str, value: Option<&str>) -> MetadataRecord {
    ConfigRecord {
        resource_type: kind.code(),
        resource_name: Str::from(name),
        name: Str::from(key),
        value: value.map(Str::from),
        ..Default::default()
    }
    .into()
}

fn broker(id: i32) -> MetadataRecord {
    RegisterBrokerRecord {
        broker_id: id,
        broker_epoch: 12,
        incarnation_id: Uuid::from_u128(3),
        end_points: vec![BrokerEndpoint { name: Str::from("PLAINTEXT"), host: Str::from("h"), port: 9092, ..Default::default() }],
        features: vec![BrokerFeature {
            name: Str::from(METADATA_VERSION),
            min_supported_version: 7,
            max_supported_version: 33,
            ..Default::default()
        }],
        rack: Some(Str::from("r1")),
        log_dirs: vec![DIRECTORY],
        ..Default::default()
    }
    .into()
}

/// A picture with something of everything, written as records and applied again, is the same picture.
#[test]
fn records_of_a_picture_make_it_anew() {
    let quota = ClientQuotaRecord {
        entity: vec![
            EntityData { entity_type: Str::from("user"), entity_name: None, ..Default::default() },
            EntityData { entity_type: Str::from("client-id"), entity_name: Some(Str::from("c")), ..Default::default() },
        ],
        key: Str::from("producer_byte_rate"),
        value: 10.5,
        ..Default::default()
    };
    let credential = UserScramCredentialRecord { name: Str::from("u"), mechanism: 1, salt: Bytes::from_static(b"s"), ..Default::default() };
    let image = image_of([
        FeatureLevelRecord { name: Str::from("eligible.leader.replicas.version"), feature_level: 1, ..Default::default() }.into(),
        FeatureLevelRecord { name: Str::from(METADATA_VERSION), feature_level: 33, ..Default::default() }.into(),
        broker(1),
        RegisterControllerRecord { controller_id: 1, ..Default::default() }.into(),
        topic("t", TOPIC),
        partition(TOPIC, 1),
        partition(TOPIC, 0),
        config(ConfigResourceType::Topic, "t", "retention.ms", Some("5")),
        config(ConfigResourceType::Broker, "", "min.insync.replicas", Some("1")),
        ProducerIdsRecord { next_producer_id: 3000, ..Default::default() }.into(),
        AccessControlEntryRecord { id: Uuid::from_u128(5), ..Default::default() }.into(),
        quota.into(),
        credential.into(),
        DelegationTokenRecord { token_id: Str::from("token"), ..Default::default() }.into(),
    ]);
    let records: Vec<MetadataRecord> = image.records(METADATA_VERSION_LATEST).collect();
    assert_eq!(records[0].name(), "FeatureLevelRecord");
    assert!(matches!(&records[0], MetadataRecord::FeatureLevel(record) if record.name == METADATA_VERSION), "the level comes first");
    assert_eq!(records.len(), 14);
    assert_eq!(image_of(records), image);
}

/// Naming a leader, also the present one, starts a leader epoch; a change of something else only a partition epoch.
#[test]
fn leader_epochs_rise_with_every_named_leader() {
    let mut image = image_of([topic("t", TOPIC), partition(TOPIC, 0)]);
    let same_leader = PartitionChangeRecord { topic_id: TOPIC, partition_id: 0, leader: 1, ..Default::default() };
    image.apply(&same_leader.into()).expect("applies");
    let shrink =
        PartitionChangeRecord { topic_id: TOPIC, partition_id: 0, isr: Some(vec![]), leader: LEADER_UNCHANGED, ..Default::default() };
    image.apply(&shrink.into()).expect("applies");
    let partition = image.topic("t").expect("exists").partition(0).expect("exists");
    assert_eq!((partition.leader, partition.leader_epoch, partition.partition_epoch), (1, 1, 2));
    assert!(partition.isr.is_empty());
    assert_eq!(partition.replicas[..], [1]);
}

/// A published picture does not change with the one that goes on.
#[test]
fn a_published_picture_stays() {
    let mut image = image_of([topic("t", TOPIC), partition(TOPIC, 0)]);
    let published = image.clone();
    image.apply(&PartitionChangeRecord { topic_id: TOPIC, partition_id: 0, leader: 1, ..Default::default() }.into()).expect("applies");
    image.apply(&topic("u", Uuid::from_u128(9))).expect("applies");
    assert_eq!(published.topic("t").expect("exists").partitions[0].leader_epoch, 0);
    assert!(published.topic("u").is_none());
    assert_eq!(image.topic("t").expect("exists").partitions[0].leader_epoch, 1);
}

/// A topic's settings go with it; its name is free for another id.
#[test]
fn a_removed_topic_leaves_nothing() {
    let mut image = image_of([topic("t", TOPIC), partition(TOPIC, 0), config(ConfigResourceType::Topic, "t", "retention.ms", Some("5"))]);
    image.apply(&RemoveTopicRecord { topic_id: TOPIC, ..Default::default() }.into()).expect("applies");
    assert_eq!((image.topic_count(), image.topics().count()), (0, 0));
    assert_eq!(image.topic_overrides("t").count(), 0);
    image.apply(&topic("t", Uuid::from_u128(9))).expect("the name is free");
}

#[test]
fn settings_are_set_and_taken_back() {
    let mut image =
        image_of([config(ConfigResourceType::Topic, "t", "a", Some("1")), config(ConfigResourceType::Topic, "t", "b", Some("2"))]);
    assert_eq!(image.topic_overrides("t").collect::<Vec<_>>(), [("a", "1"), ("b", "2")]);
    image.apply(&config(ConfigResourceType::Topic, "t", "a", None)).expect("applies");
    image.apply(&config(ConfigResourceType::Topic, "t", "b", None)).expect("applies");
    assert_eq!(image.configured_resources(ConfigResourceType::Topic).count(), 0);
}

#[test]
fn a_broker_is_fenced_stopped_and_forgotten() {
    let mut image = image_of([broker(1)]);
    let change = |fenced, in_controlled_shutdown| {
        MetadataRecord::from(BrokerRegistrationChangeRecord {
            broker_id: 1,
            broker_epoch: 12,
            fenced,
            in_controlled_shutdown,
            ..Default::default()
        })
    };
    assert!(image.broker(1).expect("registered").fenced, "a registration begins fenced");
    image.apply(&change(-1, 0)).expect("applies");
    image.apply(&change(0, 1)).expect("applies");
    let registered = image.broker(1).expect("registered");
    assert_eq!((registered.fenced, registered.in_controlled_shutdown), (false, true));
    assert_eq!(registered.endpoint("PLAINTEXT").expect("named").port, 9092);
    image.apply(&UnregisterBrokerRecord { broker_id: 1, ..Default::default() }.into()).expect("applies");
    assert!(image.broker(1).is_none());
    assert_eq!(image.apply(&change(1, 0)), Err(ApplyError::NoSuchBroker { id: 1 }));
}

/// Clearing touches only partitions that keep eligible leaders, by name or all.
#[test]
fn eligible_leaders_are_cleared() {
    let other = Uuid::from_u128(9);
    let mut image = image_of([topic("t", TOPIC), partition(TOPIC, 0), partition(TOPIC, 1), topic("u", other), partition(other, 0)]);
    let lost = |topic_id| {
        MetadataRecord::from(PartitionChangeRecord {
            topic_id,
            partition_id: 0,
            isr: Some(vec![]),
            eligible_leader_replicas: Some(vec![1]),
            last_known_elr: Some(vec![1]),
            ..Default::default()
        })
    };
    image.apply(&lost(TOPIC)).expect("applies");
    image.apply(&lost(other)).expect("applies");
    image.apply(&ClearElrRecord { topic_name: Str::from("t"), ..Default::default() }.into()).expect("applies");
    let partition_epochs =
        |image: &Image| image.topics().flat_map(|topic| topic.partitions.iter().map(|p| p.partition_epoch)).collect::<Vec<_>>();
    assert_eq!(partition_epochs(&image), [2, 0, 1]);
    image.apply(&ClearElrRecord::default().into()).expect("applies");
    assert_eq!(partition_epochs(&image), [2, 0, 2]);
}

/// A record that does not fit is named, and claims no memory.
#[test]
fn records_that_do_not_fit_are_refused() {
    let mut image = image_of([topic("t", TOPIC)]);
    assert_eq!(image.apply(&topic("t", TOPIC)), Err(ApplyError::TopicTwice { name: "t".into() }));
    assert_eq!(image.apply(&partition(Uuid::nil(), 0)), Err(ApplyError::NoSuchTopic { id: Uuid::nil() }));
    for index in [-1, i32::MAX] {
        assert_eq!(image.apply(&partition(TOPIC, index)), Err(ApplyError::NoSuchPartition { topic_id: TOPIC, partition: index }));
    }
    let change = PartitionChangeRecord { topic_id: TOPIC, partition_id: 0, ..Default::default() };
    assert_eq!(image.apply(&change.into()), Err(ApplyError::NoSuchPartition { topic_id: TOPIC, partition: 0 }));
}
