//! Cluster metadata, pure: the records, the image that they add up to, and the controller's decisions over it.
//!
//! `image` is what every shard holds, immutable and shared; `record` is the one way in which it changes. Shard 0 decides (drive::controller), writes the records into
//! `__cluster_metadata-0`, applies them to its own copy and hands the result to all shards. Nothing here does I/O, and time and randomness are arguments.

pub mod apply;
#[cfg(test)]
mod apply_tests;
pub mod decide;
pub mod features;
pub mod image;
mod image_records;
pub mod kraft;
pub mod placement;
pub mod record;
pub mod topic_name;

use std::fmt;

use uuid::Uuid;

pub use apply::ApplyError;
pub use features::{METADATA_VERSION_LATEST, MetadataVersion};
pub use image::{BrokerImage, ConfigResourceType, Image, PartitionImage, TopicImage};
pub use record::{MetadataRecord, RecordError};

/// The key of a partition inside the broker. A topic that is deleted and made again has another id, so that nothing of the old one can be mistaken for the new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicIdPartition {
    pub topic_id: Uuid,
    pub partition: i32,
}

impl TopicIdPartition {
    pub const fn new(topic_id: Uuid, partition: i32) -> Self {
        Self { topic_id, partition }
    }
}

impl fmt::Display for TopicIdPartition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.topic_id, self.partition)
    }
}

/// The metadata log's topic; its id is fixed so that every node of a cluster knows it without being told (KIP-631).
pub const METADATA_TOPIC: &str = "__cluster_metadata";
pub const METADATA_TOPIC_ID: Uuid = Uuid::from_u128(1);
/// The one partition of the metadata log. It is owned by shard 0 and never appears as a topic to clients.
pub const METADATA_PARTITION: TopicIdPartition = TopicIdPartition::new(METADATA_TOPIC_ID, 0);

/// Topics that the broker itself writes: Metadata calls them internal, and clients may neither produce to them nor delete their records.
pub const INTERNAL_TOPICS: [&str; 3] = ["__consumer_offsets", "__transaction_state", "__share_group_state"];

pub fn is_internal_topic(name: &str) -> bool {
    INTERNAL_TOPICS.contains(&name)
}
