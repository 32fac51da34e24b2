//! The records that make a picture anew: what a snapshot holds.
//!
//! Applied in this order to an empty picture they give the same picture. The order is Kafka's: features first, so that whoever reads on knows in which level the rest is
//! written; a topic before its partitions. What the level of metadata.version cannot hold is left out (a level only rises, so there is nothing to lose).

use uuid::Uuid;

use crate::wire::Str;
use crate::wire::records::metadata::register_broker_record::{BrokerEndpoint, BrokerFeature};
use crate::wire::records::{ConfigRecord, FeatureLevelRecord, PartitionRecord, ProducerIdsRecord, RegisterBrokerRecord, TopicRecord};

use super::features::{METADATA_VERSION, MetadataVersion};
use super::image::{BrokerImage, ConfigMap, ConfigResourceType, Image, KeptRecords, PartitionImage, ReplicaSet, TopicImage};
use super::record::MetadataRecord;

impl Image {
    /// All records of the picture, lazily: a snapshot of 10,000 partitions is encoded piece by piece.
    pub fn records(&self, level: MetadataVersion) -> impl Iterator<Item = MetadataRecord> {
        let features = self.feature_records();
        let brokers = self.brokers().map(move |broker| MetadataRecord::from(broker.to_record(level)));
        let topics = self.topics().flat_map(move |topic| topic.records(level));
        let configs = self
            .configs
            .iter()
            .flat_map(|(kind, resources)| resources.iter().flat_map(|(name, settings)| config_records(*kind, name, settings)));
        let producer_ids = (self.next_producer_id > 0).then(|| self.producer_ids_record());
        features
            .chain(brokers)
            .chain(self.kept.controller_records(level))
            .chain(topics)
            .chain(configs)
            .chain(self.kept.quota_records())
            .chain(producer_ids)
            .chain(self.kept.security_records())
    }

    /// metadata.version first, as Kafka's readers expect it.
    fn feature_records(&self) -> impl Iterator<Item = MetadataRecord> {
        let metadata_version = self.features().filter(|(name, _)| *name == METADATA_VERSION);
        let others = self.features().filter(|(name, _)| *name != METADATA_VERSION);
        metadata_version
            .chain(others)
            .map(|(name, feature_level)| FeatureLevelRecord { name: Str::from(name), feature_level, ..Default::default() }.into())
    }

    fn producer_ids_record(&self) -> MetadataRecord {
        ProducerIdsRecord { broker_id: -1, broker_epoch: -1, next_producer_id: self.next_producer_id, ..Default::default() }.into()
    }
}

impl TopicImage {
    fn records(&self, level: MetadataVersion) -> impl Iterator<Item = MetadataRecord> {
        let topic = TopicRecord { name: Str::from(&*self.name), topic_id: self.id, ..Default::default() };
        let partitions = (0..).zip(&self.partitions).map(move |(index, partition)| partition.to_record(self.id, index, level).into());
        std::iter::once(topic.into()).chain(partitions)
    }
}

impl PartitionImage {
    /// The partition whole, as a record that a level can hold.
    pub fn to_record(&self, topic_id: Uuid, partition_id: i32, level: MetadataVersion) -> PartitionRecord {
        let elr_of = |set: &ReplicaSet| (level.has_eligible_leader_replicas() && !set.is_empty()).then(|| set.to_vec());
        PartitionRecord {
            partition_id,
            topic_id,
            replicas: self.replicas.to_vec(),
            isr: self.isr.to_vec(),
            removing_replicas: self.removing_replicas.to_vec(),
            adding_replicas: self.adding_replicas.to_vec(),
            leader: self.leader,
            leader_recovery_state: self.leader_recovery_state,
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            directories: if level.has_directories() { self.directories.to_vec() } else { Vec::new() },
            eligible_leader_replicas: elr_of(&self.eligible_leader_replicas),
            last_known_elr: elr_of(&self.last_known_elr),
            ..Default::default()
        }
    }
}

impl BrokerImage {
    /// The registration whole, as a record that a level can hold.
    pub fn to_record(&self, level: MetadataVersion) -> RegisterBrokerRecord {
        RegisterBrokerRecord {
            broker_id: self.id,
            incarnation_id: self.incarnation_id,
            broker_epoch: self.epoch,
            end_points: self
                .endpoints
                .iter()
                .map(|endpoint| BrokerEndpoint {
                    name: Str::from(&*endpoint.name),
                    host: Str::from(&*endpoint.host),
                    port: endpoint.port,
                    security_protocol: endpoint.security_protocol,
                    ..Default::default()
                })
                .collect(),
            features: self
                .supported_features
                .iter()
                .map(|(name, (min, max))| BrokerFeature {
                    name: Str::from(&**name),
                    min_supported_version: *min,
                    max_supported_version: *max,
                    ..Default::default()
                })
                .collect(),
            rack: self.rack.as_deref().map(Str::from),
            fenced: self.fenced,
            in_controlled_shutdown: self.in_controlled_shutdown,
            log_dirs: if level.has_directories() { self.directories.clone() } else { Vec::new() },
            cordoned_log_dirs: self.cordoned_directories.clone().filter(|_| level.has_cordoned_directories()),
            ..Default::default()
        }
    }
}

impl KeptRecords {
    fn controller_records(&self, level: MetadataVersion) -> impl Iterator<Item = MetadataRecord> {
        self.controllers.values().filter(move |_| level.has_controller_registration()).cloned().map(MetadataRecord::from)
    }

    fn quota_records(&self) -> impl Iterator<Item = MetadataRecord> {
        self.client_quotas.values().cloned().map(MetadataRecord::from)
    }

    fn security_records(&self) -> impl Iterator<Item = MetadataRecord> {
        let acls = self.acls.values().cloned().map(MetadataRecord::from);
        let credentials = self.scram_credentials.values().cloned().map(MetadataRecord::from);
        let tokens = self.delegation_tokens.values().cloned().map(MetadataRecord::from);
        acls.chain(credentials).chain(tokens)
    }
}

fn config_records(kind: ConfigResourceType, name: &str, settings: &ConfigMap) -> impl Iterator<Item = MetadataRecord> {
    settings.iter().map(move |(key, value)| {
        let value = Some(Str::from(&**value));
        ConfigRecord { resource_type: kind.code(), resource_name: Str::from(name), name: Str::from(&**key), value, ..Default::default() }
            .into()
    })
}
