//! Recovery: before any shard starts, what journals, checkpoints and segment files hold becomes one recovered state for each partition.

use std::path::PathBuf;

use crate::disk::checkpoint::{PartitionFacts, PlacedEnd};

/// A partition as a restart finds it: everything in its segment files, flushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredPartition {
    /// As of the log's end: offsets, all segments, epochs and producer state.
    pub facts: PartitionFacts,
    /// Full path of the partition's directory.
    pub directory: PathBuf,
    /// Where placement goes on: the log's end.
    pub placed: PlacedEnd,
    /// Position in the active segment from which its index files may hold nothing, or entries of bytes that never became durable: entries from here on are to be dropped, and
    /// may be made again by walking the batches.
    pub index_valid_to: u32,
}
