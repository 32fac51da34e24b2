//! Checkpoints of a shard: up to where everything is placed, and what cannot be read back from the segment files.

pub mod facts;
pub mod slot;

pub use facts::{PartitionFacts, PartitionHome, PartitionRecord, PlacedEnd, ReplicaMove};
