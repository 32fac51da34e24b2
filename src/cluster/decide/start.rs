//! What a start and a clean stop write: the first records of all, the node's registrations, and every partition's new leader epoch.
//!
//! One node is broker and controller in one. It registers in a new life each time, and each of its partitions gets a leader once more, which raises the leader epoch: a
//! consumer that has read a tail which a weaker durability class lost learns from the epoch that it must look again. A clean stop hands the partitions back, as Kafka does
//! in a controlled shutdown, so that another start, ours or Kafka's, takes nothing for a crash.

use uuid::Uuid;

use crate::cluster::features::{ELR_VERSION, FEATURES, METADATA_VERSION, served_features, unserved_features};
use crate::cluster::image::{BrokerImage, ConfigResourceType, Endpoint, Image, NO_LEADER, PartitionImage};
use crate::cluster::record::MetadataRecord;
use crate::wire::Str;
use crate::wire::records::metadata::register_controller_record::{ControllerEndpoint, ControllerFeature};
use crate::wire::records::{
    AbortTransactionRecord, BeginTransactionRecord, BrokerRegistrationChangeRecord, ConfigRecord, EndTransactionRecord, FeatureLevelRecord,
    PartitionChangeRecord, RegisterControllerRecord,
};

/// This node as it registers.
#[derive(Clone, Debug, PartialEq)]
pub struct Registration {
    pub node_id: i32,
    /// Random in every life.
    pub incarnation_id: Uuid,
    /// The broker's listeners with what they advertise.
    pub endpoints: Vec<Endpoint>,
    /// The controller's listeners; none where the settings name none.
    pub controller_endpoints: Vec<Endpoint>,
    pub rack: Option<std::sync::Arc<str>>,
    /// `directory.id` of each data directory.
    pub directories: Vec<Uuid>,
}

/// The first records of a log. `formatted` are the records that `kafka-storage format` left for this moment, empty where nobody formatted.
///
/// They stand in a metadata transaction where the level knows them: a start that dies between its batches leaves nothing half made.
pub fn bootstrap_records(formatted: &[MetadataRecord], min_insync_replicas: i32) -> Vec<MetadataRecord> {
    let features: Vec<MetadataRecord> = if formatted.is_empty() { fresh_features() } else { formatted.to_vec() };
    let level_of = |wanted: &str| {
        features.iter().find_map(|record| match record {
            MetadataRecord::FeatureLevel(record) if record.name == wanted => Some(record.feature_level),
            _ => None,
        })
    };
    let has_transactions = level_of(METADATA_VERSION).is_some_and(|level| crate::cluster::MetadataVersion(level).has_transactions());
    // With eligible leader replicas the minimum is the cluster's, no longer each broker's (KIP-966).
    let minimum = level_of(ELR_VERSION).is_some_and(|level| level > 0).then(|| {
        MetadataRecord::from(ConfigRecord {
            resource_type: ConfigResourceType::Broker.code(),
            name: Str::from("min.insync.replicas"),
            value: Some(Str::from(min_insync_replicas.to_string())),
            ..Default::default()
        })
    });
    let begin = BeginTransactionRecord { name: Some(Str::from("Bootstrap records")), ..Default::default() };
    let begin = has_transactions.then(|| MetadataRecord::from(begin));
    let end = has_transactions.then(|| MetadataRecord::from(EndTransactionRecord::default()));
    begin.into_iter().chain(features).chain(minimum).chain(end).collect()
}

/// The features that a fresh directory finalises.
pub fn fresh_features() -> Vec<MetadataRecord> {
    FEATURES
        .iter()
        .filter(|feature| feature.level_fresh > 0)
        .map(|feature| {
            FeatureLevelRecord { name: Str::from(feature.name), feature_level: feature.level_fresh, ..Default::default() }.into()
        })
        .collect()
}

/// The record that takes back a transaction which an earlier life left open.
pub fn abort_record() -> MetadataRecord {
    AbortTransactionRecord { reason: Some(Str::from("Controller failover")), ..Default::default() }.into()
}

/// Why this node cannot serve what the picture holds, one sentence each; empty where it can.
pub fn unservable(image: &Image, node_id: i32) -> Vec<String> {
    const NAMED_MAX: usize = 10;
    let features = unserved_features(image).into_iter().map(|feature| format!("feature {feature}"));
    let foreign = image.topics().flat_map(|topic| {
        (0..).zip(&topic.partitions).filter(move |(_, partition)| partition.replicas[..] != [node_id]).map(move |(index, partition)| {
            format!("partition {}-{index} has its replicas on {:?}, this node is {node_id}", topic.name, partition.replicas)
        })
    });
    let incomplete =
        image.topics().filter(|topic| topic.partitions.is_empty()).map(|topic| format!("topic {} has no partition", topic.name));
    features.chain(foreign.take(NAMED_MAX)).chain(incomplete.take(NAMED_MAX)).collect()
}

/// The records of one start, in order. The registration's epoch is `next_offset`, where the first of them will stand: no earlier life had it.
pub fn registration_records(image: &Image, registration: &Registration, next_offset: i64) -> Vec<MetadataRecord> {
    let level = image.metadata_version().expect("a level is finalised before a node registers");
    let controller = (level.has_controller_registration() && !registration.controller_endpoints.is_empty())
        .then(|| MetadataRecord::from(controller_record(registration)));
    let broker = BrokerImage {
        id: registration.node_id,
        epoch: next_offset,
        incarnation_id: registration.incarnation_id,
        endpoints: registration.endpoints.clone(),
        supported_features: served_features().map(|feature| (feature.name.into(), (feature.level_min, feature.level_max))).collect(),
        rack: registration.rack.clone(),
        fenced: true,
        in_controlled_shutdown: false,
        directories: registration.directories.clone(),
        cordoned_directories: Some(Vec::new()),
    };
    let unfence =
        BrokerRegistrationChangeRecord { broker_id: registration.node_id, broker_epoch: next_offset, fenced: -1, ..Default::default() };
    controller
        .into_iter()
        .chain([broker.to_record(level).into(), unfence.into()])
        .chain(partition_changes(image, |partition| take_lead(partition, registration.node_id)))
        .collect()
}

fn controller_record(registration: &Registration) -> RegisterControllerRecord {
    RegisterControllerRecord {
        controller_id: registration.node_id,
        incarnation_id: registration.incarnation_id,
        end_points: registration
            .controller_endpoints
            .iter()
            .map(|endpoint| ControllerEndpoint {
                name: Str::from(&*endpoint.name),
                host: Str::from(&*endpoint.host),
                port: endpoint.port,
                security_protocol: endpoint.security_protocol,
                ..Default::default()
            })
            .collect(),
        features: served_features()
            .map(|feature| ControllerFeature {
                name: Str::from(feature.name),
                min_supported_version: feature.level_min,
                max_supported_version: feature.level_max,
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    }
}

/// The records of a clean stop: the node is on its way out, leads nothing any more, and is fenced. None for a node that is not registered.
pub fn shutdown_records(image: &Image, node_id: i32) -> Vec<MetadataRecord> {
    let Some(broker) = image.broker(node_id) else { return Vec::new() };
    let change = |fenced, in_controlled_shutdown| {
        MetadataRecord::from(BrokerRegistrationChangeRecord {
            broker_id: node_id,
            broker_epoch: broker.epoch,
            fenced,
            in_controlled_shutdown,
            ..Default::default()
        })
    };
    let keeps_eligible_leaders = image.feature_level(ELR_VERSION) > 0;
    std::iter::once(change(0, 1))
        .chain(partition_changes(image, |partition| (partition.leader == node_id).then(|| hand_back(node_id, keeps_eligible_leaders))))
        .chain([change(1, 0)])
        .collect()
}

/// Changes of all partitions for which `change` makes one; topic and index are filled in here.
fn partition_changes(
    image: &Image,
    change: impl Fn(&PartitionImage) -> Option<PartitionChangeRecord>,
) -> impl Iterator<Item = MetadataRecord> {
    image.topics().flat_map(move |topic| {
        let changes: Vec<MetadataRecord> = (0..)
            .zip(&topic.partitions)
            .filter_map(|(partition_id, partition)| Some((partition_id, change(partition)?)))
            .map(|(partition_id, record)| PartitionChangeRecord { topic_id: topic.id, partition_id, ..record }.into())
            .collect();
        changes
    })
}

/// The only replica leads, is in sync, and needs nobody to be kept in mind for it. Naming the leader raises the leader epoch also where it stays.
fn take_lead(partition: &PartitionImage, node_id: i32) -> Option<PartitionChangeRecord> {
    let cleared = |is_empty: bool| (!is_empty).then(Vec::new);
    let is_recovering = partition.leader_recovery_state != 0;
    Some(PartitionChangeRecord {
        leader: node_id,
        isr: (partition.isr[..] != [node_id]).then(|| vec![node_id]),
        eligible_leader_replicas: cleared(partition.eligible_leader_replicas.is_empty()),
        last_known_elr: cleared(partition.last_known_elr.is_empty()),
        leader_recovery_state: if is_recovering { 0 } else { PartitionChangeRecord::default().leader_recovery_state },
        ..Default::default()
    })
}

/// Nobody leads; the node is remembered as the one that may without loss. Without eligible leader replicas the ISR itself remembers it.
fn hand_back(node_id: i32, keeps_eligible_leaders: bool) -> PartitionChangeRecord {
    let remembered = || keeps_eligible_leaders.then(|| vec![node_id]);
    PartitionChangeRecord {
        leader: NO_LEADER,
        isr: keeps_eligible_leaders.then(Vec::new),
        eligible_leader_replicas: remembered(),
        last_known_elr: remembered(),
        ..Default::default()
    }
}
