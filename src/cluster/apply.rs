//! How a record changes the image: the one path, for a record just decided as for one read back at start.
//!
//! Applying never decides. What a record says has been checked before it was written, so a record that does not fit (a partition of a topic that is not there) means a log
//! that is damaged or was written by something else; the start is then refused, naming it.

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;
use uuid::Uuid;

use crate::wire::Str;
use crate::wire::records::{
    BrokerRegistrationChangeRecord, ClearElrRecord, ClientQuotaRecord, ConfigRecord, FeatureLevelRecord, PartitionChangeRecord,
    PartitionRecord, RegisterBrokerRecord, TopicRecord,
};

use super::image::{BrokerImage, ConfigResourceType, Endpoint, Image, PartitionImage, QuotaEntity, TopicImage};
use super::record::MetadataRecord;

/// The value of PartitionChangeRecord.Leader that leaves leader and leader epoch as they are.
pub const LEADER_UNCHANGED: i32 = -2;
/// The value of PartitionChangeRecord.LeaderRecoveryState that leaves it as it is.
const RECOVERY_STATE_UNCHANGED: i8 = -1;

impl Image {
    /// Changes the picture by one record. Where it stands in the log is told by [`Self::advance`].
    pub fn apply(&mut self, record: &MetadataRecord) -> Result<(), ApplyError> {
        match record {
            MetadataRecord::FeatureLevel(record) => self.apply_feature_level(record),
            MetadataRecord::RegisterBroker(record) => self.apply_broker_registration(record),
            MetadataRecord::UnregisterBroker(record) => self.apply_broker_removal(record.broker_id)?,
            MetadataRecord::FenceBroker(record) => self.broker_mut(record.id)?.fenced = true,
            MetadataRecord::UnfenceBroker(record) => self.broker_mut(record.id)?.fenced = false,
            MetadataRecord::BrokerRegistrationChange(record) => self.apply_registration_change(record)?,
            MetadataRecord::Topic(record) => self.apply_topic(record)?,
            MetadataRecord::RemoveTopic(record) => self.apply_topic_removal(&record.topic_id)?,
            MetadataRecord::Partition(record) => self.apply_partition(record)?,
            MetadataRecord::PartitionChange(record) => self.apply_partition_change(record)?,
            MetadataRecord::ClearElr(record) => self.apply_elr_clearing(record)?,
            MetadataRecord::Config(record) => self.apply_config(record)?,
            MetadataRecord::ProducerIds(record) => self.next_producer_id = record.next_producer_id,
            other => self.apply_kept(other),
        }
        Ok(())
    }

    /// Tells where the last applied record stands: `offset` in the log, written in `epoch`.
    pub fn advance(&mut self, offset: i64, epoch: i32) {
        assert!(offset >= self.offset && epoch >= self.epoch, "the metadata log only goes forward");
        self.offset = offset;
        self.epoch = epoch;
    }

    fn apply_feature_level(&mut self, record: &FeatureLevelRecord) {
        if record.feature_level == 0 {
            self.features.remove(&*record.name);
        } else {
            self.features.insert(shared(&record.name), record.feature_level);
        }
    }

    fn apply_broker_registration(&mut self, record: &RegisterBrokerRecord) {
        let broker = BrokerImage {
            id: record.broker_id,
            epoch: record.broker_epoch,
            incarnation_id: record.incarnation_id,
            endpoints: record
                .end_points
                .iter()
                .map(|endpoint| Endpoint {
                    name: shared(&endpoint.name),
                    host: shared(&endpoint.host),
                    port: endpoint.port,
                    security_protocol: endpoint.security_protocol,
                })
                .collect(),
            supported_features: record
                .features
                .iter()
                .map(|feature| (shared(&feature.name), (feature.min_supported_version, feature.max_supported_version)))
                .collect(),
            rack: record.rack.as_ref().map(shared),
            fenced: record.fenced,
            in_controlled_shutdown: record.in_controlled_shutdown,
            directories: record.log_dirs.clone(),
            cordoned_directories: record.cordoned_log_dirs.clone(),
        };
        self.brokers.insert(record.broker_id, Arc::new(broker));
    }

    fn apply_broker_removal(&mut self, id: i32) -> Result<(), ApplyError> {
        self.brokers.remove(&id).map(drop).ok_or(ApplyError::NoSuchBroker { id })
    }

    fn apply_registration_change(&mut self, record: &BrokerRegistrationChangeRecord) -> Result<(), ApplyError> {
        let broker = self.broker_mut(record.broker_id)?;
        match record.fenced {
            0 => {}
            1 => broker.fenced = true,
            _ => broker.fenced = false,
        }
        if record.in_controlled_shutdown == 1 {
            broker.in_controlled_shutdown = true;
        }
        if !record.log_dirs.is_empty() {
            broker.directories.clone_from(&record.log_dirs);
        }
        if record.cordoned_log_dirs.is_some() {
            broker.cordoned_directories.clone_from(&record.cordoned_log_dirs);
        }
        Ok(())
    }

    fn apply_topic(&mut self, record: &TopicRecord) -> Result<(), ApplyError> {
        if self.topic_ids.contains_key(&*record.name) {
            return Err(ApplyError::TopicTwice { name: record.name.to_string() });
        }
        let name = shared(&record.name);
        self.topic_ids.insert(name.clone(), record.topic_id);
        self.topics.insert(record.topic_id, Arc::new(TopicImage { name, id: record.topic_id, partitions: Vec::new() }));
        Ok(())
    }

    /// The topic's settings go with it, without a record of their own.
    fn apply_topic_removal(&mut self, id: &Uuid) -> Result<(), ApplyError> {
        let topic = self.topics.remove(id).ok_or(ApplyError::NoSuchTopic { id: *id })?;
        self.topic_ids.remove(&*topic.name);
        if let Some(configs) = self.configs.get_mut(&ConfigResourceType::Topic) {
            configs.remove(&*topic.name);
        }
        Ok(())
    }

    /// Partitions may come in any order: places below are held open until their records come.
    fn apply_partition(&mut self, record: &PartitionRecord) -> Result<(), ApplyError> {
        let topic = self.topic_mut(&record.topic_id)?;
        let index = partition_index(&record.topic_id, record.partition_id)?;
        if topic.partitions.len() <= index {
            topic.partitions.resize(index + 1, PartitionImage::unknown());
        }
        topic.partitions[index] = PartitionImage {
            replicas: SmallVec::from_slice(&record.replicas),
            isr: SmallVec::from_slice(&record.isr),
            removing_replicas: SmallVec::from_slice(&record.removing_replicas),
            adding_replicas: SmallVec::from_slice(&record.adding_replicas),
            eligible_leader_replicas: SmallVec::from_slice(record.eligible_leader_replicas.as_deref().unwrap_or_default()),
            last_known_elr: SmallVec::from_slice(record.last_known_elr.as_deref().unwrap_or_default()),
            leader: record.leader,
            leader_epoch: record.leader_epoch,
            partition_epoch: record.partition_epoch,
            leader_recovery_state: record.leader_recovery_state,
            directories: SmallVec::from_slice(&record.directories),
        };
        Ok(())
    }

    fn apply_partition_change(&mut self, record: &PartitionChangeRecord) -> Result<(), ApplyError> {
        let index = partition_index(&record.topic_id, record.partition_id)?;
        let topic = self.topic_mut(&record.topic_id)?;
        let partition = topic
            .partitions
            .get_mut(index)
            .filter(|partition| partition.is_known())
            .ok_or(ApplyError::NoSuchPartition { topic_id: record.topic_id, partition: record.partition_id })?;
        change_partition(partition, record);
        Ok(())
    }

    fn apply_elr_clearing(&mut self, record: &ClearElrRecord) -> Result<(), ApplyError> {
        let ids: Vec<Uuid> = if record.topic_name.is_empty() {
            self.topic_ids.values().copied().collect()
        } else {
            let id = self.topic_ids.get(&*record.topic_name).copied();
            vec![id.ok_or_else(|| ApplyError::NoSuchTopicName { name: record.topic_name.to_string() })?]
        };
        for id in ids {
            let has_elr = self.topics[&id].partitions.iter().any(PartitionImage::has_elr);
            if !has_elr {
                continue;
            }
            for partition in self.topic_mut(&id)?.partitions.iter_mut().filter(|partition| partition.has_elr()) {
                partition.eligible_leader_replicas.clear();
                partition.last_known_elr.clear();
                partition.partition_epoch += 1;
            }
        }
        Ok(())
    }

    fn apply_config(&mut self, record: &ConfigRecord) -> Result<(), ApplyError> {
        let kind = ConfigResourceType::try_from(record.resource_type).map_err(|code| ApplyError::UnknownResourceType { code })?;
        let resources = self.configs.entry(kind).or_default();
        let mut settings = resources.get(&*record.resource_name).cloned().unwrap_or_default();
        let changed = Arc::make_mut(&mut settings);
        match &record.value {
            Some(value) => drop(changed.insert(shared(&record.name), shared(value))),
            None => drop(changed.remove(&*record.name)),
        }
        if settings.is_empty() {
            resources.remove(&*record.resource_name);
        } else {
            resources.insert(shared(&record.resource_name), settings);
        }
        Ok(())
    }

    /// Records that are only kept, and those that change nothing.
    fn apply_kept(&mut self, record: &MetadataRecord) {
        let kept = &mut self.kept;
        match record {
            MetadataRecord::RegisterController(record) => drop(kept.controllers.insert(record.controller_id, record.clone())),
            MetadataRecord::UnregisterController(record) => drop(kept.controllers.remove(&record.controller_id)),
            MetadataRecord::AccessControlEntry(record) => drop(kept.acls.insert(record.id, record.clone())),
            MetadataRecord::RemoveAccessControlEntry(record) => drop(kept.acls.remove(&record.id)),
            MetadataRecord::UserScramCredential(record) => {
                kept.scram_credentials.insert((record.mechanism, record.name.clone()), record.clone());
            }
            MetadataRecord::RemoveUserScramCredential(record) => {
                kept.scram_credentials.remove(&(record.mechanism, record.name.clone()));
            }
            MetadataRecord::DelegationToken(record) => drop(kept.delegation_tokens.insert(record.token_id.clone(), record.clone())),
            MetadataRecord::RemoveDelegationToken(record) => drop(kept.delegation_tokens.remove(&record.token_id)),
            MetadataRecord::ClientQuota(record) => {
                let key = (quota_entity(record), record.key.clone());
                if record.remove {
                    kept.client_quotas.remove(&key);
                } else {
                    kept.client_quotas.insert(key, record.clone());
                }
            }
            // Transactions are the replay's business (replay.rs); the migration from ZooKeeper ended with Kafka 4.0, whose snapshots drop its state too.
            MetadataRecord::BeginTransaction(_)
            | MetadataRecord::EndTransaction(_)
            | MetadataRecord::AbortTransaction(_)
            | MetadataRecord::ZkMigrationState(_)
            | MetadataRecord::NoOp(_) => {}
            applied => unreachable!("{} is applied before", applied.name()),
        }
    }

    fn broker_mut(&mut self, id: i32) -> Result<&mut BrokerImage, ApplyError> {
        self.brokers.get_mut(&id).map(Arc::make_mut).ok_or(ApplyError::NoSuchBroker { id })
    }

    /// Copies the topic once if a published picture still holds it.
    fn topic_mut(&mut self, id: &Uuid) -> Result<&mut TopicImage, ApplyError> {
        self.topics.get_mut(id).map(Arc::make_mut).ok_or(ApplyError::NoSuchTopic { id: *id })
    }
}

/// What the record does not name stays. Naming a leader, also the present one, starts a new leader epoch; every change starts a new partition epoch.
fn change_partition(partition: &mut PartitionImage, record: &PartitionChangeRecord) {
    let replace = |set: &mut super::image::ReplicaSet, named: &Option<Vec<i32>>| {
        if let Some(ids) = named {
            *set = SmallVec::from_slice(ids);
        }
    };
    replace(&mut partition.replicas, &record.replicas);
    replace(&mut partition.isr, &record.isr);
    replace(&mut partition.removing_replicas, &record.removing_replicas);
    replace(&mut partition.adding_replicas, &record.adding_replicas);
    replace(&mut partition.eligible_leader_replicas, &record.eligible_leader_replicas);
    replace(&mut partition.last_known_elr, &record.last_known_elr);
    if let Some(directories) = &record.directories {
        partition.directories = SmallVec::from_slice(directories);
    }
    if record.leader != LEADER_UNCHANGED {
        partition.leader = record.leader;
        partition.leader_epoch += 1;
    }
    if record.leader_recovery_state != RECOVERY_STATE_UNCHANGED {
        partition.leader_recovery_state = record.leader_recovery_state;
    }
    partition.partition_epoch += 1;
}

/// A partition id of a record, as index. The bound keeps a damaged record from claiming memory for two thousand million places.
fn partition_index(topic_id: &Uuid, partition: i32) -> Result<usize, ApplyError> {
    const PARTITIONS_PER_TOPIC_MAX: usize = 1 << 20;
    usize::try_from(partition)
        .ok()
        .filter(|index| *index < PARTITIONS_PER_TOPIC_MAX)
        .ok_or(ApplyError::NoSuchPartition { topic_id: *topic_id, partition })
}

fn quota_entity(record: &ClientQuotaRecord) -> QuotaEntity {
    let mut entity: QuotaEntity = record.entity.iter().map(|part| (part.entity_type.clone(), part.entity_name.clone())).collect();
    entity.sort();
    entity
}

/// A name that outlives the frame it was read from.
fn shared(text: &Str) -> Arc<str> {
    Arc::from(text.as_str())
}

/// A record that does not fit what was applied before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApplyError {
    NoSuchBroker { id: i32 },
    NoSuchTopic { id: Uuid },
    NoSuchTopicName { name: String },
    NoSuchPartition { topic_id: Uuid, partition: i32 },
    TopicTwice { name: String },
    UnknownResourceType { code: i8 },
}

impl fmt::Display for ApplyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchBroker { id } => write!(formatter, "names broker {id}, which is not registered"),
            Self::NoSuchTopic { id } => write!(formatter, "names the topic id {id}, which does not exist"),
            Self::NoSuchTopicName { name } => write!(formatter, "names the topic '{name}', which does not exist"),
            Self::NoSuchPartition { topic_id, partition } => {
                write!(formatter, "names partition {partition} of the topic id {topic_id}, which does not exist")
            }
            Self::TopicTwice { name } => write!(formatter, "makes the topic '{name}', which exists"),
            Self::UnknownResourceType { code } => write!(formatter, "sets a value of the unknown resource type {code}"),
        }
    }
}

impl std::error::Error for ApplyError {}
