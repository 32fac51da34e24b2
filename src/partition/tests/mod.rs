//! Partitions on a real shard with a real journal and placement, in a temporary directory.

mod append;
mod compaction;
mod durability;
mod files;
mod home;
mod lives;
mod moving;
mod offsets;
mod read;
mod retention;
mod transactions;
mod wait;

use std::future::Future;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::*;
use crate::config::TopicSettings;
use crate::disk::checkpoint::slot::Slot;
use crate::disk::journal::file::ring_path;
use crate::disk::journal::{Journal, RingFile};
use crate::disk::placement::{CheckpointTurn, Placement};
use crate::log::{BatchInfo, Origin, ValidatedBatch};
use crate::rt;
use crate::rt::file::Durability;
use crate::wire::batch::{BatchBuilder, BatchOptions};

const CLIENT: Origin = Origin::Client { transaction_version: 0 };

/// One shard's storage and partitions.
struct Place {
    directory: tempfile::TempDir,
    journal: Rc<Journal>,
    placement: Rc<Placement>,
    partitions: Rc<Partitions>,
}

impl Place {
    fn new(ring_bytes: u64, options: PartitionsOptions) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ring = RingFile::create_blocking(&ring_path(directory.path(), 0), ring_bytes, true).unwrap();
        let journal = Journal::start(ring, rt::random_uuid(), Durability::Dsync);
        let turn = CheckpointTurn { journal_directory: directory.path().into(), shard: 0, number: 1, slot: Slot::A };
        let placement = Placement::start(journal.clone(), turn, true);
        let partitions = Partitions::new(journal.clone(), placement.clone(), options);
        Self { directory, journal, placement, partitions }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A new partition of the topic `orders`, led in epoch 5.
    async fn partition(&self, number: i32, settings: &TopicSettings) -> Rc<Partition> {
        self.partition_in((self.path(), 1), number, settings).await
    }

    /// The same in a data directory of that path and id.
    async fn partition_in(&self, (data_directory, id): (&Path, u128), number: i32, settings: &TopicSettings) -> Rc<Partition> {
        let new = NewPartition {
            id: TopicIdPartition::new(Uuid::from_u128(77), number),
            topic: Arc::from("orders"),
            data_directory: data_directory.into(),
            directory_id: Uuid::from_u128(id),
        };
        let partition = self.partitions.create(new, settings).await.unwrap();
        partition.become_leader(5);
        partition
    }

    async fn place_everything(&self) {
        self.journal.wait_durable(self.journal.last_sequence()).await.unwrap();
        self.placement.place_now().await.unwrap();
    }
}

/// Runs a test on a shard, with one partition of default settings, on a ring of 4 MiB.
fn on_shard<F: Future<Output = ()>>(test: impl FnOnce(Place, Rc<Partition>) -> F + Send + 'static) {
    with_settings(TopicSettings::default(), PartitionsOptions::default(), test);
}

fn with_settings<F: Future<Output = ()>>(
    settings: TopicSettings,
    options: PartitionsOptions,
    test: impl FnOnce(Place, Rc<Partition>) -> F + Send + 'static,
) {
    rt::run(move || async move {
        let place = Place::new(4 << 20, options);
        let partition = place.partition(0, &settings).await;
        test(place, partition).await;
    });
}

/// A batch of records with these timestamps and values of `value_bytes`.
fn timed_batch(timestamps: &[i64], value_bytes: usize, options: BatchOptions) -> ValidatedBatch {
    let mut builder = BatchBuilder::new(options);
    let value = vec![b'v'; value_bytes];
    for timestamp in timestamps {
        builder.push(Some(b"key"), Some(&value), *timestamp, &[]);
    }
    ValidatedBatch::internal(builder.build().unwrap())
}

fn batch(records: usize, value_bytes: usize) -> ValidatedBatch {
    timed_batch(&vec![1_000; records], value_bytes, BatchOptions::default())
}

/// A batch of producer 9.
fn idempotent(base_sequence: i32, records: usize) -> ValidatedBatch {
    timed_batch(&vec![1_000; records], 10, BatchOptions { producer_id: 9, producer_epoch: 0, base_sequence, ..BatchOptions::default() })
}

async fn append_durably(partition: &Partition, batch: &ValidatedBatch) -> Appending {
    let appending = partition.append(batch, CLIENT).await.unwrap();
    partition.wait_durable(appending.sequence).await.unwrap();
    appending
}

/// Base offsets of the batches that a read gives.
async fn offsets(partition: &Partition, from: i64, max_bytes: usize) -> Vec<i64> {
    let batches = partition.read_batches(from, max_bytes).await.unwrap();
    batches.iter().map(|(info, _)| info.base_offset).collect()
}

/// What a plan's pieces hold, whether in memory or in files.
async fn bytes_of(plan: &ReadPlan) -> Bytes {
    let mut joined = Vec::new();
    for piece in &plan.pieces {
        match piece {
            Piece::Memory(bytes) => joined.extend_from_slice(bytes),
            Piece::File(range) => joined.extend_from_slice(&range.file.read_at(range.length as usize, range.position).await.unwrap()),
        }
    }
    assert_eq!(joined.len(), plan.size_bytes);
    Bytes::from(joined)
}
