//! KRaft's form on disk, pure: the batches of the metadata log, its snapshots, the quorum's state file, and how a picture is made from them.
//!
//! What Kafka 4.4 writes for a controller quorum of one is what stands here, byte for byte where it matters: Kafka's tools read our log, Kafka opens our directory, and we open
//! Kafka's. Sources: KIP-595 (log, leader change), KIP-630 (snapshots), KIP-853 (voters, kraft.version), and directories written by Kafka 4.4.0.

pub mod batches;
pub mod control;
pub mod quorum_state;
pub mod replay;
pub mod snapshot;
#[cfg(test)]
mod tests;

pub use control::{ControlRecord, Voter, VoterEndpoint};
pub use quorum_state::QuorumState;
pub use replay::{Replay, ReplayError, Replayed};
pub use snapshot::SnapshotId;
