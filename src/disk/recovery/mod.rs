//! Recovery: before any shard starts, what journals, checkpoints and segment files hold becomes one recovered state for each partition.

use std::path::PathBuf;

use bytes::Bytes;

use crate::cluster::TopicIdPartition;
use crate::disk::checkpoint::{EpochStart, PartitionHome, PlacedEnd, SegmentFacts};

/// A partition as a restart finds it: everything in its segment files, flushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredPartition {
    pub partition: TopicIdPartition,
    pub home: PartitionHome,
    /// Full path of the partition's directory.
    pub directory: PathBuf,
    pub log_start_offset: i64,
    /// The next offset to be assigned.
    pub end_offset: i64,
    /// At most `end_offset`; what a cluster may have committed beyond it is found out from the leader.
    pub high_watermark: i64,
    pub leader_epochs: Vec<EpochStart>,
    /// Producer state as of `end_offset`, as in Kafka's `.snapshot` files; empty where no producer is known.
    pub producers: Bytes,
    /// Segments before the active one, ascending: base offset and size. Their largest timestamps are in their time indexes.
    pub older_segments: Vec<OlderSegment>,
    pub active: SegmentFacts,
    /// Position from which the active segment's indexes may miss entries, because a crash came before they were written: the reader rebuilds from here.
    pub index_valid_to: u32,
    pub placed: PlacedEnd,
}

/// A segment that takes no more appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OlderSegment {
    pub base_offset: i64,
    pub size_bytes: u32,
}
