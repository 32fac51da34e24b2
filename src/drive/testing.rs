//! What the drivers' tests stand on: a shard's storage in a temporary directory, settings, and metadata.

use std::rc::Rc;
use std::sync::Arc;

use uuid::Uuid;

use crate::cluster::{Image, TopicIdPartition};
use crate::config::{Config, Sources, TopicSettings};
use crate::disk::checkpoint::slot::Slot;
use crate::disk::journal::file::ring_path;
use crate::disk::journal::{Journal, RingFile};
use crate::disk::placement::{CheckpointTurn, Placement};
use crate::partition::{NewPartition, Partitions, PartitionsOptions};
use crate::rt;
use crate::rt::file::Durability;
use crate::wire::Str;
use crate::wire::records::{PartitionRecord, TopicRecord};

const DIRECTORY_ID: Uuid = Uuid::from_u128(1);

/// A topic's name, id, and number of partitions.
pub(super) type Topic = (&'static str, Uuid, i32);

/// A shard's journal and partitions. The directory goes with it.
pub(super) struct Storage {
    _directory: tempfile::TempDir,
    pub(super) partitions: Rc<Partitions>,
}

impl Storage {
    /// With the partitions of one topic, led in `leader_epoch`.
    pub(super) async fn with((name, topic_id, partition_count): Topic, leader_epoch: i32) -> Storage {
        let directory = tempfile::tempdir().unwrap();
        let ring = RingFile::create_blocking(&ring_path(directory.path(), 0), 8 << 20, true).unwrap();
        let journal = Journal::start(ring, rt::random_uuid(), Durability::Dsync);
        let turn = CheckpointTurn { journal_directory: directory.path().into(), shard: 0, number: 1, slot: Slot::A };
        let placement = Placement::start(journal.clone(), turn, true);
        let partitions = Partitions::new(journal, placement, PartitionsOptions::default());
        for index in 0..partition_count {
            let new = NewPartition {
                id: TopicIdPartition::new(topic_id, index),
                topic: Arc::from(name),
                data_directory: directory.path().into(),
                directory_id: DIRECTORY_ID,
            };
            partitions.create(new, &TopicSettings::default()).await.unwrap().become_leader(leader_epoch);
        }
        Storage { _directory: directory, partitions }
    }
}

pub(super) fn config(settings: &[(&str, &str)]) -> Arc<Config> {
    let arguments = settings.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    Arc::new(Config::load(&Sources { arguments, ..Default::default() }).unwrap().config)
}

/// Metadata of these topics, all of whose partitions the node leads.
pub(super) fn image(node_id: i32, topics: &[Topic]) -> Image {
    let mut image = Image::empty();
    for (name, topic_id, partition_count) in topics {
        image.apply(&TopicRecord { name: Str::from(*name), topic_id: *topic_id, ..Default::default() }.into()).unwrap();
        for partition_id in 0..*partition_count {
            let record = PartitionRecord {
                topic_id: *topic_id,
                partition_id,
                replicas: vec![node_id],
                isr: vec![node_id],
                leader: node_id,
                directories: vec![DIRECTORY_ID],
                ..Default::default()
            };
            image.apply(&record.into()).unwrap();
        }
    }
    image
}
