//! The group coordinators of a shard: one for each partition of `__consumer_offsets` that it owns.
//!
//! A request finds its coordinator by the partition that the group's id hashes to; the caller has done the hashing and asked the owner's shard. Each coordinator is driven by a
//! `host` over its `log`; this file knows which there are and keeps time for all of them.

mod host;
mod log;
#[cfg(test)]
mod tests;

use crate::cluster::TopicIdPartition;
use crate::group::{Call, Caller};

pub use crate::group::Reply as GroupReply;

/// A call for the group coordinators of one shard.
#[derive(Debug)]
pub struct GroupRequest {
    pub to: Coordinators,
    pub caller: Caller,
    pub call: Call,
}

/// Which coordinators of the shard are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coordinators {
    /// That of one partition of `__consumer_offsets`, which this shard is believed to own.
    Of(TopicIdPartition),
    /// All of them; for ListGroups alone.
    All,
}
