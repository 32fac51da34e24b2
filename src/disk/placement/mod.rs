//! Placement: what the journal holds is written into segment files, so that the ring's space can be taken again.
//!
//! Placement creates a segment's `.log` file when it first writes into it and cuts it to its last byte once a later segment follows; nobody else writes `.log` files of a
//! partition that is registered here. Until `placed` says so, bytes are in memory only (and in the ring).

pub mod backlog;

use crate::disk::checkpoint::{PartitionFacts, PlacedEnd};
use crate::disk::journal::JournalError;

/// What placement and checkpoints ask of a partition on their shard. All calls are synchronous and short; none may append to the journal.
pub trait PlacementTarget {
    /// The partition as of every entry that it has appended to the journal so far, durable or not.
    fn facts(&self) -> PartitionFacts;

    /// The segment files now hold the log up to here, flushed. What lies below may leave memory and be read from the files.
    fn placed(&self, end: PlacedEnd);

    /// Writing or flushing this partition's files failed: it takes no more appends until a restart has recovered it. What is durable in the journal stays readable from memory.
    fn failed(&self, error: &JournalError);
}
