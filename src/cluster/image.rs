//! What the metadata log adds up to: one immutable picture of the cluster, shared by all shards as `Arc<Image>`.
//!
//! The maps are persistent (imbl): a copy shares everything with its original, so that shard 0 can keep a picture ahead of the committed one, and publishing a change at
//! 10,000 partitions costs what the change costs. A topic is held once, under its id; its name leads to the id. So a change to a partition copies its topic at most once
//! per published picture.

use std::collections::BTreeMap;
use std::sync::Arc;

use smallvec::SmallVec;
use uuid::Uuid;

use crate::wire::Str;
use crate::wire::records::{
    AccessControlEntryRecord, ClientQuotaRecord, DelegationTokenRecord, RegisterControllerRecord, UserScramCredentialRecord,
};

use super::TopicIdPartition;
use super::features::{METADATA_VERSION, MetadataVersion};

/// The settings that were given to one resource: name to value.
pub type ConfigMap = BTreeMap<Arc<str>, Arc<str>>;

/// Broker ids of a replica set. Three replicas are the usual case and stay inline.
pub type ReplicaSet = SmallVec<[i32; 3]>;

/// Directory ids that name no directory (KIP-858): of a time before they had ids, not assigned yet, and lost with its disk.
pub const DIRECTORY_MIGRATING: Uuid = Uuid::from_u128(0);
pub const DIRECTORY_UNASSIGNED: Uuid = Uuid::from_u128(1);
pub const DIRECTORY_LOST: Uuid = Uuid::from_u128(2);

/// The whole cluster at one offset of the metadata log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Image {
    /// The last record that is contained, -1 before the first.
    pub(super) offset: i64,
    /// The epoch of that record.
    pub(super) epoch: i32,
    pub(super) features: BTreeMap<Arc<str>, i16>,
    pub(super) brokers: imbl::OrdMap<i32, Arc<BrokerImage>>,
    pub(super) topic_ids: imbl::OrdMap<Arc<str>, Uuid>,
    pub(super) topics: imbl::HashMap<Uuid, Arc<TopicImage>>,
    pub(super) configs: imbl::OrdMap<ConfigResourceType, imbl::OrdMap<Arc<str>, Arc<ConfigMap>>>,
    /// The first producer id that no block has been taken from.
    pub(super) next_producer_id: i64,
    pub(super) kept: KeptRecords,
}

impl Image {
    /// The picture before the first record.
    pub fn empty() -> Self {
        Self { offset: -1, ..Self::default() }
    }

    /// The offset of the last record that is contained; -1 before the first. ApiVersions shows it as the epoch of the finalised features.
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// The epoch of the last record that is contained.
    pub fn epoch(&self) -> i32 {
        self.epoch
    }

    /// The finalised level of a feature, 0 where none was set.
    pub fn feature_level(&self, name: &str) -> i16 {
        self.features.get(name).copied().unwrap_or(0)
    }

    /// All finalised features with a level above 0.
    pub fn features(&self) -> impl Iterator<Item = (&str, i16)> {
        self.features.iter().map(|(name, level)| (&**name, *level))
    }

    /// Registered brokers by id, fenced ones included.
    pub fn brokers(&self) -> impl Iterator<Item = &Arc<BrokerImage>> {
        self.brokers.values()
    }

    pub fn broker(&self, id: i32) -> Option<&Arc<BrokerImage>> {
        self.brokers.get(&id)
    }

    /// Topics in the order of their names.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.topic_ids.values().filter_map(|id| self.topics.get(id))
    }

    /// Topics in the order of their names, from the first name that is not below `from`.
    pub fn topics_from(&self, from: &str) -> impl Iterator<Item = &Arc<TopicImage>> {
        let range = (std::ops::Bound::Included(from), std::ops::Bound::Unbounded);
        self.topic_ids.range::<_, str>(range).filter_map(|(_, id)| self.topics.get(id))
    }

    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    pub fn topic(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topics.get(self.topic_ids.get(name)?)
    }

    pub fn topic_by_id(&self, id: &Uuid) -> Option<&Arc<TopicImage>> {
        self.topics.get(id)
    }

    /// Whether topics, their partitions or the brokers' racks may be others than in `former`. Cheap: pictures share what did not change.
    pub fn may_differ_in_topics(&self, former: &Image) -> bool {
        !(self.topics.ptr_eq(&former.topics) && self.brokers.ptr_eq(&former.brokers))
    }

    /// Whether there are topics that `former` does not have, or has under another id.
    pub fn has_topics_beyond(&self, former: &Image) -> bool {
        former.topic_ids.diff(&self.topic_ids).any(|change| !matches!(change, imbl::ordmap::DiffItem::Remove(..)))
    }

    pub fn partition(&self, key: &TopicIdPartition) -> Option<&PartitionImage> {
        self.topic_by_id(&key.topic_id)?.partition(key.partition)
    }

    /// The settings given to a resource; none where it has no setting of its own. The empty broker name is the default of the whole cluster.
    pub fn config(&self, kind: ConfigResourceType, name: &str) -> Option<&Arc<ConfigMap>> {
        self.configs.get(&kind)?.get(name)
    }

    /// The overrides of a topic, as `TopicSettings::resolve` takes them.
    pub fn topic_overrides(&self, name: &str) -> impl Iterator<Item = (&str, &str)> {
        self.config(ConfigResourceType::Topic, name).into_iter().flat_map(|map| map.iter().map(|(key, value)| (&**key, &**value)))
    }

    /// Names of the resources of a kind that have settings of their own.
    pub fn configured_resources(&self, kind: ConfigResourceType) -> impl Iterator<Item = &str> {
        self.configs.get(&kind).into_iter().flat_map(|map| map.keys().map(|name| &**name))
    }

    /// The level of metadata.version, which decides in what versions records are written; none before the first start has finalised one.
    pub fn metadata_version(&self) -> Option<MetadataVersion> {
        self.features.get(METADATA_VERSION).map(|level| MetadataVersion(*level))
    }

    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }
}

/// Records of what this broker does not serve yet, kept as they came, so that a snapshot of ours loses nothing that Kafka wrote.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct KeptRecords {
    pub controllers: imbl::OrdMap<i32, RegisterControllerRecord>,
    pub acls: imbl::OrdMap<Uuid, AccessControlEntryRecord>,
    /// By mechanism and user.
    pub scram_credentials: imbl::OrdMap<(i8, Str), UserScramCredentialRecord>,
    /// By token id.
    pub delegation_tokens: imbl::OrdMap<Str, DelegationTokenRecord>,
    /// By entity and key.
    pub client_quotas: imbl::OrdMap<(QuotaEntity, Str), ClientQuotaRecord>,
}

/// Entity type to name, sorted by type; no name is the default of that type.
pub(super) type QuotaEntity = Vec<(Str, Option<Str>)>;

/// A topic: its partitions stand at their index.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicImage {
    pub name: Arc<str>,
    pub id: Uuid,
    pub partitions: Vec<PartitionImage>,
}

impl TopicImage {
    pub fn partition(&self, index: i32) -> Option<&PartitionImage> {
        self.partitions.get(usize::try_from(index).ok()?)
    }

    pub fn partition_count(&self) -> i32 {
        i32::try_from(self.partitions.len()).expect("a topic has at most i32::MAX partitions")
    }
}

/// A partition as the controller sees it: who holds it, who leads it, and in which epochs.
#[derive(Clone, Debug, PartialEq)]
pub struct PartitionImage {
    pub replicas: ReplicaSet,
    pub isr: ReplicaSet,
    pub removing_replicas: ReplicaSet,
    pub adding_replicas: ReplicaSet,
    pub eligible_leader_replicas: ReplicaSet,
    pub last_known_elr: ReplicaSet,
    /// The broker that leads, -1 where there is none.
    pub leader: i32,
    /// Rises whenever the leader is set anew; -1 before the first record.
    pub leader_epoch: i32,
    /// Rises with every change of the partition (AlterPartition fences with it).
    pub partition_epoch: i32,
    /// 0 recovered, 1 recovering from an unclean election (KIP-704).
    pub leader_recovery_state: i8,
    /// One directory id per replica, in their order.
    pub directories: SmallVec<[Uuid; 1]>,
}

impl PartitionImage {
    /// A place held open for a partition whose record has not come yet: a snapshot may hold a topic's partitions in any order.
    pub fn unknown() -> Self {
        Self {
            replicas: SmallVec::new(),
            isr: SmallVec::new(),
            removing_replicas: SmallVec::new(),
            adding_replicas: SmallVec::new(),
            eligible_leader_replicas: SmallVec::new(),
            last_known_elr: SmallVec::new(),
            leader: NO_LEADER,
            leader_epoch: -1,
            partition_epoch: -1,
            leader_recovery_state: 0,
            directories: SmallVec::new(),
        }
    }

    /// False for a place that is only held open.
    pub fn is_known(&self) -> bool {
        self.leader_epoch >= 0
    }

    /// Whether eligible or last known leaders are kept for a partition without a sufficient ISR (KIP-966).
    pub fn has_elr(&self) -> bool {
        !self.eligible_leader_replicas.is_empty() || !self.last_known_elr.is_empty()
    }
}

/// The leader of a partition that has none.
pub const NO_LEADER: i32 = -1;

/// A registered broker.
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerImage {
    pub id: i32,
    /// The offset of the registration record: tells one life of a broker from the next.
    pub epoch: i64,
    pub incarnation_id: Uuid,
    pub endpoints: Vec<Endpoint>,
    /// Feature name to the lowest and highest level that the broker can work with.
    pub supported_features: BTreeMap<Arc<str>, (i16, i16)>,
    pub rack: Option<Arc<str>>,
    /// A fenced broker leads nothing and is not shown to clients.
    pub fenced: bool,
    pub in_controlled_shutdown: bool,
    pub directories: Vec<Uuid>,
    pub cordoned_directories: Option<Vec<Uuid>>,
}

impl BrokerImage {
    /// Whether it serves clients: neither fenced nor on its way out.
    pub fn is_active(&self) -> bool {
        !self.fenced && !self.in_controlled_shutdown
    }

    /// Whether a replica in a directory can be reached: the directory is among those that the broker has, or it is not said which it is.
    pub fn has_directory_online(&self, directory: &Uuid) -> bool {
        match *directory {
            DIRECTORY_MIGRATING | DIRECTORY_UNASSIGNED => true,
            DIRECTORY_LOST => false,
            _ => self.directories.contains(directory),
        }
    }

    /// Whether new replicas may be put here: not when all directories are cordoned (KIP-1066). A broker that names no directory is of a time before they had ids.
    pub fn has_usable_directory(&self) -> bool {
        let cordoned = self.cordoned_directories.as_deref().unwrap_or_default();
        self.directories.is_empty() || self.directories.iter().any(|directory| !cordoned.contains(directory))
    }

    /// The directory of a new replica: known where the broker has only one that is not cordoned, else left to the broker.
    pub fn directory_for_new_replica(&self) -> Uuid {
        if self.directories.is_empty() {
            return DIRECTORY_MIGRATING;
        }
        let cordoned = self.cordoned_directories.as_deref().unwrap_or_default();
        let mut usable = self.directories.iter().filter(|directory| !cordoned.contains(directory));
        match (usable.next(), usable.next()) {
            (Some(only), None) => *only,
            _ => DIRECTORY_UNASSIGNED,
        }
    }

    pub fn endpoint(&self, listener: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| &*endpoint.name == listener)
    }
}

/// Where a node can be reached on one of its listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub name: Arc<str>,
    pub host: Arc<str>,
    pub port: u16,
    /// 0 PLAINTEXT, 1 SSL, 2 SASL_PLAINTEXT, 3 SASL_SSL.
    pub security_protocol: i16,
}

/// What can have settings, with the numbers of the wire (DescribeConfigs) and of ConfigRecord.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i8)]
pub enum ConfigResourceType {
    Topic = 2,
    Broker = 4,
    BrokerLogger = 8,
    ClientMetrics = 16,
    Group = 32,
}

impl ConfigResourceType {
    pub const fn code(self) -> i8 {
        self as i8
    }
}

impl TryFrom<i8> for ConfigResourceType {
    type Error = i8;

    fn try_from(code: i8) -> Result<Self, i8> {
        match code {
            2 => Ok(Self::Topic),
            4 => Ok(Self::Broker),
            8 => Ok(Self::BrokerLogger),
            16 => Ok(Self::ClientMetrics),
            32 => Ok(Self::Group),
            other => Err(other),
        }
    }
}
